"""Vectors beside rows, by pgvector (https://github.com/pgvector/pgvector): a table for each collection.

Nearness is the cosine of the angle. Words are searched as PostgreSQL's full text with the configuration ``simple``, which
knows no language. Both together are ranked by reciprocal rank fusion (Cormack, Clarke, Büttcher 2009, k = 60).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UnsetType

from erp.contracts.models import db as api
from erp.providers.db.postgres.database import PostgresSession
from erp.providers.db.postgres.failures import explained
from erp.providers.db.postgres.place import Place
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError
from erp.vendor_clients.row_security.names import collection_table

MAX_INDEXED = 2000
"""Dimensions that pgvector can index."""
_CANDIDATES = 1000
_STORE = """
INSERT INTO {table} (id, embedding, body, payload)
SELECT i.id, i.embedding::vector, i.body, i.payload::jsonb
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS i(id, embedding, body, payload)
ON CONFLICT ON CONSTRAINT {name}_pkey
DO UPDATE SET embedding = excluded.embedding, body = excluded.body, payload = excluded.payload
"""
_NEAREST = """
SELECT n.id, n.payload, 1 - n.distance AS score FROM (
       SELECT id, payload, embedding <=> $1::text::vector AS distance FROM {table} WHERE true {filter}
        ORDER BY embedding <=> $1::text::vector LIMIT {limit}) AS n
 ORDER BY n.distance, n.id
"""
"""The inner order has nothing but the distance: with the id beside it the index would not be used."""
_WORDS = """
SELECT id, payload, ts_rank_cd(words, websearch_to_tsquery('simple', $1))::float8 AS score FROM {table}
 WHERE words @@ websearch_to_tsquery('simple', $1) {filter} ORDER BY score DESC, id LIMIT {limit}
"""
_BOTH = """
WITH near AS (SELECT n.id, row_number() OVER (ORDER BY n.distance, n.id) AS place FROM (
       SELECT id, embedding <=> $1::text::vector AS distance FROM {table} WHERE true {filter}
        ORDER BY embedding <=> $1::text::vector LIMIT {candidates}) AS n),
     worded AS (SELECT w.id, row_number() OVER (ORDER BY w.rank DESC, w.id) AS place FROM (
       SELECT id, ts_rank_cd(words, websearch_to_tsquery('simple', $2)) AS rank FROM {table}
        WHERE words @@ websearch_to_tsquery('simple', $2) {filter} ORDER BY rank DESC, id LIMIT {candidates}) AS w)
SELECT t.id, t.payload, (coalesce(1.0 / (60 + near.place), 0) + coalesce(1.0 / (60 + worded.place), 0))::float8 AS score
  FROM near FULL JOIN worded USING (id) JOIN {table} AS t USING (id) ORDER BY score DESC, t.id LIMIT {limit}
"""


def shape(table: str, dimensions: int) -> list[str]:
    """Return the statements that make the table of a collection."""
    made = [
        (
            f"CREATE TABLE {table} (id text, embedding vector({dimensions}) NOT NULL, body text, payload jsonb,"
            " words tsvector GENERATED ALWAYS AS (to_tsvector('simple', coalesce(body, ''))) STORED,"
            f" CONSTRAINT {table}_pkey PRIMARY KEY (id))"
        ),
        f"CREATE INDEX {table}_words ON {table} USING gin (words)",
    ]
    if dimensions <= MAX_INDEXED:
        made.append(f"CREATE INDEX {table}_near ON {table} USING hnsw (embedding vector_cosine_ops)")
    return made


class Vectors:
    """The collections of a place."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def store(self, request: api.UpsertVectorsRequest) -> int:
        """Store all items or none; one with a known id replaces what was there.

        Raises:
            ProviderError: ``failed_precondition`` when the collection has vectors of another length, or the server cannot
                hold any.
        """
        newest = {item.id: item for item in request.items}
        lengths = {len(item.vector) for item in request.items}
        if len(lengths) > 1:
            raise _lengths("items have vectors of different lengths")
        table = collection_table(request.collection)
        arguments = _columns(list(newest.values()))
        try:
            await self._stored(table, arguments)
        except ProviderError as error:
            if error.code is not ErrorCode.NOT_FOUND and not _is_type_missing(error):
                raise
            await self._begun(table, lengths.pop(), arguments)
        return len(request.items)

    async def _stored(self, table: str, arguments: Sequence[Any]) -> None:
        sql = _STORE.format(table=table, name=table)
        async with self._place.database.session_for(read_only=False, prelude=self._place.prelude) as session:
            await _run(session, sql, arguments, ErrorCode.FAILED_PRECONDITION)

    async def _begun(self, table: str, dimensions: int, arguments: Sequence[Any]) -> None:
        """Make the table of a collection with its first items, or neither."""
        if self._place.prelude:
            message = "There is no such collection. Where tenants share tables, the operator makes it: erp db isolate --collection."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        try:
            async with self._place.database.session_for(read_only=False) as session:
                session.require_reset()
                await _extended(session)
                for statement in shape(table, dimensions):
                    await session.alone(statement, ())
                await _run(session, _STORE.format(table=table, name=table), arguments, ErrorCode.FAILED_PRECONDITION)
        except ProviderError as error:
            if _is_type_missing(error):
                raise _no_extension(error) from error
            if error.code is not ErrorCode.ALREADY_EXISTS:
                raise
            # Another call was making it.
            await self._stored(table, arguments)

    async def found(self, request: api.SearchVectorsRequest) -> list[api.SearchVectorsResultItemsItem]:
        """Return the nearest items, the best first.

        Raises:
            ProviderError: ``not_found`` for a collection that nobody has stored anything in.
        """
        sql, arguments = _search(request)
        settings = (
            f"; SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL hnsw.ef_search = {max(40, request.limit)}"
        )
        prelude = self._place.prelude + settings
        async with self._place.database.session_for(read_only=True, prelude=prelude) as session:
            done = await _run(session, sql, arguments, ErrorCode.INVALID_ARGUMENT)
        return [_item(row) for row in done.rows]


