"""Follows secrets: when one has a new version, the connections that name it without a version take it into use.

As any change of configuration, it is an operation of the connection: proven by health first, refused with the reason,
without a call failing meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.configuring import Wish
from erp.runtime.operation import Order
from erp.runtime.pool import SECRET_SCHEME
from erp.runtime.service_calls import service_actor
from erp.telemetry.trace import continued, new_request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from erp.runtime.operations import OperationRunner
    from erp.runtime.ports import Connection

_log = logging.getLogger(__name__)

ACTOR = "rotation"
AGAIN_SECONDS = 1.0
MOST_TRIES = 30


class Rotation:
    """Turns a new version of a secret into operations."""

    def __init__(
        self, operations: OperationRunner, connections_of: Callable[[str], Awaitable[Sequence[Connection]]]
    ) -> None:
        self._operations = operations
        self._connections_of = connections_of
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self, tenant: str, path: str) -> None:
        """Say that a secret has a new version."""
        task = asyncio.create_task(self._follow(tenant, f"{SECRET_SCHEME}{path}"), name="rotation")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, tenant: str, reference: str) -> None:
        try:
            for connection in await self._connections_of(tenant):
                if reference in connection.secrets.values():
                    await self._renew(connection)
        except ProviderError:
            _log.warning("connections of %s could not follow a rotated secret", tenant, exc_info=True)

    async def _renew(self, connection: Connection) -> None:
        """Wish for the configuration as it is; wait while another change is under way."""
        order = Order(
            area="connections",
            group=connection.domain,
            name="rotate",
            provider=connection.provider,
            connection=connection.name,
            actor=service_actor(ACTOR, connection.tenant),
            body="",
            request_id=new_request_id(),
            traceparent=continued(None),
        )
        for _ in range(MOST_TRIES):
            try:
                await self._operations.accept_wish(Wish(connection=connection, expected=connection.revision), order)
            except ProviderError as error:
                if error.code is not ErrorCode.CONFLICT:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
