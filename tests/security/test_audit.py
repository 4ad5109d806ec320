from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import sqlalchemy as sa

from erp.control_plane import ControlPlane
from erp.control_plane.audit import ChainLink
from erp.control_plane.tables import audit, audit_heads
from erp.runtime.ports import AuditEntry, Completion
from erp.security import audit as proof
from erp.security.audit import verify, verify_tenant

pytestmark = pytest.mark.anyio


@pytest.fixture
async def chain(control: ControlPlane) -> list[ChainLink]:
    for number in range(5):
        entry = AuditEntry(
            tenant="acme",
            actor="key_1",
            action="cache.set",
            target="cache/memory.set",
            outcome="ok",
            reason="done",
            request_id=f"req_{number}",
            time="2026-11-23T10:00:00Z",
            effect="write",
        )
        await control.journal.complete(Completion(audit=entry))
    return await control.audit.chain("acme")


async def test_an_untouched_chain_is_whole(control: ControlPlane, chain: list[ChainLink]) -> None:
    verdict = await verify_tenant(control.audit, "acme")
    assert (verdict.is_whole, verdict.checked, verdict.last_hash) == (True, 5, chain[-1].hash)
    assert (await verify_tenant(control.audit, "globex")).is_whole is True


def changed(chain: list[ChainLink]) -> list[ChainLink]:
    record = chain[2].record.replace(b'"ok"', b'"no"')
    return [*chain[:2], msgspec.structs.replace(chain[2], record=record), *chain[3:]]


def removed(chain: list[ChainLink]) -> list[ChainLink]:
    return [*chain[:2], *chain[3:]]


def renumbered(chain: list[ChainLink]) -> list[ChainLink]:
    return [*chain[:2], *(msgspec.structs.replace(link, seq=link.seq - 1) for link in chain[3:])]


def swapped(chain: list[ChainLink]) -> list[ChainLink]:
    third = msgspec.structs.replace(chain[3], seq=3)
    return [*chain[:2], third, msgspec.structs.replace(chain[2], seq=4), chain[4]]


@pytest.mark.parametrize(
    ("tampered", "reason"),
    [
        (changed, "the record was changed"),
        (removed, "record 3 is missing"),
        (renumbered, "the record does not follow from the one before it"),
        (swapped, "the record does not follow from the one before it"),
    ],
)
async def test_the_first_record_that_does_not_fit_is_named(
    chain: list[ChainLink], tampered: Callable[[list[ChainLink]], list[ChainLink]], reason: str
) -> None:
    verdict = verify(tampered(chain))
    assert (verdict.is_whole, verdict.checked, verdict.broken_at, verdict.reason) == (False, 2, 3, reason)


async def test_a_later_check_can_go_on_where_an_earlier_one_ended(
    control: ControlPlane, chain: list[ChainLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "PAGE", 2)
    verdict = await verify_tenant(control.audit, "acme")
    assert (verdict.is_whole, verdict.checked, verdict.last_hash) == (True, 5, chain[-1].hash)
    change = sa.update(audit).where(audit.c.seq == 4).values(record=b"{}")
    await control.database.transact(lambda connection: connection.execute(change))
    verdict = await verify_tenant(control.audit, "acme")
    assert (verdict.is_whole, verdict.checked, verdict.broken_at) == (False, 3, 4)


async def test_records_cut_off_at_the_end_are_noticed_by_the_head(
    control: ControlPlane, chain: list[ChainLink]
) -> None:
    cut = sa.delete(audit).where(audit.c.seq > 3)
    await control.database.transact(lambda connection: connection.execute(cut))
    verdict = await verify_tenant(control.audit, "acme")
    assert (verdict.is_whole, verdict.broken_at, verdict.reason) == (
        False,
        4,
        "the chain ends at 3, but 5 records were written",
    )
    forget = sa.delete(audit_heads)
    await control.database.transact(lambda connection: connection.execute(forget))
    assert (await verify_tenant(control.audit, "acme")).is_whole is False
