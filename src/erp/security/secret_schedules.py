"""Rotates secrets at their times: makes the new value, stores it as a version, and lets the connections follow.

It acts through the pipeline as every caller does, as the service ``rotation`` of the tenant, so that what it does is
authorised, limited, measured and audited. One process does it at a time. What fails is kept with its reason and tried
again, later every time. A process that is killed in the middle may leave one version more than was planned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.contracts.models.secrets import RotateRequest
from erp.errors import FieldError, ProviderError
from erp.runtime.rotation import ACTOR
from erp.runtime.service_calls import service_context
from erp.security import secret_values

if TYPE_CHECKING:
    from erp.control_plane.secret_schedules import SchedulePlan, SecretSchedule, SecretSchedules
    from erp.runtime.action import Action
    from erp.runtime.calls import Calls
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.context import CallContext
    from erp.runtime.ports import Journal

_log = logging.getLogger(__name__)
_jitter = random.SystemRandom()


class ScheduleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly what is due is looked for. Times in seconds."""

    poll_seconds: float = 5.0
    at_once: int = 8
    work_seconds: float = 60.0
    lease_seconds: float = 90.0
    """Longer than a rotation may take: nobody else begins it before it was cancelled here."""
    first_retry_seconds: float = 60.0
    """After the first failure; twice as long after each one more. Half of it is random."""
    last_retry_seconds: float = 6 * 3600.0


class ScheduledRotation:
    """Carries out what ``SecretSchedules`` keeps."""

    def __init__(
        self, schedules: SecretSchedules, calls: Calls, journal: Journal, settings: ScheduleSettings | None = None
    ) -> None:
        self._schedules = schedules
        self._calls = calls
        self._journal = journal
        self._settings = settings or ScheduleSettings()
        self._woken = asyncio.Event()

    def nudge(self) -> None:
        """Say that something was planned."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; what is under way then comes again after its lease."""
        while True:
            self._woken.clear()
            try:
                await self.round()
            except ProviderError:
                _log.warning("scheduled rotations cannot be read", exc_info=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._settings.poll_seconds)

    async def round(self) -> None:
        """Rotate what is due."""
        settings = self._settings
        due = await self._schedules.claim(limit=settings.at_once, lease_seconds=settings.lease_seconds)
        await asyncio.gather(*(self._serve(one) for one in due))
        if len(due) == settings.at_once:
            self._woken.set()

    async def _serve(self, schedule: SecretSchedule) -> None:
        try:
            async with asyncio.timeout(self._settings.work_seconds):
                reference = await self._rotated(schedule)
        except Exception as error:  # noqa: BLE001  (whatever it was is shown, and it is tried again)
            reason = _reason(error)
            _log.warning("rotation %s of %s failed: %s", schedule.name, schedule.tenant, reason, exc_info=error)
            await self._schedules.failed(schedule, reason, again_seconds=self._pause(schedule.failures))
        else:
            await self._schedules.succeeded(schedule, reference)

    def _pause(self, failures: int) -> float:
        doubled: float = self._settings.first_retry_seconds * 2.0 ** min(failures, 30)
        longest = min(doubled, self._settings.last_retry_seconds)
        return longest * _jitter.uniform(0.5, 1.0)

    async def _rotated(self, schedule: SecretSchedule) -> str:
        """Return the reference of the new version."""
        plan, seconds = schedule.plan, self._settings.work_seconds
        tenant = schedule.tenant
        context = service_context(self._calls, self._journal, service=ACTOR, tenant=tenant, seconds=seconds)
        request = RotateRequest(path=plan.path, value=await self._value(plan, context))
        if plan.overlap_seconds is not None:
            request.overlap_seconds = plan.overlap_seconds
        domain, provider = plan.provider.split("/")
        where = {"provider": provider, "connection": plan.connection}
        result = await context.invoke(domain, "rotate", request, **where)
        return str(result.reference)

    async def _value(self, plan: SchedulePlan, context: CallContext) -> str:
        source = plan.value
        if source["from"] == "random":
            return secret_values.random_text(source)
        if source["from"] == "password":
            return secret_values.password(source)
        domain, provider = source["provider"].split("/")
        action = self._calls.plans.catalog.action("providers", domain, source["action"])
        where = {"provider": provider, "connection": source.get("connection", "default")}
        result = await context.invoke(domain, action.name, params_of(action, source), **where)
        return _at(source["value_at"], msgspec.to_builtins(result))


def check(plan: SchedulePlan, catalog: ProviderCatalog) -> list[tuple[Action, str, str]]:
    """Return what the plan will call: action, provider and connection.

    Raises:
        ProviderError: ``invalid_argument`` when it cannot be carried out as it is; ``not_found`` for unknown providers.
    """
    domain, provider = plan.provider.split("/")
    if "rotation" not in catalog.provider(domain, provider).capabilities:
        _refuse("/provider", f"{plan.provider} cannot rotate secrets.")
    called = [(catalog.action("providers", domain, "rotate"), provider, plan.connection)]
    if plan.overlap_seconds is not None and "overlap" not in catalog.provider(domain, provider).capabilities:
        _refuse("/overlap_seconds", f"{plan.provider} decides itself when older versions go; leave it out.")
    source = plan.value
    if source["from"] != "action":
        return called
    domain, provider = source["provider"].split("/")
    manifest = catalog.provider(domain, provider)
    names = {one.name: one for one in catalog.actions_of(manifest)}
    action = names.get(source["action"])
    if action is None or action.internal or action.streaming or not action.is_effectful:
        _refuse("/value/action", f"{manifest.ref} has no action of this name that makes a value.")
    params_of(action, source)
    return [*called, (action, provider, source.get("connection", "default"))]


def params_of(action: Action, source: dict[str, Any]) -> Any:
    """Return the typed parameters of the action that makes a value.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    params, _ = action.decode(msgspec.json.encode({"params": source.get("params", {})}))
    return params


def _at(pointer: str, document: Any) -> str:
    for part in pointer.split("/")[1:]:
        document = document.get(part) if isinstance(document, dict) else None
    if not isinstance(document, str) or not document:
        message = f"The answer of the action has no text at {pointer}; nothing was stored."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return document


def _reason(error: Exception) -> str:
    if isinstance(error, ProviderError):
        return f"{error.message} ({error.code.value})"
    return "It took too long." if isinstance(error, TimeoutError) else "It failed in a way nobody foresaw; see the log."


def _refuse(pointer: str, message: str) -> NoReturn:
    errors = [FieldError(pointer, message)]
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The schedule cannot be like this.", errors=errors)
