from __future__ import annotations

import datetime
import hashlib
from typing import Any

import msgspec
import pytest

from erp.control_plane import ControlPlane
from erp.errors import ProviderError
from erp.runtime.ports import Completion

pytestmark = pytest.mark.anyio


async def record(control: ControlPlane, make: Any, **facts: Any) -> None:
    await control.journal.complete(Completion(audit=make.audit(**facts)))


async def test_records_are_numbered_and_chained_per_tenant(control: ControlPlane, make: Any) -> None:
    for tenant in ("acme", "globex", "acme"):
        await record(control, make, tenant=tenant)
    chain = await control.audit.chain("acme")
    assert [link.seq for link in chain] == [1, 2]
    assert chain[0].prev_hash == bytes(32)
    assert chain[1].prev_hash == chain[0].hash == hashlib.sha256(bytes(32) + chain[0].record).digest()
    assert chain[1].hash == hashlib.sha256(chain[0].hash + chain[1].record).digest()
    head = await control.audit.head("acme")
    assert head is not None
    assert (head.seq, head.hash) == (2, chain[1].hash)
    assert [link.seq for link in await control.audit.chain("globex")] == [1]
    assert await control.audit.head("nobody") is None


async def test_what_is_hashed_is_json_with_sorted_names(control: ControlPlane, make: Any) -> None:
    await record(control, make, detail={"b": 1, "a": {"d": 2, "c": 3}})
    (link,) = await control.audit.chain("acme")
    decoded = msgspec.json.decode(link.record)
    assert list(decoded) == sorted(decoded)
    assert b'"detail":{"a":{"c":3,"d":2},"b":1}' in link.record


async def test_a_record_shows_all_that_was_entered(control: ControlPlane, make: Any) -> None:
    entry = make.audit(detail={"user": "jo"}, traceparent="00-a-b-01", reason="quota \0 of Ünï")
    await control.journal.complete(Completion(audit=entry))
    (found,), cursor = await control.audit.search("acme")
    shown = msgspec.structs.asdict(found)
    assert {name: shown[name] for name in entry.__struct_fields__} == msgspec.structs.asdict(entry)
    assert (found.seq, found.prev_hash, len(found.hash), cursor) == (1, "00" * 32, 64, None)


async def test_filters_narrow_together_and_pages_join_newest_first(control: ControlPlane, make: Any) -> None:
    for number in range(6):
        await record(
            control,
            make,
            actor="key_1" if number % 2 else "key_2",
            outcome="permission_denied" if number == 3 else "ok",
            target=f"cache/memory.{number}",
            time=f"2026-11-23T10:00:0{number}Z",
        )

    async def found(**filters: Any) -> list[int]:
        return [item.seq for item in (await control.audit.search("acme", **filters))[0]]

    def second(number: int) -> datetime.datetime:
        return datetime.datetime(2026, 11, 23, 10, 0, number, tzinfo=datetime.UTC)

    assert await found() == [6, 5, 4, 3, 2, 1]
    assert await found(actor="key_1") == [6, 4, 2]
    assert await found(actor="key_1", outcome="permission_denied") == [4]
    assert await found(target="cache/memory.0") == [1]
    assert await found(since=second(1), until=second(3)) == [3, 2]
    first, cursor = await control.audit.search("acme", actor="key_1", limit=2)
    rest, end = await control.audit.search("acme", actor="key_1", limit=2, cursor=cursor)
    assert ([item.seq for item in first], [item.seq for item in rest], end) == ([6, 4], [2], None)
    assert await found(limit=6) == [6, 5, 4, 3, 2, 1]
    assert (await control.audit.search("globex"))[0] == []
    with pytest.raises(ProviderError) as refused:
        await control.audit.search("acme", cursor="bm90IGEgbnVtYmVy")
    assert refused.value.code == "invalid_argument"
