from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from erp.errors import ProviderError
from erp.security.keyring import Keyring, kek_id

ONE, TWO = bytes(range(32)), bytes(range(1, 33))


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_the_first_start_makes_keys_that_later_starts_use(tmp_path: Path) -> None:
    first, second = Keyring.open(tmp_path, {}), Keyring.open(tmp_path, {})
    assert first.pepper == second.pepper
    assert first.current_kek_id == second.current_kek_id
    assert len(first.pepper) == 32
    assert kek_id(first.pepper) != first.current_kek_id


def test_key_files_belong_to_their_owner_alone(tmp_path: Path) -> None:
    Keyring.open(tmp_path, {})
    keys = tmp_path / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {"kek": 0o600, "pepper": 0o600}


def test_processes_that_start_together_agree_on_the_keys(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keyrings = list(threads.map(lambda _: Keyring.open(tmp_path, {}), range(16)))
    assert len({keyring.pepper for keyring in keyrings}) == 1
    assert len({keyring.current_kek_id for keyring in keyrings}) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["kek", "pepper"]


def test_the_environment_comes_before_files_and_makes_none(tmp_path: Path) -> None:
    keyring = Keyring.open(tmp_path, {"ERP_PEPPER": text(ONE), "ERP_KEK": f"{text(TWO)}, {text(ONE)}"})
    assert (keyring.pepper, keyring.current_kek_id) == (ONE, kek_id(TWO))
    assert [keyring.key(kek_id(key)).id for key in (TWO, ONE)] == [kek_id(TWO), kek_id(ONE)]
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("wrong", ["not base64!", text(b"short"), text(ONE) + ","])
def test_a_malformed_key_is_refused_without_being_shown(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Keyring.open(tmp_path, {"ERP_PEPPER": text(ONE), "ERP_KEK": wrong})
    assert refused.value.code == "failed_precondition"
    assert "ERP_KEK must be 32 bytes" in refused.value.message
    assert wrong not in refused.value.message


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Keyring.open(tmp_path, {})
    (tmp_path / "keys" / "kek").chmod(0o640)
    with pytest.raises(ProviderError) as refused:
        Keyring.open(tmp_path, {})
    assert refused.value.code == "failed_precondition"
    assert "chmod 600" in refused.value.message
    (tmp_path / "keys" / "kek").chmod(0o600)
    Keyring.open(tmp_path, {})


def test_a_keyring_does_not_show_its_keys() -> None:
    keyring = Keyring(ONE, (TWO,))
    assert repr(keyring) == f"Keyring(current_kek_id='{kek_id(TWO)}')"
    assert TWO.hex() not in kek_id(TWO)


def test_an_unknown_key_is_asked_for_in_vain() -> None:
    with pytest.raises(ProviderError) as refused:
        Keyring(ONE, (TWO,)).key(kek_id(ONE))
    assert refused.value.code == "failed_precondition"
