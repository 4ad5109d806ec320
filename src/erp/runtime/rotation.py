"""Follows secrets: when one has a new version, the connections that name it without a version take it into use.

As any change of configuration, it is an operation of the connection: proven by health first, refused with the reason,
without a call failing meanwhile. A connection remembers the version that was proven and goes on with it until another was.

A new version is noticed at once when it was made in this process, within ``poll_seconds`` when it was made elsewhere (by
asking for its name alone), and when the peer of an open provider refuses its credentials.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import time
from typing import TYPE_CHECKING

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.configuring import Wish, wish_of
from erp.runtime.operation import Order
from erp.runtime.operations import subject_of
from erp.runtime.secret_references import ELSEWHERE, LOCAL, LOCAL_SPACE, SECRET_SCHEME
from erp.runtime.service_calls import service_actor
from erp.telemetry.ids import continued, new_request_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any, Protocol

    from erp.runtime.operation import Operation
    from erp.runtime.operations import OperationRunner
    from erp.runtime.ports import Connection
    from erp.runtime.secret_references import SecretReferences

    class Stored(Protocol):
        """The connections as they are stored."""

        async def find(self, tenant: str, domain: str, provider: str, name: str) -> Connection | None: ...
        async def list(self, tenant: str) -> list[Connection]: ...

    class Latest(Protocol):
        """The latest operation about each of some subjects."""

        async def latest(self, subjects: Sequence[str]) -> dict[str, Operation]: ...


_log = logging.getLogger(__name__)

ACTOR = "rotation"
LONGEST_POLL_SECONDS = 86_400


class RotationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly new versions are looked for. Times in seconds."""

    poll_seconds: float = 60.0
    """How soon a version is noticed that was made elsewhere."""
    refused_seconds: float = 5.0
    """How often, at most, a connection is looked at because its peer refuses it."""
    again_seconds: float = 1.0
    """Between tries while another change of the connection is under way."""
    most_tries: int = 30
    after_failure_seconds: float = 300.0
    """Before a version that has not proven itself is tried again."""
    at_once: int = 8

    @classmethod
    def from_environment(cls) -> RotationSettings:
        """Return the settings with ``ERP_SECRETS_POLL_SECONDS``.

        Raises:
            ProviderError: ``failed_precondition`` when it is no such number.
        """
        text = os.environ.get("ERP_SECRETS_POLL_SECONDS") or "60"
        if not text.isdecimal() or not 1 <= int(text) <= LONGEST_POLL_SECONDS:
            message = f"ERP_SECRETS_POLL_SECONDS is {text[:20]!r}. Set it to seconds, 1 to {LONGEST_POLL_SECONDS}."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return cls(poll_seconds=float(text))


class Rotation:
    """Turns new versions of secrets into operations."""

    def __init__(
        self,
        operations: OperationRunner,
        *,
        connections: Stored,
        latest: Latest,
        secrets: SecretReferences,
        settings: RotationSettings | None = None,
    ) -> None:
        self._operations = operations
        self._connections = connections
        self._latest = latest
        self._secrets = secrets
        self._settings = settings or RotationSettings()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_at: dict[str, float] = {}
        self._places = asyncio.Semaphore(self._settings.at_once)

    def changed(self, tenant: str, path: str) -> None:
        """Say that a secret of the platform's own vault has a new version."""
        self._start(self._follow(tenant, path))

    def refused(self, connection: Connection) -> None:
        """Say that the peer of a connection refuses its credentials; looked into every few seconds at most."""
        if not any("#" not in reference for reference in connection.secrets.values()):
            return
        now, subject = time.monotonic(), subject_of(connection)
        if now - self._looked_at.get(subject, float("-inf")) < self._settings.refused_seconds:
            return
        self._looked_at = {
            name: at for name, at in self._looked_at.items() if now - at < self._settings.refused_seconds
        } | {subject: now}
        self._start(self._renew(connection))

    async def poll(self, opened: Sequence[Connection]) -> None:
        """Look for newer versions of what the open providers use."""
        following = [one for one in opened if any("#" not in reference for reference in one.secrets.values())]
        await asyncio.gather(*(self._renew(one) for one in following))

    async def run(self, opened: Any) -> None:
        """Poll until cancelled; ``opened`` returns the connections that have an open provider."""
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            await self.poll(opened())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="rotation")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, tenant: str, path: str) -> None:
        try:
            stored = await self._connections.list(tenant)
        except ProviderError:
            _log.warning("connections of %s could not follow a rotated secret", tenant, exc_info=True)
            return
        await asyncio.gather(*(self._renew(one) for one in stored if names(one, path)))

    async def _renew(self, connection: Connection) -> None:
        try:
            async with self._places:
                await self._tried(connection)
        except ProviderError as error:
            where = subject_of(connection)
            _log.warning("%s could not follow a rotated secret: %s", where, error, exc_info=error)

    async def _tried(self, connection: Connection) -> None:
        """Wish for the configuration with the newest versions; wait while another change is under way."""
        place = (connection.tenant, connection.domain, connection.provider, connection.name)
        for _ in range(self._settings.most_tries):
            present = await self._connections.find(*place)
            if present is None:
                return
            newest = await self._secrets.newest_of(present)
            if newest == present.versions or await self._has_failed(present, newest):
                return
            wanted = msgspec.structs.replace(present, versions=newest)
            try:
                await self._operations.accept_wish(Wish(connection=wanted, expected=present.revision), _order(wanted))
            except ProviderError as error:
                if error.code is not ErrorCode.CONFLICT:
                    raise
                await asyncio.sleep(self._settings.again_seconds)
            else:
                return

    async def _has_failed(self, present: Connection, newest: dict[str, str]) -> bool:
        """Whether these versions have just been refused, here or in another process."""
        subject = subject_of(present)
        latest = (await self._latest.latest([subject])).get(subject)
        if latest is None or latest.state != "failed" or latest.ended_at is None or latest.order.name != "rotate":
            return False
        since = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(latest.ended_at)
        is_recent = abs(since.total_seconds()) < self._settings.after_failure_seconds
        wish = wish_of(latest.order)
        is_same = wish.expected == present.revision and wish.connection.versions == newest
        return is_recent and is_same

    async def close(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def names(connection: Connection, path: str) -> bool:
    """Whether a connection names a secret of the platform's own vault without a version."""
    for reference in connection.secrets.values():
        named = reference.removeprefix(SECRET_SCHEME)
        begin = f"{ELSEWHERE}{LOCAL}/"
        if named.startswith(begin):
            named = LOCAL_SPACE + named.removeprefix(begin).partition("/")[2]
        if named == path:
            return True
    return False


def _order(connection: Connection) -> Order:
    return Order(
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
