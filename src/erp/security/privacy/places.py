"""Finds, hands out and erases what one place keeps about a person, by calls like everybody's."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from erp.contracts.models import cache, db, integration, storage
from erp.security.privacy.settings import SUBJECT, Entries, Events, Objects, Place, Records, Rows

Call = Callable[..., Awaitable[Any]]
"""``await call(place, action, request, number)``; the number makes repeatable what is repeated after a crash."""

MOST_ROWS = 100_000
"""More rows about one person are not handed out, and that is said."""
MOST_BYTES = 1024 * 1024
"""Larger objects are named in an export, not copied into it."""

NOT_ALL = f"there are more than {MOST_ROWS} rows; read the others from the table"
NOT_READABLE = "the contract of caches lists no entries; what they hold is a copy that expires"
NOT_DELETED = "the application did not delete it, or did not say; ask again"
NOT_TAKEN_BACK = "what was published cannot be taken back; it goes when its retention of {days} days ends"


class Finding(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was found in a place, and what has become of it."""

    place: str
    found: int | None = None
    """None: it cannot be known."""
    erased: int = 0
    kept: int = 0
    why: str = ""
    """Why something was kept, or is not known."""
    data: list[Any] | None = None
    """What an export hands out."""


def name_of(place: Place) -> str:
    """Name a place without naming a person: ``db/sqlite#default customers.email``."""
    at = f"{place.provider}#{place.connection}"
    match place:
        case Rows():
            return f"db/{at} {place.table}.{place.column}"
        case Entries():
            return f"cache/{at} {place.prefix}"
        case Objects():
            return f"storage/{at} {place.prefix}"
        case Records():
            return f"integration/{at} {place.object}.{place.key}"
        case Events():
            return f"bus/{at}"


async def exported(place: Place, subject: str, call: Call) -> Finding:
    """Return a copy of what the place keeps (GDPR articles 15 and 20)."""
    data: list[Any] = []
    match place:
        case Rows():
            data, is_whole = await _rows(place, subject, call)
            if not is_whole:
                return Finding(place=name_of(place), found=None, data=data, why=NOT_ALL)
        case Objects():
            data = [await _copied(place, one, call) async for one in _objects(place, subject, call)]
        case Records():
            data = [msgspec.to_builtins(one) for one in await _records(place, subject, call)]
        case Entries():
            return Finding(place=name_of(place), why=NOT_READABLE)
        case Events():
            return Finding(place=name_of(place), why=NOT_TAKEN_BACK.format(days=place.retention_days))
    return Finding(place=name_of(place), found=len(data), data=data)


async def erased(place: Place, subject: str, call: Call) -> Finding:
    """Erase what the place keeps (GDPR article 17), unless it says why not."""
    if isinstance(place, Events):
        return Finding(place=name_of(place), why=NOT_TAKEN_BACK.format(days=place.retention_days))
    if place.keep:
        return await _kept(place, subject, call)
    count = 0
    match place:
        case Rows():
            sql = f"DELETE FROM {place.table} WHERE {place.column} = ?"  # noqa: S608  (names by pattern, the value by parameter)
            count = (await call(place, "execute", db.ExecuteRequest(sql=sql, parameters=[subject]), 0)).rows_affected
        case Entries():
            wanted = cache.InvalidatePrefixRequest(prefix=place.prefix.replace(SUBJECT, subject))
            count = (await call(place, "invalidate_prefix", wanted, 0)).removed
        case Objects():
            count = await _erased_objects(place, subject, call)
        case Records():
            return await _erased_records(place, subject, call)
    return Finding(place=name_of(place), found=count, erased=count)


async def _kept(place: Place, subject: str, call: Call) -> Finding:
    found = await exported(place, subject, call)
    return Finding(place=found.place, found=found.found, kept=len(found.data or []), why=place.keep)


async def _rows(place: Rows, subject: str, call: Call) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows about a person, and whether these are all."""
    sql = f"SELECT * FROM {place.table} WHERE {place.column} = ?"  # noqa: S608  (names by pattern, the value by parameter)
    page = await call(place, "query", db.QueryRequest(sql=sql, parameters=[subject], max_rows=MOST_ROWS), 0)
    names = [column.name for column in page.columns]
    return [dict(zip(names, row, strict=True)) for row in page.rows], not page.truncated


async def _objects(place: Objects, subject: str, call: Call) -> AsyncIterator[storage.Object]:
    prefix, cursor = place.prefix.replace(SUBJECT, subject), msgspec.UNSET
    while True:
        page = await call(place, "list", storage.ListRequest(prefix=prefix, cursor=cursor), 0)
        for one in page.objects:
            yield one
        cursor = page.next_cursor
        if cursor is msgspec.UNSET:
            return


async def _copied(place: Objects, one: storage.Object, call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {"key": one.key, "size": one.size}
    if one.size <= MOST_BYTES:
        result = await call(place, "get", storage.GetRequest(key=one.key), 0)
        found["content"] = base64.b64encode(result.content).decode()
    return found


async def _erased_objects(place: Objects, subject: str, call: Call) -> int:
    keys = [one.key async for one in _objects(place, subject, call)]
    for key in keys:
        await call(place, "delete", storage.DeleteRequest(key=key), key)
    return len(keys)


async def _erased_records(place: Records, subject: str, call: Call) -> Finding:
    wanted = [integration.RecordDelete(keys={place.key: subject})]
    request = integration.DeleteRequest(object=place.object, records=wanted, report_failures=True)
    states = [one.status for one in (await call(place, "delete", request, 0)).outcomes]
    gone, left = states.count("deleted"), sum(state in {"failed", "unknown"} for state in states)
    why = NOT_DELETED if left else ""
    return Finding(place=name_of(place), found=gone + left, erased=gone, kept=left, why=why)


async def _records(place: Records, subject: str, call: Call) -> list[integration.FetchedRecord]:
    request = integration.FetchRequest(object=place.object, keys=[{place.key: subject}])
    return [one for one in (await call(place, "fetch", request, 0)).records if one.found]
