"""Destroys versions of secrets whose overlap is over.

Of several processes one does it, and the next one when that is killed. A version is destroyed when its time has come by the
wall clock, when as much time has passed on the monotonic clock of every process that has seen it coming, and when no
connection uses it: neither as it is stored nor as a provider is open here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from erp.control_plane import moments
from erp.errors import ProviderError
from erp.runtime import effects
from erp.runtime.ports import AuditEntry, Completion
from erp.runtime.rotation import ACTOR
from erp.runtime.service_calls import service_actor
from erp.telemetry.ids import new_request_id

if TYPE_CHECKING:
    from erp.control_plane.retirements import Retirement, Retirements
    from erp.runtime.ports import Journal
    from erp.runtime.secret_references import Use

_log = logging.getLogger(__name__)

IsInUse = Callable[[str, "set[Use]"], bool]
Destroy = Callable[[str, str, str], Awaitable[bool]]


class RetirementSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly work is looked for. Times in seconds."""

    poll_seconds: float = 5.0
    lease_seconds: float = 60.0
    """How long after the death of its process another one takes it up."""
    in_use_seconds: float = 60.0
    """Between looks at a version that is still in use."""
    failed_seconds: float = 300.0
    """After a version could not be destroyed where it is kept: at least this, then as long again as it is overdue."""
    failed_most_seconds: float = 86_400.0
    given_up_seconds: float = 30 * 86_400.0
    """How long after its time a version that cannot be destroyed where it is kept is given up."""
    seen_at_once: int = 500


class SecretRetirement:
    """Carries out what ``Retirements`` keeps."""

    def __init__(
        self,
        retirements: Retirements,
        journal: Journal,
        *,
        is_in_use: IsInUse,
        destroy: Destroy,
        on_still_used: Callable[[str, str], None],
        settings: RetirementSettings | None = None,
        wall: Callable[[], int] = moments.now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``destroy``: destroys a version that is kept elsewhere (tenant, path, its name); False: it is the current one."""
        self._retirements = retirements
        self._journal = journal
        self._is_in_use = is_in_use
        self._destroy = destroy
        self._on_still_used = on_still_used
        self._settings = settings or RetirementSettings()
        self._wall, self._monotonic = wall, monotonic
        self._ready_at: dict[tuple[str, str, int, int], float] = {}
        """Monotonic times, by what is to be destroyed and when."""
        self._woken = asyncio.Event()

    def nudge(self) -> None:
        """Say that there may be something new to be destroyed."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._woken.clear()
            try:
                await self.round()
            except ProviderError:
                _log.warning("versions of secrets could not be destroyed", exc_info=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._settings.poll_seconds)

    async def round(self) -> None:
        """See what is coming, and destroy what is due."""
        waiting = await self._retirements.waiting(limit=self._settings.seen_at_once)
        self._see(waiting)
        now, monotonic = self._wall(), self._monotonic()
        for one in waiting:
            if max(one.runs_at, one.due_at) <= now and self._ready_at[_key(one)] <= monotonic:
                await self._carry_out(one)

    def _see(self, waiting: list[Retirement]) -> None:
        """Note on the monotonic clock, which nobody can set, how long each has to stay at least."""
        now, monotonic = self._wall(), self._monotonic()
        known = self._ready_at
        self._ready_at = {
            _key(one): known.get(_key(one), monotonic + max(0, one.due_at - now) / moments.MICROSECONDS)
            for one in waiting
        }

    async def _carry_out(self, one: Retirement) -> None:
        claimed = await self._retirements.claim(one, until=self._in(self._settings.lease_seconds))
        if claimed is None:
            return
        is_in_use = self._is_in_use(one.tenant, one.uses)
        destroyed = None if is_in_use else await self._retirements.destroy(claimed)
        if destroyed is None:
            await self._retirements.postpone(claimed, until=self._in(self._settings.in_use_seconds))
            self._on_still_used(one.tenant, one.path)
        elif one.version_id is None:
            await self._settle(claimed)
        else:
            await self._carry_out_elsewhere(claimed, one.version_id)

    async def _carry_out_elsewhere(self, claimed: Retirement, version_id: str) -> None:
        try:
            is_gone = await self._destroy(claimed.tenant, claimed.path, version_id)
        except ProviderError as error:
            await self._failed(claimed, error)
            return
        if is_gone:
            await self._settle(claimed)
        else:
            await self._retirements.drop(claimed)

    async def _failed(self, claimed: Retirement, error: ProviderError) -> None:
        """Try again, later each time; what could not be destroyed for long is recorded and given up."""
        name = f"{claimed.path}#{claimed.version}"
        overdue = (self._wall() - claimed.due_at) / moments.MICROSECONDS
        if overdue >= self._settings.given_up_seconds:
            _log.error("%s of %s is given up, destroy it where it is kept: %s", name, claimed.tenant, error.message)
            await self._record(claimed, outcome=error.code, reason=f"given up, it is still there: {error.message}")
            await self._retirements.settle(claimed)  # not dropped: no connection shall take it into use again
            return
        _log.warning("%s of %s could not be destroyed: %s", name, claimed.tenant, error.message, exc_info=error)
        pause = min(max(overdue, self._settings.failed_seconds), self._settings.failed_most_seconds)
        await self._retirements.postpone(claimed, until=self._in(pause))

    async def _settle(self, claimed: Retirement) -> None:
        # Before it is forgotten: whoever is killed here leaves it to be recorded by the next.
        await self._record(claimed, outcome="ok", reason="the overlap after its rotation is over")
        await self._retirements.settle(claimed)

    def _in(self, seconds: float) -> int:
        return self._wall() + int(seconds * moments.MICROSECONDS)

    async def _record(self, one: Retirement, *, outcome: str, reason: str) -> None:
        audit = AuditEntry(
            tenant=one.tenant,
            actor=service_actor(ACTOR, one.tenant).id,
            action="secrets.destroy_version",
            target=f"{one.path}#{one.version}",
            outcome=outcome,
            reason=reason,
            request_id=new_request_id(),
            time=effects.now(),
            effect="destructive",
        )
        await self._journal.complete(Completion(audit=audit))


def _key(one: Retirement) -> tuple[str, str, int, int]:
    return (one.tenant, one.path, one.version, one.due_at)
