"""Transactions over several calls: each has a connection, an owner and a lease.

A lease that ends rolls back. So does the end of the process: what was not committed is not in the file
(https://www.sqlite.org/isolation.html).
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from erp.providers.db.sqlite.connections import INTERRUPT_EVERY_SECONDS, GuardedConnection
from erp.providers.db.sqlite.file import DatabaseFile, T, Work
from erp.providers.db.sqlite.reading import HeldCursors
from erp.providers.db.sqlite.writes import begun, committed, rolled_back
from erp.runtime.spi import CallContext, ErrorCode, ProviderError

MAX_ENDED = 256
MAX_SAVEPOINTS = 1000
COMMITTED = "it was committed"
_STATEMENT = "erp_statement"
"""A savepoint of the provider's own; those of callers are prefixed differently."""


@dataclass(eq=False, slots=True)
class Transaction:
    """A connection with an open transaction, lent to one actor until its lease ends."""

    owner: tuple[str, str]
    connection: GuardedConnection
    read_only: bool
    lease_seconds: float
    last_moment: float
    """When it ends however often the lease is renewed (monotonic clock)."""
    handle: str = field(default_factory=lambda: f"tx_{secrets.token_urlsafe(24)}")
    savepoints: list[str] = field(default_factory=list)
    cursors: HeldCursors = field(default_factory=HeldCursors)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.TimerHandle | None = None
    has_ended: bool = False

    def remaining_seconds(self) -> float:
        """How long the lease lasts when it is renewed now."""
        return max(0.0, min(self.lease_seconds, self.last_moment - time.monotonic()))

    def lease_ends_at(self) -> datetime.datetime:
        """When the lease ends unless it is renewed."""
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.remaining_seconds())


