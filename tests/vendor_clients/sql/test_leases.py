"""A transaction belongs to one actor and ends with its lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from erp.errors import ProviderError
from erp.runtime.context import Actor, CallContext
from erp.vendor_clients.sql.leases import Leases, Transaction

pytestmark = pytest.mark.anyio


class Recorded:
    """A session that writes down what it is told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.is_lost = False
        self.released = 0
        self.fails: ProviderError | None = None

    def is_open(self) -> bool:
        return not self.is_lost and not {"commit", "rollback"} & set(self.done)

    async def commit(self) -> None:
        if self.fails:
            raise self.fails
        self.done.append("commit")

    async def rollback(self) -> None:
        self.done.append("rollback")

    async def savepoint(self, name: str) -> None:
        self.done.append(f"savepoint {name}")

    async def rollback_to(self, name: str) -> None:
        self.done.append(f"rollback to {name}")

    def interrupt(self) -> None:
        self.done.append("interrupt")

    def release(self) -> None:
        self.released += 1


def of(tenant: str = "alpha", actor: str = "key_1") -> CallContext:
    return CallContext(
        tenant=tenant, actor=Actor(id=actor, tenant=tenant), request_id="r", deadline=time.monotonic() + 60
    )


def lent(leases: Leases[Any], **more: Any) -> Transaction[Any]:
    return leases.lend(Recorded(), of(), **{"read_only": False, "lease_seconds": 30.0, **more})


@pytest.fixture
def leases() -> Leases[Any]:
    return Leases(lease_seconds=60, life_seconds=300, max_open=2)


async def happened(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (nothing announces it)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("context", [of(tenant="beta"), of(actor="key_2")])
async def test_nobody_else_finds_a_transaction(leases: Leases[Any], context: CallContext) -> None:
    transaction = lent(leases)

    with pytest.raises(ProviderError) as refused:
        async with leases.entered(transaction.handle, context):
            pytest.fail("it was lent to somebody else")
    assert (refused.value.code, refused.value.message) == (
        "not_found",
        "There is no such transaction. Begin another one.",
    )
    await leases.close()


async def test_a_commit_ends_it_and_gives_the_connection_back(leases: Leases[Any]) -> None:
    transaction = lent(leases)
    async with leases.entered(transaction.handle, of()):
        await leases.commit(transaction)

    assert (transaction.session.done, transaction.session.released, len(leases)) == (["commit"], 1, 0)
    with pytest.raises(ProviderError) as refused:
        async with leases.entered(transaction.handle, of()):
            pytest.fail("it has ended")
    assert refused.value.message == "The transaction has ended: it was committed. Begin another one."


async def test_a_refused_commit_undoes_it(leases: Leases[Any]) -> None:
    transaction = lent(leases)
    transaction.session.fails = ProviderError("failed_precondition", "A foreign key is open.")
    with pytest.raises(ProviderError):
        async with leases.entered(transaction.handle, of()):
            await leases.commit(transaction)

    assert (transaction.session.done, transaction.session.released) == (["rollback"], 1)


async def test_a_lease_that_runs_out_rolls_back(leases: Leases[Any]) -> None:
    transaction = lent(leases, lease_seconds=0.02)
    await happened(lambda: transaction.has_ended)

    assert (transaction.session.done, transaction.session.released) == (["rollback"], 1)


async def test_a_call_renews_the_lease_and_keeps_it_from_ending(leases: Leases[Any]) -> None:
    transaction = lent(leases, lease_seconds=0.05)
    async with leases.entered(transaction.handle, of()):
        await asyncio.sleep(0.1)
        assert not transaction.has_ended
    assert not transaction.has_ended
    await happened(lambda: transaction.has_ended)


async def test_no_lease_outlives_the_transactions_life() -> None:
    leases: Leases[Any] = Leases(lease_seconds=60, life_seconds=0.02, max_open=2)
    transaction = lent(leases)

    await happened(lambda: transaction.has_ended)
    assert transaction.session.done == ["rollback"]


async def test_a_connection_that_is_lost_ends_it(leases: Leases[Any]) -> None:
    transaction = lent(leases)
    async with leases.entered(transaction.handle, of()):
        transaction.session.is_lost = True

    assert (transaction.has_ended, transaction.session.released) == (True, 1)


async def test_savepoints_after_the_one_gone_back_to_are_gone(leases: Leases[Any]) -> None:
    transaction = lent(leases)
    for name in ("a", "b", "a"):
        await leases.savepoint(transaction, name)
    await leases.rollback_to(transaction, "b")

    assert transaction.savepoints == ["a", "b"]
    with pytest.raises(ProviderError) as refused:
        await leases.rollback_to(transaction, "c")
    assert refused.value.code == "not_found"
    await leases.close()


async def test_there_are_no_more_than_there_may_be(leases: Leases[Any]) -> None:
    lent(leases)
    leases.require_room()
    lent(leases)
    with pytest.raises(ProviderError) as refused:
        leases.require_room()

    assert refused.value.code == "unavailable"
    await leases.close()


async def test_closing_interrupts_what_runs_and_undoes_it(leases: Leases[Any]) -> None:
    transaction = lent(leases)

    async def work() -> None:
        async with leases.entered(transaction.handle, of()):
            await happened(lambda: "interrupt" in transaction.session.done)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    await leases.close()
    await leases.close()
    await task

    assert transaction.session.done[-1] == "rollback"
    assert transaction.session.released == 1
    with pytest.raises(ProviderError):
        lent(leases)


async def test_a_read_only_transaction_refuses_changes(leases: Leases[Any]) -> None:
    transaction = lent(leases, read_only=True)

    with pytest.raises(ProviderError) as refused:
        transaction.require_writable()
    assert refused.value.code == "failed_precondition"
    await leases.close()
