"""What is special to Snowflake: judged without a server, and run on one that plays it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.conformance.live.db_snowflake import VARIABLE, config
from tests.providers.db.conftest import Caller
from tests.providers.db.corpus import Corpus, text

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.snowflake import failures
from erp.providers.db.snowflake.engine import Endpoint, SnowflakeEngine, _der, lowered
from erp.providers.db.snowflake.provider import SnowflakeDatabase
from erp.providers.db.snowflake.statements import Statements
from erp.runtime.spi import OpenContext

CORPUS = Corpus("snowflake")
OWN = "ERP_T_OWN"


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    CORPUS.require(120)


@pytest.mark.parametrize(("kind", "sql"), CORPUS.params("query"))
def test_a_query_that_does_more_is_refused(kind: str, sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Statements(OWN).query(sql).require(0)
    assert refused.value.code == "invalid_argument", kind


@pytest.mark.parametrize(("kind", "sql"), CORPUS.params("execute"))
def test_a_change_that_does_more_is_refused(kind: str, sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Statements(OWN).change(sql)
    assert refused.value.code == "invalid_argument", kind


@pytest.mark.parametrize(
    "sql",
    [
        "select a:b.c::varchar, count(*) from stock, lateral flatten(input => doc) f group by 1",
        "with s as (select * from stock) select * from s limit 5",
        "select iff(a > 1, 'x', 'y') from stock s where s.sku ilike ? qualify row_number() over (order by 1) = 1",
    ],
)
def test_a_plain_query_runs_as_it_is_written(sql: str) -> None:
    assert Statements(OWN).query(sql).sql == sql


def test_a_siloed_connection_may_name_other_schemas_of_its_own_database() -> None:
    assert Statements().query("select * from sales.orders").sql
    assert Statements().change("delete from sales.orders")[1] is False


@pytest.mark.parametrize(
    ("number", "state", "code"),
    [
        (2003, "42S02", "not_found"), (2002, "42710", "already_exists"), (904, "42000", "invalid_argument"),
        (604, "57014", "timeout"), (3001, "42501", "permission_denied"), (100072, "22000", "failed_precondition"),
        (200001, "22000", "already_exists"), (625, "57014", "unavailable"), (390100, "08001", "unauthenticated"),
    ],
)  # fmt: skip
def test_errors_mean_what_the_contract_says(number: int, state: str, code: str) -> None:
    from snowflake.connector.errors import ProgrammingError

    error = ProgrammingError(msg="SQL compilation error", errno=number, sqlstate=state)
    assert failures.explained(error).code == code


def test_an_answer_that_broke_off_leaves_in_doubt_what_was_asked() -> None:
    from snowflake.connector.errors import OperationalError, ProgrammingError

    errors = [KeyError("success"), ConnectionRefusedError(), OperationalError(errno=250001), ProgrammingError(errno=-1)]
    assert [failures.is_lost(error) for error in errors] == [True] * 4
    assert [failures.explained(error).code for error in errors] == ["unavailable"] * 4


def test_what_else_the_connector_raises_was_not_foreseen() -> None:
    assert not failures.is_lost(KeyError("rowset"))
    assert failures.explained(KeyError("rowset")).code == "internal"


def test_names_without_quotes_are_shown_as_other_engines_show_them() -> None:
    assert [lowered(name) for name in ("STOCK", "Stock", "A B", "X_1$")] == ["stock", "Stock", "A B", "x_1$"]


def test_a_private_key_is_read_and_anything_else_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert serialization.load_der_private_key(_der(pem), password=None).private_numbers() == key.private_numbers()
    with pytest.raises(ProviderError, match="private_key") as refused:
        _der("not a key")
    assert refused.value.code == "failed_precondition"
    endpoint = Endpoint.of(
        {"account": "a", "user": "u", "database": "d", "private_key": pem, "password": "secret-word"}
    )
    assert "PRIVATE" not in repr(endpoint)
    assert "secret-word" not in repr(endpoint)


def test_connecting_asks_no_cloud_what_this_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connector would ask the metadata services of clouds, and AWS with this machine's credentials."""
    from snowflake.connector import platform_detection

    asked: list[str] = []
    for name in ("is_ec2_instance", "has_aws_identity", "is_azure_vm", "is_gce_vm"):
        monkeypatch.setattr(platform_detection, name, lambda *_, name=name: asked.append(name))

    def connect(**given: Any) -> None:
        platform_detection.detect_platforms.__wrapped__(given["platform_detection_timeout_seconds"])

    monkeypatch.delenv("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", raising=False)
    monkeypatch.setattr("snowflake.connector.connect", connect)
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = {"account": "a", "user": "u", "database": "d", "host": "127.0.0.1", "port": server.getsockname()[1]}
        SnowflakeEngine(Endpoint.of(given), OWN).connect(read_only=True)

    assert asked == []


