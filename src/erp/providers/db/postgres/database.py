"""One database: connections that can only read, connections that write, and sessions on either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from erp.providers.db.postgres.connecting import Endpoint, closed
from erp.providers.db.postgres.failures import explained, is_lost, unknown
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.sql.lending import Lending, Terms

if TYPE_CHECKING:
    from erp.vendor_clients.postgres_wire import Done, Wire

RECOVER_SECONDS = 10.0
_READ_ONLY = "default_transaction_read_only"
LEVELS = {
    "read_committed": "READ COMMITTED",
    "repeatable_read": "REPEATABLE READ",
    "snapshot": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}
"""PostgreSQL's repeatable read is snapshot isolation (documentation, 13.2.2)."""


class Database:
    """The connections to one database under one user.

    Readers are begun with ``default_transaction_read_only``: the server itself refuses a change in whatever they run.
    It reports every change of that setting, so one that was talked into writing is never lent again.
    """

    def __init__(self, endpoint: Endpoint, *, readers: Terms, writers: Terms) -> None:
        self.endpoint = endpoint
        self.readers: Lending[Wire] = Lending(self._reader, closed, _reads_only, readers)
        self.writers: Lending[Wire] = Lending(self._writer, closed, _is_usable, writers)
        self._recovering: set[asyncio.Task[None]] = set()

    async def _reader(self) -> Wire:
        return await self.endpoint.connect({_READ_ONLY: "on"})

    async def _writer(self) -> Wire:
        return await self.endpoint.connect({_READ_ONLY: "off"})

    async def open(self) -> None:
        """Connect once, to know that it works."""
        self.readers.give(await self.readers.take())

    async def close(self) -> None:
        """Close all connections, also those in the middle of a statement. Safe twice."""
        lent = [*self.readers.lent_now(), *self.writers.lent_now()]
        # Both have begun to close before either can take so long that this is cancelled.
        await asyncio.gather(self.readers.close(), self.writers.close())
        for connection in lent:
            connection.terminate()
        await asyncio.gather(*self._recovering, return_exceptions=True)
        # What came back meanwhile.
        await self.readers.close()
        await self.writers.close()

    # -- single statements -----------------------------------------------------------------------

    async def read(self, sql: str, arguments: Sequence[Any], limit: int, prelude: str = "") -> Done | None:
        """Run one statement where nothing can be changed; None when its answer is too large to be taken at once."""
        from erp.vendor_clients.postgres_wire import TooLargeError

        holding = self._reading(prelude) if prelude else self.lent(self.readers)
        async with holding as connection:
            try:
                return await connection.run(sql, arguments, limit)
            except TooLargeError:
                pass
            except Exception as error:
                raise explained(error) from error
        return None

    @asynccontextmanager
    async def _reading(self, prelude: str) -> AsyncIterator[Wire]:
        session = await self.session(read_only=True, prelude=prelude)
        try:
            yield session.connection
            if session.is_open():
                await session.rollback()
        finally:
            session.release()

    async def write(self, sql: str, arguments: Sequence[Any], *, needs_reset: bool) -> Done:
        """Run one statement that takes effect as a whole.

        Raises:
            ProviderError: ``outcome_unknown`` when the connection was lost before the answer.
        """
        async with self.lent(self.writers, needs_reset=needs_reset) as connection:
            try:
                return await connection.run(sql, arguments)
            except Exception as error:
                raise unknown(error) if is_lost(error) else explained(error) from error

    @asynccontextmanager
    async def lent(self, lending: Lending[Wire], *, needs_reset: bool = False) -> AsyncIterator[Wire]:
        """Lend a connection; one that was left in the middle of something is put in order before others get it."""
        connection = await lending.take()
        is_clean = False
        try:
            yield connection
            is_clean = not needs_reset
        except ProviderError:
            is_clean = not needs_reset
            raise
        finally:
            self.give(connection, lending, is_clean=is_clean)

    def give(self, connection: Wire, lending: Lending[Wire], *, is_clean: bool) -> None:
        """Take a connection back, in the background when it has to be put in order first."""
        if connection.is_closed() or (is_clean and not connection.is_in_transaction()):
            lending.give(connection)
            return
        task = asyncio.ensure_future(self._recover(connection, lending))
        self._recovering.add(task)
        task.add_done_callback(self._recovering.discard)

    async def _recover(self, connection: Wire, lending: Lending[Wire]) -> None:
        """Wait until a cancelled statement has stopped, end what is open and forget settings."""
        from erp.vendor_clients.postgres_wire import RESET

        is_broken = True
        try:
            async with asyncio.timeout(RECOVER_SECONDS):
                await connection.plain("ROLLBACK")
                await connection.plain(RESET)
            is_broken = False
        except Exception:  # noqa: BLE001  (whatever is wrong with it, it is not used again)
            connection.terminate()
        finally:
            lending.give(connection, is_broken=is_broken)

    # -- sessions --------------------------------------------------------------------------------

    async def session(self, *, read_only: bool, isolation: str | None = None, prelude: str = "") -> PostgresSession:
        """Begin a transaction on a connection of its own; ``prelude`` runs in it first.

        Raises:
            ProviderError: ``unavailable`` when no connection became free.
        """
        lending = self.readers if read_only else self.writers
        connection = await lending.take()
        level = LEVELS[isolation] if isolation else "READ COMMITTED"
        mode = "READ ONLY" if read_only else "READ WRITE"
        # The first snapshot is taken here: one taken while a query may only read would make a serializable transaction
        # read-only for the server, which then no longer notices what collides.
        snapshot = "" if level == "READ COMMITTED" else "; SELECT 1"
        try:
            await connection.plain(f"BEGIN ISOLATION LEVEL {level} {mode};{prelude}{snapshot}")
        except BaseException as error:
            self.give(connection, lending, is_clean=False)
            if isinstance(error, Exception):
                raise explained(error) from error
            raise
        return PostgresSession(self, connection, lending, read_only=read_only)

    @asynccontextmanager
    async def session_for(self, *, read_only: bool, prelude: str = "") -> AsyncIterator[PostgresSession]:
        """Hold a session for a block: committed at its end, undone when it fails."""
        session = await self.session(read_only=read_only, prelude=prelude)
        try:
            yield session
            await session.commit()
        finally:
            session.release()


