"""Evidence that was changed, moved to other code or signed by another does not count."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from erp.runtime import evidence as subject
from erp.runtime.evidence import (
    EvidenceError,
    canonical,
    digest,
    public_key,
    read_evidence,
    signed,
    signing_key,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
DOCUMENT = {"format": subject.FORMAT, "ref": "cache/example", "proof": {"ttl": "P4"}, "ünï": [1, None, True]}


def test_the_canonical_form_is_sorted_without_space_and_without_the_signature() -> None:
    assert canonical({"b": 1, "a": {"d": [], "c": "é"}, "signature": 7}) == '{"a":{"c":"é","d":[]},"b":1}'.encode()


def test_what_was_signed_verifies_in_any_order_and_layout() -> None:
    document = signed(DOCUMENT, KEY)
    reordered = dict(reversed(json.loads(json.dumps(document, indent=8)).items()))

    assert verify(reordered) == public_key(KEY)
    assert verify(reordered, key=public_key(KEY)) == public_key(KEY)


@pytest.mark.parametrize(
    "changed",
    [
        {"ref": "cache/other"},
        {"proof": {"ttl": "P5"}},
        {"more": 1},
        {"signature": {}},
        {"signature": None},
        {"signature": {"key": public_key(OTHER), "value": base64.b64encode(bytes(64)).decode()}},
        {"signature": {"key": public_key(KEY), "value": "short"}},
        {"signature": {"key": "%%%", "value": "%%%"}},
    ],
)
def test_a_changed_document_is_refused(changed: dict) -> None:
    document = signed(DOCUMENT, KEY)

    with pytest.raises(EvidenceError):
        verify({**document, **changed})

    assert verify(document) == public_key(KEY)


def test_another_signer_than_the_expected_one_is_refused() -> None:
    document = signed(DOCUMENT, OTHER)

    with pytest.raises(EvidenceError, match="is signed with"):
        verify(document, key=public_key(KEY))


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERP_CERTIFY_KEY", raising=False)
    file = tmp_path / "erp" / "certify.key"

    first = public_key(signing_key(file))

    assert public_key(signing_key(file)) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["certify.key"]


def test_a_key_made_by_another_process_meanwhile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERP_CERTIFY_KEY", raising=False)
    file = tmp_path / "certify.key"
    link, theirs = os.link, base64.b64encode(bytes(32)).decode()

    def slow(source: Path, target: Path) -> None:
        file.write_text(theirs)
        link(source, target)

    monkeypatch.setattr(os, "link", slow)

    assert public_key(signing_key(file)) == public_key(OTHER)


def test_the_key_of_the_environment_wins_and_a_malformed_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "certify.key"
    monkeypatch.setenv("ERP_CERTIFY_KEY", base64.b64encode(bytes(32)).decode())
    assert public_key(signing_key(file)) == public_key(OTHER)

    monkeypatch.setenv("ERP_CERTIFY_KEY", "c2hvcnQ=")
    with pytest.raises(EvidenceError, match="ERP_CERTIFY_KEY is not 32 bytes"):
        signing_key(file)
    assert not file.exists()


def test_the_digest_changes_with_manifest_and_code_and_not_with_tests_or_documentation(tmp_path: Path) -> None:
    (tmp_path / "provider.yaml").write_text("ref: cache/example")
    (tmp_path / "provider.py").write_text("x = 1")
    before = digest(tmp_path)

    (tmp_path / "test_example.py").write_text("x = 1")
    (tmp_path / "README.md").write_text("# x")
    assert digest(tmp_path) == before

    (tmp_path / "provider.py").write_text("x = 2")
    assert digest(tmp_path) != before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "erp-evidence/9"}', "[" * 100_000, "\udcff"])
def test_a_file_that_is_no_evidence_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(EvidenceError, match="evidence"):
        read_evidence(file)
