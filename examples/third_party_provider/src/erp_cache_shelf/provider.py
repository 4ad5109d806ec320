"""A cache in a file of SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import msgspec

from erp.contracts.models.cache import (
    DeleteRequest,
    DeleteResult,
    Entry,
    ExpireRequest,
    ExpireResult,
    Found,
    GetManyRequest,
    GetManyResult,
    GetRequest,
    GetResult,
    SetManyRequest,
    SetManyResult,
    SetRequest,
    SetResult,
)
from erp.runtime.spi import CallContext, Config, ErrorCode, ErrorTable, Health, OpenContext, ProviderError

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    value BLOB NOT NULL,
    expires_at REAL
);
CREATE INDEX IF NOT EXISTS by_end ON entries (expires_at) WHERE expires_at IS NOT NULL;
"""
FIND = "SELECT value, version FROM entries WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
PUT = "INSERT OR REPLACE INTO entries (key, value, expires_at) VALUES (?, ?, ?) RETURNING version"
DELETE = "DELETE FROM entries WHERE key = ? RETURNING expires_at IS NULL OR expires_at > ?"
EXPIRE = "UPDATE entries SET expires_at = ? WHERE key = ? AND (expires_at IS NULL OR expires_at > ?) RETURNING version"
SWEEP = "DELETE FROM entries WHERE expires_at <= ?"
EVICT = """
DELETE FROM entries WHERE version <= (SELECT min(version) + (max(version) - min(version)) / 8 FROM entries) RETURNING version
"""
MOST_EVICTIONS = 64


class ShelfCache:
    """Runs every statement on one thread: SQLite has one writer at a time anyway."""

    translate: ClassVar[ErrorTable] = {sqlite3.OperationalError: ErrorCode.UNAVAILABLE}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._pages = config["max_mebibytes"] * 256  # of 4 KiB
        self._file = context.data_dir / "shelf.sqlite3"
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, or make it."""
        self._thread = ThreadPoolExecutor(1, "cache/shelf")
        await self._run(self._connect)

    def _connect(self) -> None:
        self._database = sqlite3.connect(self._file, isolation_level=None, timeout=5)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(f"PRAGMA max_page_count={self._pages}")
        self._database.executescript(SCHEMA)

    async def close(self) -> None:
        """Close the file after the statement that runs."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._disconnect)
            await asyncio.to_thread(thread.shutdown)

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    async def health(self) -> Health:
        """Ask the file."""
        try:
            await self._run(lambda: self._rows("SELECT 1"))
        except (sqlite3.Error, ProviderError) as error:
            return Health(status="down", message=f"The file of the cache does not answer: {error}")
        return Health(status="ok")

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:
        """Read the value of one key."""
        found = (await self._run(lambda: self._found([request.key])))[0]
        return GetResult(found=found.found, value=found.value, version=found.version)

    async def get_many(self, request: GetManyRequest, context: CallContext) -> GetManyResult:
        """Read several keys at once."""
        return GetManyResult(items=await self._run(lambda: self._found(request.keys)))

    async def set(self, request: SetRequest, context: CallContext) -> SetResult:
        """Write the value of one key, whatever it was before."""
        return SetResult(version=(await self._run(lambda: self._stored([request])))[0])

    async def set_many(self, request: SetManyRequest, context: CallContext) -> SetManyResult:
        """Write several entries at once."""
        return SetManyResult(versions=await self._run(lambda: self._stored(request.entries)))

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:
        """Remove one key."""
        rows = await self._run(lambda: self._rows(DELETE, request.key, time.time()))
        return DeleteResult(deleted=bool(rows and rows[0][0]))

    async def expire(self, request: ExpireRequest, context: CallContext) -> ExpireResult:
        """Give an existing entry a new time to live, counted from now."""
        now = time.time()
        rows = await self._run(lambda: self._rows(EXPIRE, now + request.ttl_seconds, request.key, now))
        return ExpireResult(found=bool(rows))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The cache is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        if self._database is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The file of the cache is not open.")
        return self._database.execute(statement, parameters).fetchall()

    def _found(self, keys: Sequence[str]) -> list[Found]:
        return [_answer(key, self._rows(FIND, key, time.time())) for key in keys]

    def _stored(self, entries: Sequence[SetRequest | Entry]) -> list[str]:
        """Write all entries or none; return their versions."""
        if any(entry.tti_seconds or entry.tags for entry in entries):
            message = "Entries have no time to idle and no tags here; leave tti_seconds and tags out."
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        for _ in range(MOST_EVICTIONS):
            try:
                return self._written(entries)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                if not self._has_made_room():
                    break
        message = "The entries do not fit into the cache. Write fewer at once, or raise max_mebibytes."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)

    def _written(self, entries: Sequence[SetRequest | Entry]) -> list[str]:
        self._rows("BEGIN IMMEDIATE")
        try:
            self._rows(SWEEP, time.time())
            versions = [self._put(entry) for entry in entries]
        except BaseException:
            if self._database is not None and self._database.in_transaction:
                self._rows("ROLLBACK")
            raise
        self._rows("COMMIT")
        return versions

    def _put(self, entry: SetRequest | Entry) -> str:
        ends = time.time() + entry.ttl_seconds if entry.ttl_seconds else None
        return str(self._rows(PUT, entry.key, msgspec.json.encode(entry.value), ends)[0][0])

    def _has_made_room(self) -> bool:
        """Remove an eighth of the entries, the ones written first; False when there are none."""
        return bool(self._rows(EVICT))


def _answer(key: str, rows: list[tuple[Any, ...]]) -> Found:
    if not rows:
        return Found(key=key, found=False)
    value, version = rows[0]
    return Found(key=key, found=True, value=msgspec.Raw(value), version=str(version))
