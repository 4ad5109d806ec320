"""Durable memory of effectful calls by group commit. Implements ``ports.Journal``.

Whatever arrives while a transaction is being committed goes into the next one. There is no timer:
alone, a call waits for one commit; among many, a commit is shared by all that came meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.batch import AuditRow, Batch, BatchWriter, EventRow, Written, audit_row, event_row
from erp.control_plane.claims import IN_FLIGHT, MISMATCH
from erp.control_plane.database import Database
from erp.errors import ProviderError
from erp.runtime.ports import AuditEntry, Claim, ClaimOutcome, Completion

_log = logging.getLogger(__name__)

MAX_BATCH = 512
MAX_WAITING_NOTES = 10_000
HEARTBEAT_SECONDS = 3.0
LEASE_SECONDS = 15.0
RETRY_SECONDS = 1.0
PURGE_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class _Unit:
    """One thing to make durable and, unless nobody waits for it, the future that hears of it."""

    future: asyncio.Future[Any] | None = None
    claim: Claim | None = None
    """To be claimed, or, with ``is_abandoned``, to be given back."""
    is_abandoned: bool = False
    completion: Completion | None = None
    audit: AuditRow | None = None
    events: list[EventRow] = field(default_factory=list)

    @property
    def held(self) -> Claim | None:
        """The claim whose fate the unit is about."""
        return self.claim if self.completion is None else self.completion.claim

    @property
    def may_have_effect(self) -> bool:
        """Whether the unit tells of a call that did or may have done something: not of one that never ran."""
        return self.completion is not None and not self.completion.release

    def tell(self, outcome: ClaimOutcome | None, superseded: set[str]) -> None:
        """Let the waiting caller go on, unless its claim is among those that others took over."""
        if self.future is None or self.future.done():
            return
        if self.held is not None and self.held.token in superseded:
            self.future.set_exception(_superseded())
        else:
            self.future.set_result(outcome)


class GroupCommitJournal:
    """The journal of one process."""

    def __init__(
        self,
        database: Database,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.owner = os.urandom(8).hex()
        """This process, for the claims it runs."""
        self.on_events: Callable[[], None] | None = None
        """Called when events have become durable."""
        self._database = database
        self._writer = BatchWriter(database.dialect, self.owner, lease_seconds)
        self._heartbeat_seconds = heartbeat_seconds
        self._retry_seconds = retry_seconds
        self._queue: deque[_Unit] = deque()
        self._notes: deque[AuditRow] = deque(maxlen=MAX_WAITING_NOTES)
        self._running: dict[tuple[str, str], Claim] = {}
        self._orphans: dict[str, Claim] = {}
        """Claims whose call may have taken effect, by token."""
        self._unreleased: dict[str, Claim] = {}
        """Claims whose call took no effect, by token."""
        self._committer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beat_at = 0.0
        self._purge_at = 0.0

    # -- what callers do -------------------------------------------------------------------------

    async def claim(self, claim: Claim) -> ClaimOutcome:
        slot = (claim.tenant, claim.key)
        running = self._running.get(slot)
        if running is not None:
            is_same = running.fingerprint == claim.fingerprint and running.target == claim.target
            return IN_FLIGHT if is_same else MISMATCH
        self._running[slot] = claim
        future: asyncio.Future[ClaimOutcome] = asyncio.get_running_loop().create_future()
        self._put(_Unit(future, claim))
        try:
            return await future
        except asyncio.CancelledError:
            # Nobody will run it: give it back, whatever becomes of it meanwhile.
            self._put(_Unit(claim=claim, is_abandoned=True))
            raise

    async def complete(self, completion: Completion) -> None:
        try:
            unit = _unit(completion)
        except BaseException:
            self._leave(_Unit(completion=completion))
            raise
        unit.future = asyncio.get_running_loop().create_future()
        self._put(unit)
        await unit.future

    def note(self, audit: AuditEntry) -> None:
        self._notes.append(audit_row(audit))
        self._wake()

    async def close(self) -> None:
        """Write what is waiting. Claims that are still running count as left by their runner. Safe twice."""
        while self._committer is not None:
            await asyncio.wait([self._committer])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_owing():
            await self._commit_batch()
        if self._beat_at:
            self._beat_at = 0.0
            try:
                await self._database.transact(self._writer.retire)
            except ProviderError:
                _log.warning("journal could not retire; its lease will lapse", exc_info=True)

    # -- the committer ---------------------------------------------------------------------------

    def _put(self, unit: _Unit) -> None:
        self._queue.append(unit)
        if self._committer is None:
            self._wake()

    def _wake(self) -> None:
        if self._committer is None:
            self._committer = asyncio.get_running_loop().create_task(self._commit(), name="journal committer")

    async def _commit(self) -> None:
        try:
            await self._commit_batch()
            while self._queue:
                await self._commit_batch()
        finally:
            self._committer = None
            self._arm()

    async def _commit_batch(self) -> None:
        units = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        batch = self._batch(units)
        if not (units or batch.audit or batch.disowned or batch.overdue or batch.is_heartbeat):
            return
        try:
            written = await self._database.transact(partial(self._writer.write, batch))
        except Exception as error:  # noqa: BLE001  (whatever it was, exactly this batch failed)
            self._failed(units, batch, error)
            return
        self._succeeded(units, batch, written)
        await self._purge()

    def _batch(self, units: list[_Unit]) -> Batch:
        batch = Batch(disowned=_some(self._orphans), overdue=_some(self._unreleased))
        batch.is_heartbeat = bool(self._running) and time.monotonic() >= self._beat_at
        batch.audit = [self._notes.popleft() for _ in range(min(len(self._notes), MAX_BATCH))]
        for unit in units:
            if unit.completion is not None:
                _add_completion(batch, unit, unit.completion)
            elif unit.is_abandoned:
                batch.released.append(unit.claim)  # type: ignore[arg-type]  # always has one
            else:
                batch.claims.append(unit.claim)  # type: ignore[arg-type]  # always has one
        return batch

    def _succeeded(self, units: list[_Unit], batch: Batch, written: Written) -> None:
        if batch.is_heartbeat:
            self._beat_at = time.monotonic() + self._heartbeat_seconds
        for claim in batch.disowned:
            self._orphans.pop(claim.token, None)
        for claim in batch.overdue:
            self._unreleased.pop(claim.token, None)
        claimed = iter(written.outcomes)
        for unit in units:
            outcome = None if unit.claim is None or unit.is_abandoned else next(claimed)
            if outcome is None or outcome.state != "won":
                self._forget(unit.held)
            unit.tell(outcome, written.superseded)
        if batch.events and self.on_events is not None:
            self.on_events()

    def _failed(self, units: list[_Unit], batch: Batch, error: Exception) -> None:
        _log.error("journal batch of %d failed", len(units), exc_info=error)
        own = len(batch.audit) - sum(unit.audit is not None for unit in units)
        self._notes.extendleft(reversed(batch.audit[:own]))
        for unit in units:
            self._leave(unit)
            if unit.future is not None and not unit.future.done():
                unit.future.set_exception(_failure(unit, error))

    def _leave(self, unit: _Unit) -> None:
        """Remember that the end of a claimed call could not be stored, to say so as soon as possible."""
        claim = unit.held
        if claim is not None:
            self._forget(claim)
            (self._orphans if unit.may_have_effect else self._unreleased)[claim.token] = claim

    def _forget(self, claim: Claim | None) -> None:
        if claim is None:
            return
        running = self._running.get((claim.tenant, claim.key))
        if running is not None and running.token == claim.token:
            del self._running[claim.tenant, claim.key]

    def _arm(self) -> None:
        """Come back for heartbeats and for what could not be written."""
        waiting = self._is_owing()
        if self._timer is None and (waiting or self._running):
            seconds = self._retry_seconds if waiting else self._heartbeat_seconds
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._is_owing() or self._running:
            self._wake()

    def _is_owing(self) -> bool:
        """Whether there is something that could not be written."""
        return bool(self._orphans or self._unreleased or self._notes)

    async def _purge(self) -> None:
        if time.monotonic() < self._purge_at:
            return
        self._purge_at = time.monotonic() + PURGE_SECONDS
        try:
            await self._database.transact(self._writer.purge)
        except ProviderError:
            _log.warning("journal could not purge", exc_info=True)


def _some(claims: dict[str, Claim]) -> list[Claim]:
    return list(islice(claims.values(), MAX_BATCH))


def _unit(completion: Completion) -> _Unit:
    is_answered = completion.release or completion.is_open or completion.status != 0
    if completion.claim is not None and not is_answered:
        message = "A completed claim needs the status of its answer."
        raise ValueError(message)
    try:
        events = [event_row(event) for event in completion.events]
        return _Unit(completion=completion, audit=audit_row(completion.audit), events=events)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        message = "The call succeeded but its events or audit record cannot be stored."
        raise ProviderError(ErrorCode.INTERNAL, message, detail=str(error)) from error


def _add_completion(batch: Batch, unit: _Unit, completion: Completion) -> None:
    claim = completion.claim
    if claim is not None and not (completion.release or completion.is_open):
        batch.answers.append(completion)
    elif claim is not None:
        batch.failed.append(claim)
        (batch.released if completion.release else batch.disowned).append(claim)
    batch.events.extend(unit.events)
    if claim is not None and unit.events:
        batch.events_of[claim.token] = unit.events
    if unit.audit is not None:
        batch.audit.append(unit.audit)


def _superseded() -> ProviderError:
    message = (
        "Another process took this call over while this one stood still. Repeat it with the same key for its answer."
    )
    return ProviderError(ErrorCode.CONFLICT, message, retry_after_seconds=1.0)


def _failure(unit: _Unit, cause: Exception) -> ProviderError:
    """Describe a failed commit to one caller: only who certainly changed nothing may simply try again."""
    completion = unit.completion
    may_have_effect = completion is not None and unit.may_have_effect and completion.audit.effect != "read"
    message = "The call's record cannot be stored at present."
    if may_have_effect:
        message = "The call may have taken effect, but its record could not be stored."
    error = ProviderError(
        ErrorCode.OUTCOME_UNKNOWN if may_have_effect else ErrorCode.UNAVAILABLE,
        f"{message} {cause.message}" if isinstance(cause, ProviderError) else message,
        detail=f"{type(cause).__name__}: {cause}",
        retry_after_seconds=None if may_have_effect else 1.0,
    )
    error.__cause__ = cause
    return error