def _search(request: api.SearchVectorsRequest) -> tuple[str, list[Any]]:
    by_vector, by_words = not isinstance(request.vector, UnsetType), not isinstance(request.text, UnsetType)
    if not by_vector and not by_words:
        wrong = [FieldError("/params/vector", "is missing, and so is text: give one of them, or both")]
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There is nothing to search for.", errors=wrong)
    arguments: list[Any] = []
    if not isinstance(request.vector, UnsetType):
        arguments.append(_text(request.vector))
    if not isinstance(request.text, UnsetType):
        arguments.append(request.text)
    wanted: Mapping[str, Any] = {} if isinstance(request.equals, UnsetType) else request.equals
    conditions = []
    for name, value in wanted.items():
        arguments += [name, msgspec.json.encode(value).decode()]
        conditions.append(f" AND payload -> ${len(arguments) - 1}::text = ${len(arguments)}::text::jsonb")
    template = (_BOTH if by_words else _NEAREST) if by_vector else _WORDS
    facts = {"table": collection_table(request.collection), "filter": "".join(conditions), "limit": request.limit}
    return template.format(candidates=min(_CANDIDATES, max(100, request.limit * 4)), **facts), arguments


def _item(row: Any) -> api.SearchVectorsResultItemsItem:
    name, payload, score = row
    return api.SearchVectorsResultItemsItem(
        id=name,
        score=score if score == score else 0.0,  # noqa: PLR0124  (a vector of zeros has no angle: NaN)
        payload=UNSET if payload is None else msgspec.json.decode(payload),
    )


def _columns(items: Sequence[Any]) -> list[list[Any]]:
    return [
        [item.id for item in items],
        [_text(item.vector) for item in items],
        [None if isinstance(item.text, UnsetType) else item.text for item in items],
        [None if isinstance(item.payload, UnsetType) else msgspec.json.encode(item.payload).decode() for item in items],
    ]


def _text(vector: Sequence[float]) -> str:
    return msgspec.json.encode(vector).decode()


async def _run(session: PostgresSession, sql: str, arguments: Sequence[Any], wrong_length: ErrorCode) -> Any:
    try:
        return await session.connection.run(sql, arguments)
    except Exception as error:
        if "dimensions" in str(error):
            raise _lengths(str(error), wrong_length) from error
        raise explained(error) from error


async def _extended(session: PostgresSession) -> None:
    """Have the extension, if it is there to be had."""
    try:
        async with session.whole():
            await session.alone("CREATE EXTENSION IF NOT EXISTS vector", ())
    except ProviderError as error:
        raise _no_extension(error) from error


def _no_extension(error: ProviderError) -> ProviderError:
    message = (
        "The server has no pgvector in reach. Install it, then run in the connection's schema: CREATE EXTENSION vector"
    )
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=error.detail)


def _is_type_missing(error: ProviderError) -> bool:
    return (error.detail or "").startswith("42704")


def _lengths(why: str, code: ErrorCode = ErrorCode.FAILED_PRECONDITION) -> ProviderError:
    wrong = [FieldError("/params", why[:200])]
    message = "All vectors of a collection have the same length. Use another collection for other vectors."
    return ProviderError(code, message, errors=wrong)
