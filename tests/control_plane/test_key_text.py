from __future__ import annotations

import re

import pytest

from erp.control_plane import key_text


def test_a_key_has_the_published_shape() -> None:
    key = key_text.mint()
    assert re.fullmatch(r"erpk_live_[0-9A-Za-z]{50}", key.text)
    assert len(key.text) == 60
    assert key.text[10:21] == key.id == key_text.key_id(key.text)
    assert key.text not in repr(key)


def test_keys_do_not_repeat() -> None:
    keys = [key_text.mint() for _ in range(200)]
    assert len({key.id for key in keys}) == len({key.text for key in keys}) == 200


@pytest.mark.parametrize("position", [5, 10, 20, 21, 40, 53, 54, 59])
def test_a_mistyped_character_is_noticed(position: int) -> None:
    text = key_text.mint().text
    wrong = "z" if text[position] != "z" else "y"
    assert key_text.key_id(text[:position] + wrong + text[position + 1 :]) is None


@pytest.mark.parametrize("text", ["", "erpk_live_", "sk-something", "erpk_live_" + "0" * 51, "erpk_live_" + "é" * 50])
def test_what_is_no_key_has_no_id(text: str) -> None:
    assert key_text.key_id(text) is None


def test_the_checksum_is_the_crc32_of_what_stands_before_it_in_base62() -> None:
    body = "erpk_live_" + "0" * 44
    assert key_text.key_id(body + "1bGLvp") == "0" * 11
    assert key_text.key_id(body + "1bGLv0") is None


def test_a_digest_depends_on_key_and_pepper() -> None:
    assert key_text.digest(b"a", "key") == key_text.digest(b"a", "key")
    assert len({key_text.digest(b"a", "key"), key_text.digest(b"b", "key"), key_text.digest(b"a", "kez")}) == 3
