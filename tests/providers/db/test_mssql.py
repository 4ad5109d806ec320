"""SQL Server without a server: what is judged, how it is reached, what errors mean, and that the driver loads."""

from __future__ import annotations

from typing import Any

import pytest
from tests.providers.db.corpus import Corpus

from erp.errors import ProviderError
from erp.providers.db.mssql import failures
from erp.providers.db.mssql.engine import Endpoint, MssqlEngine
from erp.providers.db.mssql.provider import MssqlDatabase
from erp.providers.db.mssql.statements import Statements
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

CORPUS = Corpus("mssql")
HERE = {"host": "127.0.0.1", "port": 1, "database": "erp", "user": "erp", "password": "p{}w;d"}


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    CORPUS.require(120)


@pytest.mark.parametrize(("kind", "sql"), CORPUS.params("query"))
def test_a_query_that_does_more_is_refused(kind: str, sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Statements("dbo").query(sql).require(0)
    assert refused.value.code == "invalid_argument", kind


@pytest.mark.parametrize(("kind", "sql"), CORPUS.params("execute"))
def test_a_change_that_does_more_is_refused(kind: str, sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Statements("dbo").change(sql)
    assert refused.value.code == "invalid_argument", kind


@pytest.mark.parametrize(
    "sql",
    [
        "select top (5) sku, sum(quantity) as total from stock where sku like ? group by sku order by total desc",
        "with s as (select * from stock) select * from s union all select sku, quantity from dbo.stock",
        "select case when quantity > 1 then 'a' else 'b' end from [stock] as s cross apply (select 1 as x) as y",
        "select sku from stock order by sku offset 5 rows fetch next 10 rows only",
        "select (select max(quantity) from stock), isnull(null, 1)",
        "select [delete], \"update\" from stock where note = 'drop table stock; exec xp_cmdshell'",
    ],
)
def test_a_plain_query_runs_as_it_is_written(sql: str) -> None:
    assert Statements("dbo").query(sql).sql == sql


@pytest.mark.parametrize(
    ("sql", "returns"),
    [
        ("insert into stock (sku, quantity) values (?, ?)", False),
        ("update s set quantity = 1 from stock s where sku = ?", False),
        ("delete from stock output deleted.sku where sku = ?", True),
        ("create table x (id int primary key, p int references stock (id) on delete cascade on update set null)", False),
        ("alter table x alter column id bigint", False),
        ("drop table if exists x", False),
        ("create or alter view v as select 1 as a", False),
        (("merge into x with (holdlock) as t using (select ? as id) as s on t.id = s.id when matched then update set id = 1"
         " when not matched then insert (id) values (s.id);"), False),
    ],
)  # fmt: skip
def test_a_plain_change_runs_as_it_is_written(sql: str, returns: bool) -> None:
    made, found = Statements("dbo").change(sql)
    assert (made.sql, found) == (sql, returns)


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        ("IntegrityError", "Violation of PRIMARY KEY constraint 'PK'. Cannot insert duplicate key", "already_exists"),
        ("IntegrityError", "The INSERT statement conflicted with the CHECK constraint", "failed_precondition"),
        ("ProgrammingError", "Invalid object name 'nope'.", "not_found"),
        ("ProgrammingError", "Invalid column name 'nope'.", "invalid_argument"),
        ("ProgrammingError", "The SELECT permission was denied on the object", "permission_denied"),
        ("ProgrammingError", "There is already an object named 'x' in the database.", "already_exists"),
        ("OperationalError", "Login failed for user 'erp'.", "unauthenticated"),
        ("OperationalError", "Query timeout expired", "timeout"),
        ("OperationalError", "TCP Provider: Error code 0x2749", "unavailable"),
        ("DatabaseError", "Transaction was deadlocked and has been chosen as the deadlock victim.", "conflict"),
        ("DataError", "Conversion failed when converting the varchar value 'x' to data type int.", "invalid_argument"),
    ],
)
def test_errors_mean_what_the_contract_says(kind: str, text: str, code: str) -> None:
    error: Any = type(kind, (Exception,), {"ddbc_error": f"[Microsoft][SQL Server]{text}"})(text)

    assert failures.explained(error).code == code
    assert not failures.explained(error).message.startswith("[Microsoft]")