class Transactions:
    """The open transactions of one database file."""

    def __init__(self, file: DatabaseFile, *, max_snapshots: int, lease_seconds: float, life_seconds: float) -> None:
        self._file = file
        self._max_snapshots = max_snapshots
        self._max_lease_seconds = lease_seconds
        self._life_seconds = life_seconds
        self._open: dict[str, Transaction] = {}
        self._ended: dict[str, tuple[tuple[str, str], str]] = {}
        self._expiring: set[asyncio.Task[None]] = set()
        self._opening = 0

    async def begin(self, context: CallContext, *, read_only: bool, lease_seconds: float) -> Transaction:
        """Begin a transaction; one that changes waits for the others that do.

        Raises:
            ProviderError: ``unavailable`` when no connection became free.
        """
        connection = await (self._snapshot() if read_only else self._writer())
        made = Transaction(
            owner=(context.tenant, context.actor.id),
            connection=connection,
            read_only=read_only,
            lease_seconds=min(lease_seconds, self._max_lease_seconds),
            last_moment=time.monotonic() + self._life_seconds,
        )
        self._open[made.handle] = made
        self._renew(made)
        return made

    async def _writer(self) -> GuardedConnection:
        connection = await self._file.take_writer()
        try:
            await self._file.run(connection, begun)
        except BaseException:
            rolled_back(connection)
            self._file.writers.give(connection)
            raise
        return connection

    async def _snapshot(self) -> GuardedConnection:
        held = sum(transaction.read_only for transaction in self._open.values())
        if held + self._opening >= self._max_snapshots:
            message = f"There are {self._max_snapshots} read-only transactions already. Try again when one has ended."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)
        self._opening += 1
        try:
            return await self._file.open_snapshot()
        finally:
            self._opening -= 1

    @asynccontextmanager
    async def entered(self, handle: str, context: CallContext) -> AsyncIterator[Transaction]:
        """Hold a transaction for one call: no other call of it runs, and its lease does not end meanwhile.

        Raises:
            ProviderError: ``not_found`` unless it is open and belongs to this tenant and actor.
        """
        transaction = self._found(handle, context)
        async with transaction.turn:
            if transaction.has_ended:
                raise self._unknown(handle, transaction.owner)
            _stop_timer(transaction)
            try:
                yield transaction
            finally:
                if not transaction.has_ended:
                    self._settle(transaction)

    def _found(self, handle: str, context: CallContext) -> Transaction:
        owner = (context.tenant, context.actor.id)
        transaction = self._open.get(handle)
        if transaction is None or transaction.owner != owner:
            raise self._unknown(handle, owner)
        return transaction

    def _unknown(self, handle: str, owner: tuple[str, str]) -> ProviderError:
        known, reason = self._ended.get(handle, (None, ""))
        message = f"The transaction has ended: {reason}." if known == owner else "There is no such transaction."
        return ProviderError(ErrorCode.NOT_FOUND, f"{message} Begin another one.")

    def _settle(self, transaction: Transaction) -> None:
        """After a call: renew the lease, unless SQLite undid the transaction (a full disk, an interrupted change)."""
        if transaction.connection.in_transaction:
            self._renew(transaction)
        else:
            self._end(transaction, "a failure undid it")

    async def read(self, transaction: Transaction, work: Work[T]) -> T:
        """Run a query inside; what was changed inside is seen."""
        connection = transaction.connection
        if transaction.read_only:
            return await self._file.run(connection, work)
        return await self._file.run(connection, lambda _: self._file.querying(connection, work))

    async def write(self, transaction: Transaction, work: Work[T]) -> T:
        """Run a change inside: all of it, or nothing.

        Raises:
            ProviderError: ``failed_precondition`` when the transaction only reads.
        """
        if transaction.read_only:
            message = "The transaction was begun with read_only. Begin one without it to change something."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        transaction.cursors.close()
        connection = transaction.connection
        return await self._file.run(connection, lambda _: self._as_a_whole(connection, work))

    def _as_a_whole(self, connection: GuardedConnection, work: Work[T]) -> T:
        connection.execute(f"SAVEPOINT {_STATEMENT}")
        try:
            result = self._file.changing(connection, work)
        except BaseException:
            if connection.in_transaction:
                connection.execute(f"ROLLBACK TO {_STATEMENT}")
                connection.execute(f"RELEASE {_STATEMENT}")
            raise
        connection.execute(f"RELEASE {_STATEMENT}")
        return result

    async def commit(self, transaction: Transaction) -> None:
        """Make it durable. A refused commit (a foreign key left open) undoes it."""
        transaction.cursors.close()
        if transaction.read_only:
            self._end(transaction, COMMITTED)
            return
        try:
            await self._file.run(transaction.connection, committed)
        except ProviderError:
            await self._undo(transaction, "its commit was refused")
            raise
        finally:
            if not transaction.has_ended and not transaction.connection.in_transaction:
                self._end(transaction, COMMITTED)

    async def rollback(self, transaction: Transaction) -> None:
        """Undo it."""
        await self._undo(transaction, "it was rolled back")

    async def _undo(self, transaction: Transaction, reason: str) -> None:
        transaction.cursors.close()
        connection = transaction.connection
        try:
            if not transaction.read_only:
                await self._file.run(connection, rolled_back)
        finally:
            if transaction.read_only or not connection.in_transaction:
                self._end(transaction, reason)

    async def savepoint(self, transaction: Transaction, name: str) -> None:
        """Name this point; a name used again means the newer point.

        Raises:
            ProviderError: ``failed_precondition`` when there are too many points.
        """
        if len(transaction.savepoints) >= MAX_SAVEPOINTS:
            message = f"A transaction has at most {MAX_SAVEPOINTS} savepoints."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        transaction.cursors.close()
        await self._file.run(transaction.connection, lambda open_: open_.execute(f"SAVEPOINT user_{name}"))
        transaction.savepoints.append(name)

    async def rollback_to(self, transaction: Transaction, name: str) -> None:
        """Undo what happened since the point ``name``, which stays.

        Raises:
            ProviderError: ``not_found`` when there is no such point.
        """
        points = transaction.savepoints
        if name not in points:
            message = f"The transaction has no savepoint {name!r}."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        transaction.cursors.close()
        await self._file.run(transaction.connection, lambda open_: open_.execute(f"ROLLBACK TO user_{name}"))
        while points[-1] != name:
            points.pop()

    # -- leases ----------------------------------------------------------------------------------

    def _renew(self, transaction: Transaction) -> None:
        _stop_timer(transaction)
        loop = asyncio.get_running_loop()
        transaction.timer = loop.call_later(transaction.remaining_seconds(), self._start_expiry, transaction)

    def _start_expiry(self, transaction: Transaction) -> None:
        task = asyncio.ensure_future(self._expire(transaction))
        self._expiring.add(task)
        task.add_done_callback(self._expiring.discard)

    async def _expire(self, transaction: Transaction) -> None:
        if transaction.turn.locked():
            # A call of it came in between; it renews the lease when it ends.
            return
        async with transaction.turn:
            if not transaction.has_ended:
                with suppress(ProviderError):
                    await self._undo(transaction, "its lease ran out")

    def _end(self, transaction: Transaction, reason: str) -> None:
        transaction.has_ended = True
        _stop_timer(transaction)
        self._open.pop(transaction.handle, None)
        if len(self._ended) >= MAX_ENDED:
            self._ended.pop(next(iter(self._ended)))
        self._ended[transaction.handle] = (transaction.owner, reason)
        if transaction.read_only:
            self._file.close_snapshot(transaction.connection)
        else:
            self._file.writers.give(transaction.connection)

    async def close(self) -> None:
        """Undo every open transaction, also one in the middle of a statement. Safe twice."""
        for transaction in list(self._open.values()):
            while transaction.turn.locked():
                transaction.connection.interrupt()
                await asyncio.sleep(INTERRUPT_EVERY_SECONDS)
            if not transaction.has_ended:
                await self._undo(transaction, "the database was closed")


def _stop_timer(transaction: Transaction) -> None:
    if transaction.timer is not None:
        transaction.timer.cancel()
        transaction.timer = None