def _is_usable(connection: Wire) -> bool:
    return not connection.is_closed()


def _reads_only(connection: Wire) -> bool:
    return not connection.is_closed() and getattr(connection.get_settings(), _READ_ONLY, "on") == "on"


class PostgresSession:
    """An open transaction; each statement in it takes effect whole or not at all, and a failed one ends nothing else."""

    def __init__(self, database: Database, connection: Wire, lending: Lending[Wire], *, read_only: bool) -> None:
        self._database = database
        self._read_only = read_only
        self.connection = connection
        self._lending = lending
        self._is_clean = True

    def is_open(self) -> bool:
        return not self.connection.is_closed() and self.connection.is_in_transaction()

    async def commit(self) -> None:
        try:
            status = await self.connection.plain("COMMIT")
        except Exception as error:
            raise unknown(error) if is_lost(error) else explained(error) from error
        if status == "ROLLBACK":
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The server has undone the transaction.")

    async def rollback(self) -> None:
        await self._plain("ROLLBACK")

    async def savepoint(self, name: str) -> None:
        await self._plain(f"SAVEPOINT user_{name}")

    async def rollback_to(self, name: str) -> None:
        await self._plain(f"ROLLBACK TO user_{name}")

    def interrupt(self) -> None:
        self.connection.terminate()

    def release(self) -> None:
        self._database.give(self.connection, self._lending, is_clean=self._is_clean)

    def require_reset(self) -> None:
        """Have the connection's settings forgotten before others get it."""
        self._is_clean = False

    async def _plain(self, sql: str) -> None:
        try:
            await self.connection.plain(sql)
        except Exception as error:
            raise explained(error) from error

    async def alone(
        self, sql: str, arguments: Sequence[Any], limit: int = 0, where: str = "/params/parameters"
    ) -> Done:
        """Run one statement; when it fails, what surrounds it has to be undone."""
        try:
            return await self.connection.run(sql, arguments, limit)
        except Exception as error:
            raise explained(error, where=where) from error

    def whole(self) -> AbstractAsyncContextManager[None]:
        """Within, all takes effect or nothing; the transaction goes on either way."""
        return self._as_a_whole("SAVEPOINT erp_statement", "RELEASE erp_statement")

    @asynccontextmanager
    async def _as_a_whole(self, begin: str, end: str) -> AsyncIterator[None]:
        """Undo a statement that fails: the transaction is then as it was before."""
        try:
            await self.connection.plain(begin)
            yield
            await self.connection.plain(end)
        except ProviderError:
            await self._undo_statement()
            raise
        except Exception as error:
            await self._undo_statement()
            raise explained(error) from error

    async def _undo_statement(self) -> None:
        if self.is_open():
            with suppress(Exception):
                await self.connection.plain("ROLLBACK TO erp_statement; RELEASE erp_statement")

    def reading(self) -> AbstractAsyncContextManager[None]:
        """Within, the server refuses every change, and undoes nothing afterwards but the mode."""
        if self._read_only:
            return self.whole()
        return self._as_a_whole(
            "SAVEPOINT erp_statement; SET LOCAL transaction_read_only = on",
            "ROLLBACK TO erp_statement; RELEASE erp_statement",
        )

    async def read(self, sql: str, arguments: Sequence[Any], limit: int) -> Done:
        """Run one statement where nothing can be changed."""
        async with self.reading():
            return await self.connection.run(sql, arguments, limit)

    async def cursor(self, sql: str, arguments: Sequence[Any]) -> ServerCursor:
        """Open a cursor. The statement has to have been read once, which is what refuses one that would change something."""
        from erp.vendor_clients.postgres_wire import refuse_fractions

        async with self.whole():
            state = await self.connection.prepare(sql)
            refuse_fractions(state.get_parameters(), arguments)
            opened = await state.cursor(*arguments)
        return ServerCursor(self, opened, state)


class ServerCursor:
    """A portal on the server, of which rows are fetched while the server refuses every change."""

    def __init__(self, session: PostgresSession, opened: Any, state: Any) -> None:
        from erp.vendor_clients.postgres_wire import columns_of

        self._session = session
        self._opened = opened
        self.columns = columns_of(state.get_attributes())

    async def fetch(self, count: int) -> Sequence[Any]:
        async with self._session.reading():
            return await self._session.connection.more(self._opened, count)

    async def close(self) -> None:
        if self._session.is_open():
            with suppress(Exception):
                await self._opened._close_portal(None)  # noqa: SLF001  (asyncpg closes only cursors that were read to their end)


def refuse_large(max_bytes: int) -> ProviderError:
    """Return the error of a change whose returned rows are too large."""
    message = f"The returned rows are larger than an answer may be ({max_bytes} bytes); nothing was changed."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message)
