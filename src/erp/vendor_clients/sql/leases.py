"""Transactions over several calls: each has a session of its engine, an owner and a lease.

A lease that ends rolls back, and so does the end of the process, because an engine undoes what nobody committed.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from erp.runtime.spi import CallContext, ErrorCode, ProviderError
from erp.vendor_clients.sql.pages import HeldCursors

MAX_ENDED = 256
MAX_SAVEPOINTS = 1000
COMMITTED = "it was committed"
INTERRUPT_EVERY_SECONDS = 0.02


class Session(Protocol):
    """A connection with an open transaction of the engine's."""

    def is_open(self) -> bool:
        """Whether the engine still has the transaction; it may have undone it, or the connection may be lost."""

    async def commit(self) -> None:
        """Make it durable."""

    async def rollback(self) -> None:
        """Undo it."""

    async def savepoint(self, name: str) -> None:
        """Name this point; a name used again means the newer point."""

    async def rollback_to(self, name: str) -> None:
        """Undo what happened since the point ``name``, which stays."""

    def interrupt(self) -> None:
        """Stop the statement that runs, if one does."""

    def release(self) -> None:
        """Give the connection back. Called once, at the end, also when the transaction could not be ended."""


S = TypeVar("S", bound=Session)


@dataclass(eq=False, slots=True)
class Transaction(Generic[S]):
    """A session lent to one actor until its lease ends."""

    owner: tuple[str, str]
    session: S
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

    def require_writable(self) -> None:
        """Refuse a change in a transaction that only reads.

        Raises:
            ProviderError: ``failed_precondition``.
        """
        if self.read_only:
            message = "The transaction was begun with read_only. Begin one without it to change something."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


class Leases(Generic[S]):
    """The open transactions of one database."""

    def __init__(self, *, lease_seconds: float, life_seconds: float, max_open: int) -> None:
        """``lease_seconds``: the longest lease; ``life_seconds``: how long one lives however often it is renewed."""
        self._max_lease_seconds = lease_seconds
        self._life_seconds = life_seconds
        self._max_open = max_open
        self._open: dict[str, Transaction[S]] = {}
        self._ended: dict[str, tuple[tuple[str, str], str]] = {}
        self._expiring: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._open)

    def require_room(self) -> None:
        """Refuse one more transaction than may be open.

        Raises:
            ProviderError: ``unavailable``.
        """
        if len(self._open) >= self._max_open:
            message = f"There are {self._max_open} transactions already. Try again when one has ended."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)

    def lend(self, session: S, context: CallContext, *, read_only: bool, lease_seconds: float) -> Transaction[S]:
        """Lend an open session to the actor of a call.

        Raises:
            ProviderError: ``unavailable`` when all were closed meanwhile; the session is then released.
        """
        if self._is_closed:
            session.release()
            raise ProviderError(ErrorCode.UNAVAILABLE, "The database is closed.", retry_after_seconds=1.0)
        made = Transaction(
            owner=(context.tenant, context.actor.id),
            session=session,
            read_only=read_only,
            lease_seconds=min(lease_seconds, self._max_lease_seconds),
            last_moment=time.monotonic() + self._life_seconds,
        )
        self._open[made.handle] = made
        self._renew(made)
        return made

    @asynccontextmanager
    async def entered(self, handle: str, context: CallContext) -> AsyncIterator[Transaction[S]]:
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

    def _found(self, handle: str, context: CallContext) -> Transaction[S]:
        owner = (context.tenant, context.actor.id)
        transaction = self._open.get(handle)
        if transaction is None or transaction.owner != owner:
            raise self._unknown(handle, owner)
        return transaction

    def _unknown(self, handle: str, owner: tuple[str, str]) -> ProviderError:
        known, reason = self._ended.get(handle, (None, ""))
        message = f"The transaction has ended: {reason}." if known == owner else "There is no such transaction."
        return ProviderError(ErrorCode.NOT_FOUND, f"{message} Begin another one.")

    def _settle(self, transaction: Transaction[S]) -> None:
        """After a call: renew the lease, unless the engine no longer has the transaction."""
        if transaction.session.is_open():
            self._renew(transaction)
        else:
            self._end(transaction, "a failure undid it")

    async def commit(self, transaction: Transaction[S]) -> None:
        """Make it durable. A refused commit (a foreign key left open) undoes it."""
        transaction.cursors.forget()
        try:
            await transaction.session.commit()
        except BaseException:
            if transaction.session.is_open():
                with suppress(ProviderError):
                    await transaction.session.rollback()
            self._end(transaction, "its commit did not succeed")
            raise
        self._end(transaction, COMMITTED)

    async def rollback(self, transaction: Transaction[S], reason: str = "it was rolled back") -> None:
        """Undo it."""
        transaction.cursors.forget()
        try:
            await transaction.session.rollback()
        finally:
            self._end(transaction, reason)

    async def savepoint(self, transaction: Transaction[S], name: str) -> None:
        """Name this point; a name used again means the newer point.

        Raises:
            ProviderError: ``failed_precondition`` when there are too many points.
        """
        if len(transaction.savepoints) >= MAX_SAVEPOINTS:
            message = f"A transaction has at most {MAX_SAVEPOINTS} savepoints."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        await transaction.cursors.close()
        await transaction.session.savepoint(name)
        transaction.savepoints.append(name)

    async def rollback_to(self, transaction: Transaction[S], name: str) -> None:
        """Undo what happened since the point ``name``, which stays.

        Raises:
            ProviderError: ``not_found`` when there is no such point.
        """
        points = transaction.savepoints
        if name not in points:
            message = f"The transaction has no savepoint {name!r}."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        await transaction.cursors.close()
        await transaction.session.rollback_to(name)
        while points[-1] != name:
            points.pop()

    # -- leases ----------------------------------------------------------------------------------

    def _renew(self, transaction: Transaction[S]) -> None:
        _stop_timer(transaction)
        loop = asyncio.get_running_loop()
        transaction.timer = loop.call_later(transaction.remaining_seconds(), self._start_expiry, transaction)

    def _start_expiry(self, transaction: Transaction[S]) -> None:
        task = asyncio.ensure_future(self._expire(transaction))
        self._expiring.add(task)
        task.add_done_callback(self._expiring.discard)

    async def _expire(self, transaction: Transaction[S]) -> None:
        if transaction.turn.locked():
            # A call of it came in between; it renews the lease when it ends.
            return
        async with transaction.turn:
            if not transaction.has_ended:
                with suppress(ProviderError):
                    await self.rollback(transaction, "its lease ran out")

    def _end(self, transaction: Transaction[S], reason: str) -> None:
        transaction.has_ended = True
        _stop_timer(transaction)
        self._open.pop(transaction.handle, None)
        if len(self._ended) >= MAX_ENDED:
            self._ended.pop(next(iter(self._ended)))
        self._ended[transaction.handle] = (transaction.owner, reason)
        transaction.session.release()

    async def close(self) -> None:
        """Undo every open transaction, also one in the middle of a statement. Safe twice."""
        self._is_closed = True
        for transaction in list(self._open.values()):
            while transaction.turn.locked():
                transaction.session.interrupt()
                await asyncio.sleep(INTERRUPT_EVERY_SECONDS)
            if not transaction.has_ended:
                with suppress(ProviderError):
                    await self.rollback(transaction, "the database was closed")
        await asyncio.gather(*self._expiring, return_exceptions=True)


def _stop_timer(transaction: Transaction[S]) -> None:
    if transaction.timer is not None:
        transaction.timer.cancel()
        transaction.timer = None