@pytest.mark.parametrize(
    "said",
    [
        "Conversion failed when converting the varchar value 'globex-secret' to data type int.",
        "Cannot insert duplicate key. The duplicate key value is (globex-secret).",
        "String or binary data would be truncated. Truncated value: 'globex-secret'.",
        "Arithmetic overflow error for type int, value = 4711.",
    ],
)
def test_where_tenants_share_tables_no_value_is_told(said: str) -> None:
    """The server may compute with a row before it hides it."""
    error: Any = type("DataError", (Exception,), {"ddbc_error": f"[Microsoft][SQL Server]{said}"})(said)
    own = MssqlEngine(Endpoint.of(HERE, "acme", "127.0.0.1")).explained(error)
    shared = MssqlEngine(Endpoint.of({**HERE, "mode": "pooled"}, "acme", "127.0.0.1")).explained(error)

    assert own.code == shared.code
    assert said.rstrip(".") in f"{own.message} {own.detail}"
    for text in (shared.message, shared.detail or ""):
        assert "globex" not in text
        assert "4711" not in text


def test_where_tenants_share_tables_names_are_told() -> None:
    said = "Invalid column name 'nope'."
    error: Any = type("ProgrammingError", (Exception,), {"ddbc_error": said})(said)
    engine = MssqlEngine(Endpoint.of({**HERE, "mode": "pooled"}, "acme", "127.0.0.1"))

    assert "nope" in engine.explained(error).message


def test_readers_log_in_as_the_user_for_reading_and_tls_proves_the_name() -> None:
    config = {**HERE, "host": "db.example.com", "read_user": "reader", "read_password": "r"}
    words = [Endpoint.of(config, "acme", "192.0.2.1").words(read_only=only) for only in (True, False)]

    assert [(one["uid"], one["pwd"], one["applicationintent"]) for one in words] == [
        ("reader", "r", "ReadOnly"), ("erp", "p{}w;d", "ReadWrite"),
    ]  # fmt: skip
    assert words[0]["server"] == "tcp:192.0.2.1,1"
    assert (words[0]["encrypt"], words[0]["trustservercertificate"]) == ("Mandatory", "no")
    assert words[0]["hostnameincertificate"] == "db.example.com"


def test_an_endpoint_shows_no_secret() -> None:
    endpoint = Endpoint.of({**HERE, "read_password": "other-secret"}, "acme", "127.0.0.1")

    assert "p{}w" not in repr(endpoint)
    assert "other-secret" not in repr(endpoint)


class Recorded:
    """What stands for a connection: it keeps what is run."""

    def __init__(self) -> None:
        self.ran: list[Any] = []

    def cursor(self) -> Recorded:
        return self

    def execute(self, sql: str, *given: Any) -> Recorded:
        self.ran.append((sql, *given))
        return self


def test_a_transaction_names_its_level_and_is_undone_by_whoever_only_reads() -> None:
    engine, connection = MssqlEngine(Endpoint.of(HERE, "acme", "127.0.0.1")), Recorded()
    engine.begin(connection, read_only=True, isolation="snapshot")
    engine.rollback(connection)
    engine.run(connection, "select ?", ["a"])

    assert connection.ran == [
        ("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION",),
        ("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SET TRANSACTION ISOLATION LEVEL READ COMMITTED",),
        ("select ?", ("a",)),
    ]


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_driver_loads_and_says_that_nobody_answers(
    open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.1/32")
    database = MssqlDatabase(HERE, open_context)
    with pytest.raises(ProviderError) as refused:
        await database.open()
    await database.close()
    if "libltdl" in str(refused.value.detail) or "cannot open shared object" in str(refused.value.detail):
        pytest.skip("the driver of db/mssql needs Debian's libltdl7 and libgssapi-krb5-2")
    assert refused.value.code == "unavailable"
