"""Several calls that take effect together."""

from __future__ import annotations

import asyncio
from typing import Any

from erp.errors import ProviderError
from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.cases.db import execute, names_in, new_table, rows_of
from erp.runtime.conformance.host import BETA

LEASE_SECONDS = 0.2


async def _begun(bench: Bench, **more: Any) -> str:
    handle: str = (await bench.call("begin", more))["transaction"]
    return handle


async def _insert(bench: Bench, table: str, number: int, transaction: str | None = None) -> None:
    more = {} if transaction is None else {"transaction": transaction}
    await execute(bench, f"insert into {table} (id, name) values (?, 'x')", number, **more)  # noqa: S608  (own words)


@case("DB-30", capability="transactions")
async def a_transaction_takes_effect_at_its_commit(bench: Bench) -> None:
    """What a transaction changes MUST be seen in it at once, outside only after ``commit``, and then stay."""
    table = await new_table(bench)
    transaction = await _begun(bench)
    await _insert(bench, table, 1, transaction)
    inside = await rows_of(bench, f"select id from {table}", transaction=transaction)  # noqa: S608  (own words)
    require(inside == [[1]], f"the transaction itself sees {inside}")
    require(await names_in(bench, table) == [], "others see it before the commit")
    await bench.call("commit", {"transaction": transaction})
    require(await names_in(bench, table) == [[1, "x"]], "it did not take effect")


@case("DB-31", capability="transactions")
async def a_rollback_undoes_everything(bench: Bench) -> None:
    """``rollback`` MUST undo everything since ``begin``; the handle is then ``not_found``."""
    table = await new_table(bench, rows=1)
    transaction = await _begun(bench)
    await _insert(bench, table, 2, transaction)
    await bench.call("rollback", {"transaction": transaction})
    require(await names_in(bench, table) == [[1, "n1"]], "something was left")
    await bench.refused("not_found", "query", {"sql": "select 1", "transaction": transaction})
    await bench.refused("not_found", "commit", {"transaction": transaction})
    await _insert(bench, table, 2)


@case("DB-32", capability="transactions")
async def a_handle_belongs_to_its_tenant(bench: Bench) -> None:
    """A transaction's handle MUST be ``not_found`` for another tenant, and so is one that was made up."""
    transaction = await _begun(bench)
    for action, params in (
        ("commit", {}),
        ("query", {"sql": "select 1"}),
        ("execute", {"sql": "create table x (y integer)"}),
    ):
        await bench.refused("not_found", action, {**params, "transaction": transaction}, tenant=BETA)
    await bench.refused("not_found", "commit", {"transaction": "made-up"})
    await bench.call("rollback", {"transaction": transaction})


@case("DB-33", capability="transactions", timed=True)
async def a_lease_that_ends_rolls_back(bench: Bench) -> None:
    """A transaction whose lease has ended MUST be rolled back by itself and hold nobody up."""
    table = await new_table(bench)
    transaction = await _begun(bench, lease_seconds=LEASE_SECONDS)
    await _insert(bench, table, 1, transaction)
    # Where nobody has to wait for it, its end cannot be seen from outside, and looking from inside renews it.
    await asyncio.sleep(LEASE_SECONDS * 5)

    async def is_over() -> bool:
        try:
            await bench.call("query", {"sql": "select 1"})
            await _insert(bench, table, 2)
        except ProviderError:  # held up: not over yet
            return False
        return True

    await bench.eventually(is_over, "others could write after the lease")
    require(await names_in(bench, table) == [[2, "x"]], "the transaction took effect")
    await bench.refused("not_found", "commit", {"transaction": transaction})


@case("DB-34", capability="transactions")
async def a_failed_statement_leaves_the_transaction_usable_or_ended(bench: Bench) -> None:
    """After a statement failed a ``commit`` MUST apply what succeeded, or be refused with ``failed_precondition``: never part of the failed one."""
    table = await new_table(bench, rows=1)
    transaction = await _begun(bench)
    await _insert(bench, table, 2, transaction)
    two = f"insert into {table} (id, name) values (3, 'y'), (1, 'y')"  # noqa: S608  (own words)
    await bench.refused("already_exists", "execute", {"sql": two, "transaction": transaction})
    expected = [[1, "n1"], [2, "x"]]
    try:
        await bench.call("commit", {"transaction": transaction})
    except ProviderError as error:
        require(error.code == "failed_precondition", f"commit was answered {error!r}")
        expected = [[1, "n1"]]
    require(await names_in(bench, table) == expected, f"left over: {await names_in(bench, table)}")


@case("DB-35", capability="transactions")
async def a_read_only_transaction_cannot_write(bench: Bench) -> None:
    """In a transaction begun ``read_only`` a change MUST be refused, and reads agree with each other."""
    table = await new_table(bench, rows=1)
    transaction = await _begun(bench, read_only=True)
    sql = f"select count(*) from {table}"  # noqa: S608  (own words)
    await rows_of(bench, sql, transaction=transaction)
    change = {"sql": f"delete from {table}", "transaction": transaction}  # noqa: S608  (own words)
    await bench.refused("failed_precondition", "execute", change)
    await bench.call("rollback", {"transaction": transaction})
    require(await names_in(bench, table) == [[1, "n1"]], "the read-only transaction has written")


@case("DB-40", capability="savepoints")
async def a_transaction_goes_back_to_a_savepoint(bench: Bench) -> None:
    """``rollback`` to a savepoint MUST undo what came after it and nothing before; the transaction goes on."""
    table = await new_table(bench)
    transaction = await _begun(bench)
    await _insert(bench, table, 1, transaction)
    await bench.call("savepoint", {"transaction": transaction, "savepoint": "sp"})
    await _insert(bench, table, 2, transaction)
    await bench.call("rollback", {"transaction": transaction, "savepoint": "sp"})
    await _insert(bench, table, 3, transaction)
    await bench.refused("not_found", "rollback", {"transaction": transaction, "savepoint": "unknown"})
    await bench.call("commit", {"transaction": transaction})
    require([row[0] for row in await names_in(bench, table)] == [1, 3], "the savepoint was another")


@case("DB-41", capability="isolation_levels")
async def an_isolation_level_is_kept_or_refused(bench: Bench) -> None:
    """``begin`` with an isolation level MUST give at least that one, or be refused with ``unsupported``."""
    table = await new_table(bench, rows=1)
    sql = f"select count(*) from {table}"  # noqa: S608  (own words)
    for level in ("read_committed", "repeatable_read", "snapshot", "serializable"):
        try:
            transaction = await _begun(bench, isolation=level, read_only=True)
        except ProviderError as error:
            require(error.code == "unsupported", f"{level} was answered {error!r}")
            continue
        before = await rows_of(bench, sql, transaction=transaction)
        # Some engines let a change wait for whoever has read what it would change.
        insert = asyncio.ensure_future(_insert(bench, table, 10 + len(level)))
        await asyncio.wait({insert}, timeout=0.5)
        after = await rows_of(bench, sql, transaction=transaction)
        require(level == "read_committed" or before == after, f"under {level} a read was not repeatable")
        await bench.call("rollback", {"transaction": transaction})
        await insert


@case("DB-42", capability="transactions", without="isolation_levels")
async def an_isolation_level_that_cannot_be_chosen_is_refused(bench: Bench) -> None:
    """Without ``isolation_levels`` ``begin`` with one MUST be refused with ``unsupported``."""
    for level in ("read_committed", "serializable"):
        await bench.refused("unsupported", "begin", {"isolation": level})
