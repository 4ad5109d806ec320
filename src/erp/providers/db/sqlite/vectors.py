"""Vectors in a file of their own beside the database, by sqlite-vec (https://alexgarcia.xyz/sqlite-vec/) through APSW.

Python's own SQLite often cannot load extensions; APSW brings one that can. Two SQLite libraries must not share a file in
one process (https://www.sqlite.org/howtocorrupt.html, 2.2.1), so the vectors have one to themselves.

A search looks at every vector of its collection: exact, whatever its filter. Nearness is the cosine of the angle. Words
are found by FTS5; both together are ranked by reciprocal rank fusion (Cormack, Clarke, Büttcher 2009, k = 60).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UnsetType

from erp.contracts.models import db as api
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError
from erp.vendor_clients.sql.threads import Threads

T = TypeVar("T")
FILE = "vectors.sqlite3"
EXTRA = "erp-provider-layer[sqlite-vec]"
_RANK = 60
_CANDIDATES = 1000
_WORD = re.compile(r"\w+")
_COLLECTIONS = "CREATE TABLE IF NOT EXISTS erp_collections (name TEXT PRIMARY KEY, dimensions INTEGER NOT NULL)"
_NEAREST = (
    "SELECT id, payload, coalesce(1 - vec_distance_cosine(embedding, ?), 0) AS score FROM items_{name}"
    " ORDER BY score DESC, id LIMIT ?"
)
_WORDED = (
    "SELECT i.id, i.payload, -bm25(words_{name}) AS score FROM words_{name} AS w JOIN items_{name} AS i ON i.rowid = w.rowid"
    " WHERE words_{name} MATCH ? ORDER BY score DESC, i.id LIMIT ?"
)


class Vectors:
    """The collections of one connection. The file is opened by the first call that needs it."""

    def __init__(self, folder: Path, *, seconds: float) -> None:
        self._path = folder / FILE
        self._seconds = seconds
        self._threads = Threads(1, "db-sqlite-vectors")
        self._connection: Any = None

    async def store(self, request: api.UpsertVectorsRequest) -> int:
        """Store all items or none; one with a known id replaces what was there.

        Raises:
            ProviderError: ``failed_precondition`` when the collection has vectors of another length, or the extra is missing.
        """
        lengths = {len(item.vector) for item in request.items}
        if len(lengths) > 1:
            raise _lengths("/params/items", "have vectors of different lengths", ErrorCode.FAILED_PRECONDITION)
        await self._run(lambda connection: _stored(connection, request.collection, lengths.pop(), request.items))
        return len(request.items)

    async def found(self, request: api.SearchVectorsRequest) -> list[api.SearchVectorsResultItemsItem]:
        """Return the nearest items, the best first.

        Raises:
            ProviderError: ``not_found`` for a collection that nobody has stored anything in.
        """
        if isinstance(request.vector, UnsetType) and isinstance(request.text, UnsetType):
            wrong = [FieldError("/params/vector", "is missing, and so is text: give one of them, or both")]
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There is nothing to search for.", errors=wrong)
        return await self._run(lambda connection: _found(connection, request))

    async def close(self) -> None:
        """Close the file once its work has ended. Safe twice."""
        if self._connection is not None:
            self._connection.interrupt()
        await self._threads.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _run(self, work: Callable[[Any], T]) -> T:
        return await self._threads.run(lambda: self._explained(work), stop=self._stop, seconds=self._seconds)

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()

    def _explained(self, work: Callable[[Any], T]) -> T:
        if self._connection is None:
            self._connection = _opened(self._path)
        import apsw

        try:
            return work(self._connection)
        except apsw.InterruptError as error:
            message = "The search took longer than it may; it was stopped."
            raise ProviderError(ErrorCode.TIMEOUT, message) from error
        except (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.CantOpenError) as error:
            message = "The file of the vectors cannot be written or read now; nothing was changed."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=type(error).__name__) from error


def _opened(path: Path) -> Any:
    try:
        import apsw
        import sqlite_vec  # type: ignore[import-untyped]  # published without types
    except ImportError as error:
        message = f"Vectors in SQLite need the extra sqlite-vec. Install it with: pip install '{EXTRA}'"
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    connection.enable_load_extension(True)  # noqa: FBT003  (APSW's signature)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)  # noqa: FBT003  (APSW's signature)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute(_COLLECTIONS)
    return connection


# -- storing -----------------------------------------------------------------------------------------


def _stored(connection: Any, name: str, dimensions: int, items: Sequence[Any]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        _require_length(connection, name, dimensions)
        for item in items:
            _put(connection, name, item)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _require_length(connection: Any, name: str, dimensions: int) -> None:
    """Make the collection if it is new."""
    known = _dimensions(connection, name)
    if known is None:
        _make(connection, name, dimensions)
    elif known != dimensions:
        why = f"have {dimensions} numbers instead of {known}"
        raise _lengths("/params/items", why, ErrorCode.FAILED_PRECONDITION)


def _dimensions(connection: Any, name: str) -> int | None:
    row = connection.execute("SELECT dimensions FROM erp_collections WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def _make(connection: Any, name: str, dimensions: int) -> None:
    """The contract lets a collection's name have nothing but small letters, digits and underscores."""
    connection.execute("INSERT INTO erp_collections VALUES (?, ?)", (name, dimensions))
    connection.execute(f"CREATE TABLE items_{name} (id TEXT PRIMARY KEY, embedding BLOB NOT NULL, payload TEXT)")
    connection.execute(f"CREATE VIRTUAL TABLE words_{name} USING fts5 (body)")


