"""Checks an exported audit log with nothing but the file and the public key.

Needs the standard library, ``cryptography`` for Ed25519, and the modules ``chain``, ``merkle``, ``ocsf`` and ``signed_note``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from erp.control_plane.chain import BrokenChainError, ChainCheck
from erp.security import ocsf
from erp.security.signed_note import Checkpoint, InvalidNoteError, PublicKey, opened

_EVERY = 1000


class Examination:
    """What a file has shown."""

    def __init__(self) -> None:
        self.chain = ChainCheck()
        self.tenant = ""
        self.is_whole = False
        self.broken_at: int | None = None
        self.reason = ""


def examine(lines: Iterable[bytes], key: PublicKey, on_progress: Callable[[int], None] = lambda _: None) -> Examination:
    """Check an export line by line; every byte that counts is covered by the signature at its end."""
    found = Examination()
    try:
        _examine(lines, key, found, on_progress)
    except BrokenChainError as error:
        found.broken_at, found.reason = error.seq, error.reason
    else:
        found.is_whole = True
        found.reason = "the records are those that were signed, all of them, in their order"
    return found


def _examine(lines: Iterable[bytes], key: PublicKey, found: Examination, on_progress: Callable[[int], None]) -> None:
    chain, is_signed = found.chain, False
    for line in lines:
        event = _event(line, chain.seq + 1)
        if is_signed:
            raise BrokenChainError(chain.seq + 1, "lines were added behind the signed checkpoint")
        if event.get("activity_name") == "Checkpoint":
            _check_signature(event, key, found)
            is_signed = True
        else:
            _take(event, found)
            if chain.seq % _EVERY == 0:
                on_progress(_EVERY)
    if not is_signed:
        raise BrokenChainError(chain.seq + 1, "the file ends without a signed checkpoint: it was cut off")
    chain.check_deletions()


def _event(line: bytes, seq: int) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise BrokenChainError(seq, "the line is not JSON") from error
    if not isinstance(event, dict):
        raise BrokenChainError(seq, "the line is not an event")
    return event


def _take(event: dict[str, Any], found: Examination) -> None:
    chain = found.chain
    try:
        tenant, seq = event["metadata"]["tenant_uid"], event["metadata"]["sequence"]
        attestation = event["unmapped"]["attestation"]
        previous, digest = bytes.fromhex(attestation["prev_event"]), bytes.fromhex(attestation["fingerprint"])
        record = event.get("raw_data", "").encode()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenChainError(chain.seq + 1, "the line is not an audit event") from error
    chain.take(seq, record, previous, digest)
    found.tenant = found.tenant or tenant
    if tenant != found.tenant or event != ocsf.event(tenant, seq, record, previous, digest):
        raise BrokenChainError(seq, "the event does not say what its record says")


def _check_signature(event: dict[str, Any], key: PublicKey, found: Examination) -> None:
    chain = found.chain
    try:
        signed: Checkpoint = opened(str(event.get("raw_data", "")), [key])
    except InvalidNoteError as error:
        raise BrokenChainError(chain.seq + 1, f"the checkpoint at the end does not count: {error}") from error
    if signed.origin != f"erp-audit/{found.tenant}":
        raise BrokenChainError(chain.seq + 1, f"the checkpoint is that of {signed.origin}")
    if signed.size != chain.seq:
        raise BrokenChainError(chain.seq + 1, f"{signed.size} records were signed, the file has {chain.seq}")
    if signed.root != chain.tree.root():
        raise BrokenChainError(chain.seq + 1, "the records are not those that were signed")
