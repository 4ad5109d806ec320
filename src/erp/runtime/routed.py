"""Runs calls that name a route instead of a provider.

Going on to another target is safe when nothing can have happened at the first: always for reads; for effects when the
failure says so. An effect of unknown outcome is repeated only where the repetition is recognised, which another
system cannot do: the targets have to be ways to one system (``same_system``), and the action or its key has to be safe.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from erp.errors import ProviderError
from erp.runtime import effects, execution
from erp.runtime.call import Answer
from erp.runtime.handles import NAMES, marked, unmarked
from erp.runtime.ports import Completion
from erp.runtime.residency import OutOfRegionError
from erp.runtime.routes import FAULTS, MAX_MIRRORED, LiveRoute, LiveTarget
from erp.runtime.shadow import pointers_of

if TYPE_CHECKING:
    from erp.runtime.action import Action
    from erp.runtime.call import Call
    from erp.runtime.calls import Calls
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.context import CallContext
    from erp.runtime.plan import Plan
    from erp.runtime.ports import Journal

MIRROR_SECONDS = 30.0

_encode = msgspec.json.Encoder(decimal_format="string").encode


@dataclass(slots=True)
class Attempt:
    """What a call has tried so far."""

    plan: Plan | None = None
    context: CallContext | None = None
    is_elsewhere: bool = False
    """Whether a repetition may reach another system than the first attempt."""

    def may_have_happened(self, failure: ProviderError) -> bool:
        """Whether the call may have taken effect although it failed."""
        return effects.may_have_happened(failure) or (self.context is not None and self.context.is_doubtful)

    def answer(self, data: bytes, result: Any) -> Answer:
        """Return the answer of the attempt that gave ``result``."""
        plan, context = self.plan, self.context
        assert plan is not None  # noqa: S101  (there is a result)
        assert context is not None  # noqa: S101
        return Answer(data, plan.provider, plan.connection, context.provider_seconds, result)

    @property
    def may_repeat(self) -> bool:
        """Whether running the call again cannot double an effect."""
        if self.plan is None or self.context is None:
            return True
        return not self.is_elsewhere and execution.may_repeat(self.plan, self.context)


def is_repeatable(live: LiveRoute, action: Action, catalog: ProviderCatalog) -> bool:
    """Whether a call with a key may run again after the process that ran it died."""
    if live.route.kind == "failover" and not live.route.same_system:
        return False
    providers = (catalog.provider(action.group, target.provider) for target in live.targets)
    return action.idempotent or all(provider.idempotency_keys for provider in providers)


class RoutedCalls:
    """Runs the calls of one pipeline that name a route."""

    def __init__(self, calls: Calls, journal: Journal) -> None:
        self._calls = calls
        self._journal = journal

    async def run(self, live: LiveRoute, call: Call, request: Any, attempt: Attempt) -> Any:
        """Return the result of the first target that gives one.

        Raises:
            ProviderError: the failure of the last target that was tried; ``OutOfRegionError`` when that would have been the first.
        """
        attempt.is_elsewhere = live.route.kind == "failover" and not live.route.same_system
        bare, targets = self._chosen(live, call, request)
        failure: ProviderError | None = None
        for number, target in enumerate(targets, 1):
            try:
                result = await self._on(target, call, bare, attempt)
            except OutOfRegionError as error:
                if failure is not None:
                    raise failure from error
                raise
            except ProviderError as error:
                failure = error
                target.failed_by(error, live.route)
                self._mirror(live, call, request, error.code.value, None)
                if number == len(targets) or not _may_go_on(call, attempt, error):
                    raise
            else:
                target.succeeded()
                self._mirror(live, call, request, "ok", result)
                return marked(result, target.mark) if _marks(live) else result
        raise AssertionError  # there is always a target

    def _chosen(self, live: LiveRoute, call: Call, request: Any) -> tuple[Any, list[LiveTarget]]:
        bare, mark = unmarked(request) if _marks(live) else (request, None)
        if mark is not None:
            return bare, [live.with_mark(mark)]
        return bare, list(live.candidates(call.idempotency_key, self._is_healthy(call)))

    async def _on(self, target: LiveTarget, call: Call, request: Any, attempt: Attempt) -> Any:
        """Run the call on one target, as if it had named that."""
        spent = call.context.provider_seconds if call.context is not None else 0.0
        here = msgspec.structs.replace(call, provider=target.provider, connection=target.connection)
        call.served = (target.provider, target.connection)
        plan = await self._calls.plan(here)
        context = call.context = self._calls.context(here, plan)
        context.provider_seconds = spent
        attempt.plan, attempt.context = plan, context
        return await execution.run(plan, request, context)

    def _is_healthy(self, call: Call) -> Any:
        async def ask(target: LiveTarget) -> bool:
            try:
                return await self._calls.plans.is_healthy(
                    call.tenant, call.action.group, target.provider, target.connection
                )
            except ProviderError:
                return False

        return ask

    async def stream(self, live: LiveRoute, call: Call, request: Any) -> tuple[Plan, Any, str | None]:
        """Return the plan of a streaming call on the first target that opens, its request, and the mark of its handles."""
        bare, targets = self._chosen(live, call, request)
        failure: ProviderError | None = None
        for number, target in enumerate(targets, 1):
            here = msgspec.structs.replace(call, provider=target.provider, connection=target.connection)
            try:
                plan = await self._calls.plan(here)
            except OutOfRegionError as error:
                if failure is not None:
                    raise failure from error
                raise
            except ProviderError as error:
                failure = error
                target.failed_by(error, live.route)
                if number == len(targets) or error.code not in FAULTS:
                    raise
            else:
                call.served = (target.provider, target.connection)
                return plan, bare, target.mark if _marks(live) else None
        raise AssertionError  # there is always a target

    # -- mirrors ---------------------------------------------------------------------------------

    def _mirror(self, live: LiveRoute, call: Call, request: Any, code: str, result: Any) -> None:
        """Send the call to the mirrors, after its answer is known and without anybody waiting."""
        route = live.route
        if route.kind != "shadow" or (call.action.is_effectful and not route.mirror_effects) or _has_handles(request):
            return
        copy = msgspec.json.decode(_encode(request), type=call.action.request_type)
        answered = _plain(result)
        for target in live.targets[1:]:
            if len(live.tasks) >= MAX_MIRRORED:
                live.shadow.dropped += 1
                continue
            live.start(self._compare(live, target, call, copy, (code, answered)))

    async def _compare(
        self, live: LiveRoute, target: LiveTarget, call: Call, request: Any, primary: tuple[str, Any]
    ) -> None:
        code, result = await self._mirrored(target, call, request)
        pointers = []
        if code == primary[0] == "ok":
            pointers = pointers_of(primary[1], result, live.route.ignore)
        live.shadow.add(
            action=call.action.name,
            target=f"{target.provider}#{target.connection}",
            request_id=call.request_id,
            primary=primary[0],
            mirror=code,
            pointers=pointers,
        )

    async def _mirrored(self, target: LiveTarget, call: Call, request: Any) -> tuple[str, Any]:
        """Run a copy of the call; its events are nobody's, its effects are audited."""
        here = msgspec.structs.replace(
            call,
            provider=target.provider,
            connection=target.connection,
            deadline=time.monotonic() + MIRROR_SECONDS,
            context=None,
            served=None,
        )
        code, result = "ok", None
        try:
            plan = await self._calls.plan(here)
            context = self._calls.context(here, plan)
            result = _plain(await execution.run(plan, request, context))
            target.succeeded()
        except ProviderError as error:
            code = error.code.value
            target.failed += 1
        if call.action.is_effectful:
            audit = effects.mirrored(here, code)
            await self._journal.complete(Completion(audit=audit))
        return code, result


def _plain(result: Any) -> Any:
    """Return a result as a caller would see it; parts of it may be JSON already (``msgspec.Raw``)."""
    return msgspec.json.decode(_encode(result))


def _marks(live: LiveRoute) -> bool:
    """Whether handles have to say where they came from."""
    return len(live.targets) > 1 and live.route.kind != "shadow"


def _has_handles(request: Any) -> bool:
    return any(isinstance(getattr(request, name), str | list) for name in NAMES.intersection(request.__struct_fields__))


def _may_go_on(call: Call, attempt: Attempt, error: ProviderError) -> bool:
    if error.code not in FAULTS or time.monotonic() >= call.deadline:
        return False
    return not call.action.is_effectful or not attempt.may_have_happened(error) or attempt.may_repeat
