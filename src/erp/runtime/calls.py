"""The life of one call. Every entry (HTTP, services, later GraphQL, gRPC, MCP) comes through here.

admit     rate limit and quota of the tenant, request shape, policy
claim     an effectful call with an idempotency key claims it, or replays the stored answer
plan      connection -> open provider -> method and protections
run       bulkhead, breaker, deadline, retries, the provider's method
complete  idempotency record, events and audit record are durable before the answer leaves
observe   metrics, span, log line
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import effects, execution, residency
from erp.runtime.call import Answer, Call
from erp.runtime.context import CallContext
from erp.runtime.handles import marked
from erp.runtime.question import question_of
from erp.runtime.resilience import TokenBucket
from erp.runtime.routed import Attempt, RoutedCalls, is_repeatable
from erp.runtime.shares import WAIT_SECONDS, TenantShares
from erp.runtime.spending import UNLIMITED, allowance_of

if TYPE_CHECKING:
    from erp.runtime.call_policy import Rate
    from erp.runtime.context import Actor
    from erp.runtime.observation import Observer
    from erp.runtime.plan import Plan, PlanBook
    from erp.runtime.ports import Claim, Connections, Journal, Policy, Quotas, Rates
    from erp.runtime.routes import LiveRoute, RouteBook
    from erp.runtime.spending import Spending

DEFAULT_WINDOW_SECONDS = 24 * 3600
TENANT_FRESH_SECONDS = 2.0
MAX_BUCKETS = 100_000

_encode = msgspec.json.Encoder(decimal_format="string").encode


class Calls:
    """The pipeline."""

    def __init__(
        self,
        *,
        plans: PlanBook,
        policy: Policy,
        quotas: Quotas,
        journal: Journal,
        connections: Connections,
        routes: RouteBook,
        observer: Observer,
        max_in_flight: int = 2000,
        window_seconds: int = DEFAULT_WINDOW_SECONDS,
    ) -> None:
        self.plans = plans
        self.routes = routes
        self.observer = observer
        self._routed = RoutedCalls(self, journal)
        self.rates: Rates | None = None
        """What this process shares its rate limits with others through; None: it is alone."""
        self.key_rates: Rates | None = None
        """The same for the limits of API keys."""
        self.spending: Spending | None = None
        """Keeps budgets; None: there are none."""
        self._policy = policy
        self._quotas = quotas
        self._journal = journal
        self._connections = connections
        self.shares = TenantShares(max_in_flight)
        self._window_seconds = window_seconds
        self._tenant_buckets: dict[str, tuple[float, TokenBucket]] = {}
        self._key_buckets: dict[str, TokenBucket] = {}
        self.in_flight = 0
        self.is_draining = False

    async def invoke(self, call: Call) -> Answer:
        """Run ``call`` to its answer.

        Raises:
            ProviderError: from the closed list.
        """
        started = time.perf_counter()
        if not self._enter(call):
            await self._wait_to_enter(call)
        answer: Answer | None = None
        failure: ProviderError | None = None
        try:
            request = await self._admit(call)
            work = self._effectful if call.action.is_effectful else self._read
            if self.spending is None or self.spending.is_unlimited(call.tenant):
                answer = await work(call, request)
            else:
                answer = await self.spending.run(call, request, work)
        except ProviderError as error:
            failure = error
            raise
        except asyncio.CancelledError:
            failure = ProviderError(ErrorCode.CANCELLED, "The call was cancelled.")
            raise
        except Exception as error:
            failure = effects.unforeseen(error)
            raise failure from error
        finally:
            self._leave(call, started, answer, failure)
        return answer

    async def stream(self, call: Call) -> AsyncGenerator[bytes]:
        """Admit a streaming call, then return its encoded items.

        Closing the generator ends the provider's. A refusal is raised here, before any item.
        """
        items = self._items(call)
        await anext(items)
        return items

    async def _items(self, call: Call) -> AsyncGenerator[bytes]:
        """Yield once on admission, so that closing what was never read still leaves, then the items."""
        started = time.perf_counter()
        if not self._enter(call):
            await self._wait_to_enter(call)
        failure: ProviderError | None = None
        allowance = UNLIMITED
        try:
            request = await self._admit(call)
            allowance, request = await allowance_of(self.spending, call, request)
            plan, request, mark = await self._streamed(call, request)
            context = self.context(call, plan, streaming=True)
            async with execution.entered(plan, context):
                if call.action.is_effectful:
                    await self._journal.complete(effects.completion(call, context, None, b""))
                yield b""
                async with aclosing(execution.items(plan, request, context)) as items:
                    async for item in items:
                        data = _encode(item if mark is None else marked(item, mark))
                        allowance.received(len(data), item)
                        yield data
            if context.emitted:
                await self._journal.complete(effects.completion(call, context, None, b""))
            allowance.answered()
        except ProviderError as error:
            failure = error
            allowance.failed(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            failure = ProviderError(ErrorCode.CANCELLED, "The caller left before the stream ended.")
            raise
        except Exception as error:
            failure = effects.unforeseen(error)
            raise failure from error
        finally:
            allowance.settle()
            self._leave(call, started, None, failure)

    async def _streamed(self, call: Call, request: Any) -> tuple[Plan, Any, str | None]:
        """Return the plan of a streaming call, what its method is given, and the mark of its handles if it has one."""
        if not call.is_routed:
            return await self.plan(call), request, None
        return await self._routed.stream(await self.route(call), call, request)

    def _leave(self, call: Call, started: float, answer: Answer | None, failure: ProviderError | None) -> None:
        self.in_flight -= 1
        if call.actor.kind != "service":
            self.shares.leave(call.tenant)
        self.observer.observe(call, time.perf_counter() - started, answer, failure)

    # -- admit -----------------------------------------------------------------------------------

    def _enter(self, call: Call) -> bool:
        """Enter when there is a place; calls of services have one in the call they belong to."""
        if call.timeout_seconds is not None:
            call.deadline = time.monotonic() + call.timeout_seconds
        if call.actor.kind != "service":
            if self.is_draining:
                refusal = ProviderError(ErrorCode.UNAVAILABLE, "The layer is shutting down.", retry_after_seconds=1.0)
                self.observer.observe(call, 0.0, None, refusal)
                raise refusal
            if not self.shares.try_enter(call.tenant):
                return False
        self.in_flight += 1
        return True

    async def _wait_to_enter(self, call: Call) -> None:
        started = time.perf_counter()
        seconds = min(WAIT_SECONDS, max(call.deadline - time.monotonic(), 0.0))
        try:
            await self.shares.wait_to_enter(call.tenant, seconds)
        except ProviderError as refusal:
            self.observer.observe(call, time.perf_counter() - started, None, refusal)
            raise
        self.in_flight += 1

    async def check(self, call: Call) -> None:
        """Admit a call that is run later: rate limit, quota, shape, policy, provider and connection.

        Raises:
            ProviderError: what it is refused with.
        """
        await self._admit(call)
        if call.is_routed:
            await self.route(call)
        elif call.action.area == "providers":
            await self._find_in_region(call)

    async def _admit(self, call: Call) -> Any:
        if call.actor.kind != "service" and not call.is_admitted:
            await self.limit(call.tenant, call.actor)
            effects.check_key(call.idempotency_key)
        request = call.request
        if request is None:
            request, call.metadata = call.action.decode(call.body)
        await self._authorise(call)
        return request

    async def limit(self, tenant: str, actor: Actor | None = None) -> None:
        """Take one unit of the rate limit of the actor's key, if it has one, and of the tenant's rate limit and quota.

        Raises:
            ProviderError: ``rate_limited``, ``quota_exhausted``.
        """
        if actor is not None and actor.rate is not None:
            await self._limit_key(self.key_bucket(actor, actor.rate), actor.key)
        bucket = self.known_bucket(tenant) or await self.tenant_bucket(tenant)
        wait = bucket.take()
        if not wait and self.rates is not None:  # the bucket of this process alone may be right; together they are more
            wait = await self.rates.take(tenant, bucket.settings)
        if wait:
            raise ProviderError(ErrorCode.RATE_LIMITED, "The tenant's rate limit is reached.", retry_after_seconds=wait)
        await self._quotas.reserve(tenant)

    async def _limit_key(self, bucket: TokenBucket, key: str) -> None:
        wait = bucket.take()
        if not wait and self.key_rates is not None:
            wait = await self.key_rates.take(key, bucket.settings)
        if wait:
            message = "The rate limit of the API key is reached."
            raise ProviderError(ErrorCode.RATE_LIMITED, message, retry_after_seconds=wait)

    def key_bucket(self, actor: Actor, rate: Rate) -> TokenBucket:
        """Return the rate limit of the key with which ``actor`` came."""
        found = self._key_buckets.get(actor.key)
        if found is None or found.settings != rate:
            if len(self._key_buckets) >= MAX_BUCKETS:
                self._key_buckets.pop(next(iter(self._key_buckets)))
            found = self._key_buckets[actor.key] = TokenBucket(rate)
        return found

    def known_bucket(self, tenant: str) -> TokenBucket | None:
        """Return the rate limit of ``tenant`` without waiting, or None when it must be read anew."""
        found = self._tenant_buckets.get(tenant)
        return found[1] if found is not None and found[0] > time.monotonic() else None

    async def tenant_bucket(self, tenant: str) -> TokenBucket:
        """Return the rate limit of ``tenant``, read anew from its settings every few seconds."""
        rate = effects.tenant_rate(await self._connections.tenant_policy(tenant))
        found = self._tenant_buckets.get(tenant)
        if found is None and len(self._tenant_buckets) >= MAX_BUCKETS:
            self._tenant_buckets.pop(next(iter(self._tenant_buckets)))
        bucket = found[1] if found is not None and found[1].settings == rate else TokenBucket(rate)
        self._tenant_buckets[tenant] = (time.monotonic() + TENANT_FRESH_SECONDS, bucket)
        return bucket

    async def _authorise(self, call: Call) -> None:
        action = call.action
        question = question_of(call)
        decision = self._policy.known(question) or await self._policy.decide(question)
        if not decision.allow or (action.internal and call.actor.kind != "service"):
            reason = decision.reason if not decision.allow else "the action is internal"
            self._journal.note(effects.refusal(call, reason))
            raise ProviderError(ErrorCode.PERMISSION_DENIED, f"{action.ref} is not allowed: {reason}.")
        if call.actor.elevation and not action.is_effectful:
            self._journal.note(effects.elevated_read(call))

    # -- run -------------------------------------------------------------------------------------

    async def plan(self, call: Call) -> Plan:
        """Return the plan of a call, within its deadline.

        Raises:
            OutOfRegionError: the call must not reach the connection.
        """
        plan = self.plans.known(call.tenant, call.action, call.provider, call.connection)
        if plan is not None:
            if plan.region:
                await residency.stay(call, plan.region, self._policy, self._journal)
            return plan
        if call.action.area == "providers":
            await self._find_in_region(call)
        limit = asyncio.timeout(None if call.timeout_seconds is None else call.deadline - time.monotonic())
        try:
            async with limit:
                return await self.plans.find(call.tenant, call.action, call.provider, call.connection)
        except TimeoutError as error:
            if not limit.expired():
                raise
            message = "The connection did not open before the call's deadline."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0) from error

    async def _find_in_region(self, call: Call) -> None:
        """Pass when there is the connection and the call may reach it: before it is opened."""
        found = await self.plans.connection(call.tenant, call.action.group, call.provider, call.connection)
        if found.region:
            await residency.stay(call, found.region, self._policy, self._journal)

    def context(self, call: Call, plan: Plan, *, streaming: bool = False) -> CallContext:
        """Return what the method of ``plan`` is given."""
        patience = plan.policy.timeout_seconds if call.patience_seconds is None else call.patience_seconds
        deadline = math.inf if streaming else min(time.monotonic() + patience, call.deadline)
        context = call.context = CallContext(
            tenant=call.tenant,
            actor=call.actor,
            request_id=call.request_id,
            deadline=deadline,
            connection=call.connection,
            idempotency_key=call.idempotency_key,
            traceparent=call.traceparent,
            metadata=call.metadata,
        )
        if call.on_report is not None:
            context.on_report = call.on_report
        if call.action.area == "services":
            from erp.runtime.service_calls import equip

            equip(context, self, self._journal, call.action.group)
        return context

    async def route(self, call: Call) -> LiveRoute:
        """Return the route that a call names.

        Raises:
            ProviderError: ``not_found``.
        """
        found = await self.routes.find(call.tenant, call.action.group, call.provider)
        if found is None:
            message = (
                f"There is no route named {call.provider[:100]!r} in the domain {call.action.group}. "
                f"GET /routes lists yours; PUT /routes/{call.action.group}/{call.provider[:100]} makes one."
            )
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return found

    async def _run(self, call: Call, request: Any, attempt: Attempt) -> Any:
        if call.is_routed:
            return await self._routed.run(await self.route(call), call, request, attempt)
        plan = attempt.plan = await self.plan(call)
        context = attempt.context = self.context(call, plan)
        return await execution.run(plan, request, context)

    async def _read(self, call: Call, request: Any) -> Answer:
        attempt = Attempt()
        result = await self._run(call, request, attempt)
        if attempt.context is not None and attempt.context.emitted:
            await self._journal.complete(effects.completion(call, attempt.context, None, b""))
        return attempt.answer(_encode(result), result)

    async def _effectful(self, call: Call, request: Any) -> Answer:
        if call.idempotency_key is None:
            return await self._run_effect(call, request, None)
        reentrant = await self._is_repeatable(call)
        claim = effects.claim(call, _encode(request), reentrant=reentrant, window_seconds=self._window_seconds)
        outcome = await self._journal.claim(claim)
        if outcome.state == "won":
            return await self._run_effect(call, request, claim, is_second_run=outcome.is_second_run)
        return effects.settled(call, outcome)

    async def _is_repeatable(self, call: Call) -> bool:
        if call.is_routed:
            return is_repeatable(await self.route(call), call.action, self.plans.catalog)
        return self.plans.is_repeatable(call.action, call.provider)

    async def _run_effect(
        self, call: Call, request: Any, claim: Claim | None, *, is_second_run: bool = False
    ) -> Answer:
        attempt = Attempt()
        try:
            result = await self._run(call, request, attempt)
            data = _encode(result)
        except BaseException as error:
            if attempt.plan is None:
                await self._give_back(call, claim, error, is_second_run=is_second_run)
            else:
                await self._complete_failed(call, claim, attempt, error, is_second_run=is_second_run)
            raise
        assert attempt.context is not None  # noqa: S101  (there is a result)
        await self._journal.complete(effects.completion(call, attempt.context, claim, data))
        return attempt.answer(data, result)

    async def _give_back(self, call: Call, claim: Claim | None, error: BaseException, *, is_second_run: bool) -> None:
        """Nothing was tried: free the key and record the refusal."""
        code = (error if isinstance(error, ProviderError) else effects.unforeseen(error)).code.value
        await asyncio.shield(self._journal.complete(effects.gave_back(call, claim, code, is_second_run=is_second_run)))

    async def _complete_failed(
        self, call: Call, claim: Claim | None, attempt: Attempt, error: BaseException, *, is_second_run: bool
    ) -> None:
        failure = error if isinstance(error, ProviderError) else effects.unforeseen(error)
        doubted = effects.of_a_second_run(failure) if is_second_run else failure
        may_repeat = doubted is failure and attempt.may_repeat
        in_doubt = is_second_run or attempt.may_have_happened(failure)
        ended = effects.failed(call, claim, doubted, may_repeat=may_repeat, is_second_run=in_doubt)
        await asyncio.shield(self._journal.complete(ended))
        if doubted is not failure:
            raise doubted from error