def _put(connection: Any, name: str, item: Any) -> None:
    payload = None if isinstance(item.payload, UnsetType) else msgspec.json.encode(item.payload).decode()
    put = (
        f"INSERT INTO items_{name} (id, embedding, payload) VALUES (?, ?, ?)"  # noqa: S608  (see _make)
        " ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding, payload = excluded.payload RETURNING rowid"
    )
    ((row,),) = connection.execute(put, (item.id, _packed(item.vector), payload)).fetchall()
    connection.execute(f"DELETE FROM words_{name} WHERE rowid = ?", (row,))  # noqa: S608  (see _make)
    if not isinstance(item.text, UnsetType):
        connection.execute(f"INSERT INTO words_{name} (rowid, body) VALUES (?, ?)", (row, item.text))  # noqa: S608


def _packed(vector: Sequence[float]) -> bytes:
    return array("f", vector).tobytes()


# -- searching ---------------------------------------------------------------------------------------


def _found(connection: Any, request: api.SearchVectorsRequest) -> list[api.SearchVectorsResultItemsItem]:
    name = request.collection
    known = _dimensions(connection, name)
    if known is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no collection {name}. Store a vector in it first.")
    wanted = {} if isinstance(request.equals, UnsetType) else request.equals
    is_both = not isinstance(request.vector, UnsetType) and not isinstance(request.text, UnsetType)
    most = min(_CANDIDATES, max(100, request.limit * 4)) if is_both else request.limit
    # What is filtered afterwards cannot be limited before.
    limit = -1 if wanted else most
    rankings = []
    if not isinstance(request.vector, UnsetType):
        if len(request.vector) != known:
            why = f"has {len(request.vector)} numbers instead of {known}"
            raise _lengths("/params/vector", why, ErrorCode.INVALID_ARGUMENT)
        rankings.append(connection.execute(_NEAREST.format(name=name), (_packed(request.vector), limit)))
    if not isinstance(request.text, UnsetType):
        words = " ".join(f'"{word}"' for word in _WORD.findall(request.text))
        rankings.append(connection.execute(_WORDED.format(name=name), (words, limit)) if words else iter(()))
    found = [list(_limited(_matching(rows, wanted), most)) for rows in rankings]
    return _fused(found, request.limit) if is_both else found[0]


def _matching(rows: Iterable[Any], wanted: Any) -> Iterator[api.SearchVectorsResultItemsItem]:
    for name, text, score in rows:
        payload = None if text is None else msgspec.json.decode(text)
        members = payload or {}
        if all(key in members and is_same(members[key], value) for key, value in wanted.items()):
            yield api.SearchVectorsResultItemsItem(id=name, score=score, payload=UNSET if payload is None else payload)


def _limited(items: Iterator[T], limit: int) -> Iterator[T]:
    for _, item in zip(range(limit), items, strict=False):
        yield item


def _fused(
    rankings: Sequence[Sequence[api.SearchVectorsResultItemsItem]], limit: int
) -> list[api.SearchVectorsResultItemsItem]:
    scores: dict[str, float] = {}
    items: dict[str, api.SearchVectorsResultItemsItem] = {}
    for ranking in rankings:
        for place, item in enumerate(ranking, 1):
            scores[item.id] = scores.get(item.id, 0.0) + 1 / (_RANK + place)
            items[item.id] = item
    best = sorted(scores, key=lambda name: (-scores[name], name))[:limit]
    return [msgspec.structs.replace(items[name], score=scores[name]) for name in best]


def is_same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, and 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(is_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(is_same, left, right))
    return bool(left == right)


def _lengths(where: str, why: str, code: ErrorCode) -> ProviderError:
    message = "All vectors of a collection have the same length. Use another collection for other vectors."
    return ProviderError(code, message, errors=[FieldError(where, why)])