@pytest.fixture(autouse=True)
def _this_machine_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
async def opened(open_context: OpenContext) -> AsyncIterator[SnowflakeDatabase]:
    address = os.environ.get(VARIABLE)
    if not address:
        pytest.skip(f"db/snowflake needs {VARIABLE}")
    made = SnowflakeDatabase(config(address), open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def caller(opened: Any, call_context: Any) -> Caller:
    made = Caller(opened, call_context(seconds=60))
    await made.execute("create or replace table stock (sku varchar primary key, quantity integer not null)")
    await made.batch(*(f"insert into stock values ('S{number}', {number})" for number in range(5)))
    return made


STATE = "select count(*), sum(quantity), max(sku) from stock"


@pytest.mark.live
@pytest.mark.anyio
async def test_no_attempt_changes_anything(caller: Caller) -> None:
    before = [table.name for table in (await caller.database.metadata(api.MetadataRequest(), caller.context)).tables]
    for action, attempt in (("query", caller.query), ("execute", caller.execute)):
        for entries in CORPUS.kinds[action].values():
            for entry in entries:
                with pytest.raises(ProviderError) as refused:
                    await attempt(text(entry))
                assert refused.value.code == "invalid_argument"
    after = [table.name for table in (await caller.database.metadata(api.MetadataRequest(), caller.context)).tables]
    assert await caller.rows(STATE) == [[5, 10, "S4"]]
    assert after == before


@pytest.mark.live
@pytest.mark.anyio
async def test_a_batch_that_misses_its_rows_is_undone(caller: Caller) -> None:
    statements = [
        api.Statement(sql="update stock set quantity = 50"),
        api.Statement(sql="delete from stock where sku = ?", parameters=["none"], expect_rows=1),
    ]
    with pytest.raises(ProviderError) as refused:
        await caller.database.execute_batch(api.ExecuteBatchRequest(statements=statements), caller.context)
    assert refused.value.errors[0].pointer == "/params/statements/1/expect_rows"
    assert await caller.rows(STATE) == [[5, 10, "S4"]]


@pytest.mark.live
@pytest.mark.anyio
async def test_a_change_of_the_schema_is_refused_where_it_would_commit(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute("delete from stock", transaction=handle)
    with pytest.raises(ProviderError) as refused:
        await caller.execute("create table x (a integer)", transaction=handle)
    assert refused.value.code == "failed_precondition"
    await caller.rollback(handle)
    assert await caller.rows(STATE) == [[5, 10, "S4"]]


@pytest.mark.live
@pytest.mark.anyio
async def test_a_page_goes_on_in_a_transaction_beside_other_statements(caller: Caller) -> None:
    handle = await caller.begin()
    sql = "select sku from stock order by sku"
    page = await caller.query(sql, transaction=handle, max_rows=2)
    assert await caller.rows(STATE, transaction=handle) == [[5, 10, "S4"]]
    page = await caller.query(sql, transaction=handle, max_rows=5, cursor=page.next_cursor)
    assert page.rows == [["S2"], ["S3"], ["S4"]]
    await caller.rollback(handle)
