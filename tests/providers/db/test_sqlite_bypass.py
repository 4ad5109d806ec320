"""A query cannot write, leave its file or run away: every known way is tried."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.providers.db.conftest import Caller

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import FILE
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio

CORPUS: dict[str, list[Any]] = yaml.safe_load(Path(__file__).with_name("bypass_sqlite.yaml").read_text())
SMALL = {"max_statement_seconds": 0.05, "max_result_bytes": 65_536, "max_value_bytes": 65_536, "readers": 1}
CODES = {"too large": {"invalid_argument", "failed_precondition"}, "too long": {"timeout", "invalid_argument"}}


def text(entry: Any) -> str:
    """Return an attempt as text; ``[text, times, ...]`` is written out."""
    if isinstance(entry, str):
        return entry
    return "".join(part * times for part, times in zip(entry[::2], entry[1::2], strict=True))


ATTEMPTS = [
    pytest.param(kind, text(entry), id=f"{kind}-{number}")
    for kind, entries in CORPUS.items()
    for number, entry in enumerate(entries)
]


def state(context: OpenContext) -> str:
    """Return a digest of the database and of everything beside it."""
    assert not list(Path("/tmp").glob("evil*"))
    files = sorted(path for path in context.data_dir.parent.rglob("*") if path.is_file() and "-shm" not in path.name)
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    texts = [text(entry) for entries in CORPUS.values() for entry in entries]
    assert len(texts) >= 80
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("opened", [SMALL], indirect=True)
@pytest.mark.parametrize(("kind", "sql"), ATTEMPTS)
async def test_an_attempt_is_refused_and_changes_nothing(
    caller: Caller, open_context: OpenContext, kind: str, sql: str
) -> None:
    before = state(open_context)
    with pytest.raises(ProviderError) as refused:
        await caller.query(sql)
    assert refused.value.code in CODES.get(kind, {"invalid_argument"})
    assert state(open_context) == before
    assert await caller.rows("select count(*), sum(quantity) from stock") == [[5, 10]]


@pytest.mark.parametrize("opened", [SMALL], indirect=True)
@pytest.mark.parametrize("kind", [kind for kind in CORPUS if kind != "too long"])
async def test_the_same_attempts_are_refused_inside_a_transaction_and_in_a_stream(caller: Caller, kind: str) -> None:
    for sql in map(text, CORPUS[kind]):
        handle = await caller.begin()
        with pytest.raises(ProviderError):
            await caller.query(sql, transaction=handle)
        await caller.rollback(handle)
        with pytest.raises(ProviderError):
            async for _ in caller.database.stream(api.StreamRequest(sql=sql), caller.context):
                pass
    assert await caller.rows("select count(*), sum(quantity) from stock") == [[5, 10]]
    assert (await caller.execute("update stock set quantity = 1")).rows_affected == 5


@pytest.mark.parametrize("opened", [{"tables": ["stock"], "functions": ["count", "sum", "like"]}], indirect=True)
async def test_lists_of_tables_and_functions_leave_nothing_else(
    opened: Any, call_context: Any, open_context: Any
) -> None:
    from erp.providers.db.sqlite.provider import SqliteDatabase

    owner = Caller(SqliteDatabase({}, open_context), call_context())
    await owner.database.open()
    await owner.batch(
        "create table stock (sku text, quantity integer)",
        "create table hidden (a)",
        "insert into stock values ('a', 2)",
    )
    await owner.database.close()
    caller = Caller(opened, call_context())
    assert await caller.rows("with s as (select * from stock) select count(*) from s") == [[1]]
    assert await caller.rows("select sum(quantity) from main.STOCK as s where sku like ?", "a%") == [[2]]
    assert (await caller.execute("update stock set quantity = ? returning quantity", 3)).rows == [[3]]
    for sql in (
        "select * from hidden", "select count(*) from hidden", "select * from sqlite_master", "select max(sku) from stock",
        "select abs(1)", "select 1 in hidden", "with hidden as (select 1) select (select 1 from main.hidden)",
    ):  # fmt: skip
        with pytest.raises(ProviderError) as refused:
            await caller.rows(sql)
        assert refused.value.code == "invalid_argument"
    for sql in (
        "insert into hidden values (1)",
        "create table evil (a)",
        "drop table stock",
        "update stock set sku = upper(sku)",
    ):
        with pytest.raises(ProviderError) as refused:
            await caller.execute(sql)
        assert refused.value.code == "invalid_argument"
    tables = (await caller.database.metadata(api.MetadataRequest(), caller.context)).tables
    assert [table.name for table in tables] == ["stock"]
    assert await caller.rows("select sum(quantity) from stock") == [[3]]


@pytest.mark.parametrize("opened", [{"tables": ["stock"], "functions": ["count"]}], indirect=True)
@pytest.mark.parametrize(
    "sql", ["select * from hidden", "select count(*) from hidden", "select abs(1)", "select * from sqlite_master"]
)
async def test_the_authorizer_keeps_the_lists_alone_too(opened: Any, sql: str) -> None:
    await opened._file.write(
        lambda connection: connection.set_authorizer(None) or connection.execute("create table hidden (a)")
    )
    with pytest.raises(ProviderError) as refused:
        await opened._file.read(lambda connection: connection.execute(sql).fetchall())
    assert refused.value.code == "invalid_argument"


@pytest.mark.parametrize("opened", [{"max_statement_seconds": 0.05}], indirect=True)
async def test_a_change_that_takes_too_long_is_stopped_and_undone(caller: Caller) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select 'x' || i, 1 from n"
    with pytest.raises(ProviderError) as refused:
        await caller.execute(f"insert into stock {endless}")
    assert refused.value.code == "timeout"
    assert await caller.rows("select count(*) from stock") == [[5]]
    assert (await caller.execute("update stock set quantity = 1")).rows_affected == 5


async def test_a_row_larger_than_an_answer_is_refused_and_named(caller: Caller, open_context: OpenContext) -> None:
    assert (open_context.data_dir / FILE).exists()
    caller.database._max_bytes = 1000
    with pytest.raises(ProviderError, match="One row is larger") as refused:
        await caller.rows("select hex(zeroblob(600))")
    assert refused.value.code == "failed_precondition"
    assert (await caller.query("select hex(zeroblob(400)) union all select 'b'", max_rows=5)).row_count == 2


async def test_parameters_are_counted(caller: Caller) -> None:
    for given in ([], [1, 2]):
        with pytest.raises(ProviderError) as refused:
            await caller.rows("select ?", *given)
        assert refused.value.code == "invalid_argument"
    assert await caller.rows("select ?", 1) == [[1]]
