"""Proof that a tenant's audit records are whole: nothing changed, removed or put in between."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

import msgspec

from erp.control_plane.audit import AuditRecords, ChainHead, ChainLink
from erp.control_plane.batch import GENESIS, chained

PAGE = 1000


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What checking a chain found. ``broken_at``: number of the first record that does not fit."""

    is_whole: bool
    checked: int
    broken_at: int | None = None
    reason: str = "every record follows from the one before it"
    last_hash: bytes = GENESIS


def verify(links: Iterable[ChainLink], *, after: ChainHead | None = None, until: ChainHead | None = None) -> Verdict:
    """Check records in their order.

    ``after`` is where an earlier check ended (nothing: the beginning), ``until`` where the chain is
    known to end: without it, records cut off at the end cannot be noticed.
    """
    seq, previous = (0, GENESIS) if after is None else (after.seq, after.hash)
    checked = 0
    for link in links:
        reason = _fault(link, seq + 1, previous)
        if reason is not None:
            return Verdict(is_whole=False, checked=checked, broken_at=seq + 1, reason=reason, last_hash=previous)
        seq, previous, checked = link.seq, link.hash, checked + 1
    if until is not None and (seq, previous) != (until.seq, until.hash):
        reason = f"the chain ends at {seq}, but {until.seq} records were written"
        return Verdict(is_whole=False, checked=checked, broken_at=seq + 1, reason=reason, last_hash=previous)
    return Verdict(is_whole=True, checked=checked, last_hash=previous)


async def verify_tenant(records: AuditRecords, tenant: str) -> Verdict:
    """Check all records of ``tenant`` up to the head of its chain at this moment."""
    until = await records.head(tenant) or ChainHead(seq=0, hash=GENESIS)
    if until.seq == 0 and await records.chain(tenant, limit=1):
        return Verdict(is_whole=False, checked=0, broken_at=1, reason="the head of the chain is missing")
    at, checked = ChainHead(seq=0, hash=GENESIS), 0
    while at.seq < until.seq:
        page = await records.chain(tenant, after=at.seq, limit=min(PAGE, until.seq - at.seq))
        is_last = not page or page[-1].seq >= until.seq
        verdict = verify(page, after=at, until=until if is_last else None)
        checked += verdict.checked
        if not verdict.is_whole or is_last:
            return msgspec.structs.replace(verdict, checked=checked)
        at = ChainHead(seq=page[-1].seq, hash=verdict.last_hash)
    return Verdict(is_whole=True, checked=checked, last_hash=at.hash)


def _fault(link: ChainLink, seq: int, previous: bytes) -> str | None:
    if link.seq != seq:
        return f"record {seq} is missing"
    if not hmac.compare_digest(link.prev_hash, previous):
        return "the record does not follow from the one before it"
    if not hmac.compare_digest(link.hash, chained(previous, link.record)):
        return "the record was changed"
    return None
