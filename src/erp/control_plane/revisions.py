"""Counters by which processes tell each other to forget what they cached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import sqlalchemy as sa

from erp.control_plane.database import Database, Work
from erp.control_plane.tables import revisions

T = TypeVar("T")

POLL_SECONDS = 0.5


class Topic(StrEnum):
    """What can change."""

    CONFIGURATION = "configuration"
    """Tenants, connections and defaults."""
    API_KEYS = "api_keys"
    QUOTAS = "quotas"
    CATALOG = "catalog"
    """Providers, which every process reads for itself."""
    POLICIES = "policies"
    SESSIONS = "sessions"
    """Sessions that were ended, and tokens that were revoked."""
    BREAK_GLASS = "break_glass"
    """Elevations that begin or end."""
    SECRETS = "secrets"
    OUTBOX = "outbox"
    """Never counted: its row is the lock under which due events are claimed."""


def bump(connection: sa.Connection, *topics: Topic) -> None:
    """Count a change of ``topics`` in the transaction that makes it."""
    for topic in sorted(topics):
        connection.execute(
            sa.update(revisions).where(revisions.c.topic == topic).values(revision=revisions.c.revision + 1)
        )


def counted(work: Work[T], *topics: Topic) -> Work[T]:
    """Return ``work`` followed by the count of its change, in one transaction."""

    def both(connection: sa.Connection) -> T:
        result = work(connection)
        bump(connection, *topics)
        return result

    return both


class Revisions:
    """Knows how long caches may be trusted without asking the database.

    There is no background task: whoever reads a cache after ``trusted_until`` first awaits
    ``refresh``. So an idle process asks nothing, and no answer is older than ``POLL_SECONDS``.
    """

    def __init__(self, database: Database, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._seen: dict[str, int] = {}
        self._forgetters: dict[str, list[Callable[[], None]]] = {topic: [] for topic in Topic}
        self._poll: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()
        """So that no question falls between what this process counts and its knowing so."""
        self.trusted_until = 0.0
        """Monotonic time."""

    def watch(self, topic: Topic, forget: Callable[[], None]) -> None:
        """Call ``forget`` whenever ``topic`` has changed, here or in another process."""
        self._forgetters[topic].append(forget)

    def announce(self, *topics: Topic) -> None:
        """Forget at once what this process cached of ``topics``, after it has changed them."""
        for topic in topics:
            for forget in self._forgetters[topic]:
                forget()

    async def count(self, topic: Topic) -> None:
        """Tell other processes that ``topic`` has changed; this one knows already, unless another counted, too."""
        async with self._asking:
            revision = await self._database.transact(lambda connection: _bumped(connection, topic))
            if self._seen.get(topic, revision - 1) == revision - 1:
                self._seen[topic] = revision

    async def refresh(self) -> None:
        """Ask which topics other processes have changed; many callers share one question.

        Raises:
            ProviderError: ``unavailable``. A cache that cannot be checked is not trusted.
        """
        if time.monotonic() < self.trusted_until:
            return
        if self._poll is None:
            self._poll = asyncio.create_task(self._ask(), name="control plane revisions")
            self._poll.add_done_callback(self._asked)
        await asyncio.shield(self._poll)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._poll = None
        if not task.cancelled():
            task.exception()  # Retrieved here in case every caller went away.

    async def _ask(self) -> None:
        async with self._asking:
            asked_at = time.monotonic()
            found = await self._database.run(_read)
            changed = [Topic(topic) for topic, revision in found.items() if self._seen.get(topic, revision) != revision]
            self._seen = found
        self.announce(*changed)
        self.trusted_until = asked_at + self._poll_seconds


def _bumped(connection: sa.Connection, topic: Topic) -> int:
    """Count a change and return the revision that it made."""
    bump(connection, topic)
    revision: int = connection.execute(sa.select(revisions.c.revision).where(revisions.c.topic == topic)).scalar_one()
    return revision


def _read(connection: sa.Connection) -> dict[str, int]:
    rows = connection.execute(sa.select(revisions.c.topic, revisions.c.revision))
    return {topic: revision for topic, revision in rows if topic in Topic._value2member_map_}
