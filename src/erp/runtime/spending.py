"""What a call may use, and what it has used: requests, bytes, tokens, money."""

from __future__ import annotations

import decimal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from erp.errors import ProviderError
from erp.runtime.effects import may_have_happened

if TYPE_CHECKING:
    from erp.runtime.call import Answer, Call

SMALLEST_ANSWER = 1024
"""Bytes that an answer is expected to have before one was seen."""
WRITTEN_TOKENS = 4096
"""Tokens that a model may write when the call sets no limit."""
SENTENCES = 3
"""Of a summary when the call sets no limit (contract ``ai``, ``generate``)."""
REMEMBERED = 10_000
MILLION = 1_000_000
_NO_MINOR_UNIT = frozenset(
    [
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "ISK",
        "JPY",
        "KMF",
        "KRW",
        "PYG",
        "RWF",
        "UGX",
        "UYI",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    ]
)
_THREE_DIGITS = frozenset(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"])
_encode = msgspec.json.Encoder(decimal_format="string").encode


def minor_millionths(amount: decimal.Decimal, currency: str) -> int:
    """Return ``amount`` in millionths of the minor unit of ``currency`` (ISO 4217), rounded up."""
    digits = 0 if currency in _NO_MINOR_UNIT else 3 if currency in _THREE_DIGITS else 2
    return int((amount.scaleb(digits) * MILLION).to_integral_value(decimal.ROUND_CEILING))


class Held(Protocol):
    """What one call has reserved."""

    def includes(self, unit: str) -> bool:
        """Whether a limit of ``unit`` concerns the call."""


class Budgets(Protocol):
    """Limits by scope and unit. A unit is ``requests``, ``bytes``, ``tokens`` or ``money:CURRENCY``; ``money`` stands for currencies not named.

    Money is counted in millionths of the currency's minor unit, because prices are fractions of it.
    """

    def are_absent(self, tenant: str) -> bool:
        """Whether this process knows, without asking anybody, that ``tenant`` has none."""

    async def reserve(self, tenant: str, scopes: Sequence[str], units: Mapping[str, int]) -> Held | None:
        """Hold ``units`` of every limit of ``scopes``, or of none; None when there is none.

        Raises:
            ProviderError: ``quota_exhausted`` with the seconds until the period ends.
        """

    def settle(self, held: Any, units: Mapping[str, int]) -> None:
        """Put what was used in the place of what ``reserve`` has held; it is written soon."""


class Allowance(Protocol):
    """What one call may use, and what becomes of it."""

    def received(self, size: int, result: Any) -> None:
        """Count a part of the answer; the last one may tell what the call has used."""

    def answered(self) -> None:
        """Count what the answer tells instead of what was expected."""

    def failed(self, error: ProviderError) -> None:
        """Count only what was sent when the call certainly changed nothing; else what was expected."""

    def settle(self) -> None:
        """Put what was used in the place of what was reserved."""


class _Unlimited:
    """The allowance of a call that no limit concerns."""

    def received(self, size: int, result: Any) -> None:
        pass

    def answered(self) -> None:
        pass

    def failed(self, error: ProviderError) -> None:
        pass

    def settle(self) -> None:
        pass


UNLIMITED: Allowance = _Unlimited()


class _Reserved:
    """The allowance of a call that limits concern."""

    def __init__(self, spending: Spending, call: Call, held: Held, estimate: Mapping[str, int], sent: int) -> None:
        self._spending = spending
        self._call = call
        self._held = held
        self._sent = sent
        self._used = estimate
        self._bytes = sent
        self._result: Any = None
        self._is_answered = False

    def received(self, size: int, result: Any) -> None:
        """Count a part of the answer; the last one may tell what the call has used."""
        self._bytes += size
        self._result = result

    def answered(self) -> None:
        """Count what the answer tells instead of what was expected."""
        self._is_answered = True

    def failed(self, error: ProviderError) -> None:
        """Count only what was sent when the call certainly changed nothing; else what was expected."""
        if not may_have_happened(error):
            self._used = {"bytes": self._sent}

    def settle(self) -> None:
        """Put what was used in the place of what was reserved."""
        if self._is_answered:
            self._used = self._spending.used(self._call, self._bytes, self._result)
        self._spending.budgets.settle(self._held, self._used)


class Spending:
    """Runs calls of tenants that have budgets."""

    def __init__(self, budgets: Budgets) -> None:
        self.budgets = budgets
        self._largest: dict[tuple[str, str], dict[str, int]] = {}

    def is_unlimited(self, tenant: str) -> bool:
        """Whether calls of ``tenant`` need nothing of this."""
        return self.budgets.are_absent(tenant)

    async def allow(self, call: Call, request: Any) -> tuple[Allowance, Any]:
        """Reserve what ``call`` may use; return that, and the request that uses no more.

        Raises:
            ProviderError: ``quota_exhausted``.
        """
        sent = len(call.body) or len(_encode(request))
        estimate = self._estimate(call, request, sent)
        held = await self.budgets.reserve(call.tenant, _scopes(call), estimate)
        if held is None:
            return UNLIMITED, request
        allowed = _bounded(request) if held.includes("tokens") else request
        return _Reserved(self, call, held, estimate, sent), allowed

    async def run(self, call: Call, request: Any, work: Callable[[Call, Any], Awaitable[Answer]]) -> Answer:
        """Return what ``work`` answers, within the budgets of the tenant.

        Raises:
            ProviderError: ``quota_exhausted`` before anything was tried; what ``work`` raises.
        """
        allowance, allowed = await self.allow(call, request)
        try:
            answer = await work(call, allowed)
            allowance.received(len(answer.data), None if answer.replayed else answer.result)
            allowance.answered()
        except ProviderError as error:
            allowance.failed(error)
            raise
        finally:
            allowance.settle()
        return answer

    def _estimate(self, call: Call, request: Any, sent: int) -> dict[str, int]:
        largest = self._largest.get((call.tenant, call.action.ref), {})
        found = {}
        if call.actor.kind != "service":
            found["bytes"] = sent + max(SMALLEST_ANSWER, largest.get("bytes", 0))
            if not call.is_admitted:
                found["requests"] = 1
        if call.action.group == "ai":
            found |= {"tokens": _tokens(request, sent), "money": MILLION}
            found |= {unit: units for unit, units in largest.items() if unit != "bytes"}
            most = getattr(getattr(request, "budget", None), "max_cost", None)
            if most:
                found[f"money:{most.currency}"] = minor_millionths(most.amount, most.currency)
        return found

    def used(self, call: Call, size: int, result: Any) -> dict[str, int]:
        """Return what a call with this answer has used; a service's bytes never leave the layer."""
        used = {} if call.actor.kind == "service" else {"bytes": size}
        usage = getattr(getattr(result, "answer", None) or result, "usage", None)
        if usage:
            used["tokens"] = usage.input_tokens + usage.output_tokens
            if usage.cost:
                used[f"money:{usage.cost.currency}"] = minor_millionths(usage.cost.amount, usage.cost.currency)
        self._learn(call, {unit: units for unit, units in used.items() if unit != "tokens"})
        return used

    def _learn(self, call: Call, used: Mapping[str, int]) -> None:
        """Remember the largest answer, so that the next reservation holds it."""
        key = (call.tenant, call.action.ref)
        known = self._largest.get(key)
        if known is None:
            if len(self._largest) >= REMEMBERED:
                self._largest.pop(next(iter(self._largest)))
            known = self._largest[key] = {}
        for unit, units in used.items():
            known[unit] = max(units, known.get(unit, 0))


def _scopes(call: Call) -> tuple[str, ...]:
    group = call.action.group
    own = (f"provider:{group}/{call.provider}",) if call.action.area == "providers" else ()
    return ("tenant", f"actor:{call.actor.id}", f"action:{call.action.ref}", *own)


def _tokens(request: Any, sent: int) -> int:
    """Return the most tokens that a call can use: no tokenizer makes more than one of each byte of text."""
    read: int = getattr(getattr(request, "budget", None), "max_input_tokens", None) or sent
    written = getattr(request, "max_output_tokens", None)
    return read if written is None else read + (written or WRITTEN_TOKENS)  # None: an action that writes nothing


def _bounded(request: Any) -> Any:
    """Return ``request`` with the limit on what the model writes that was reserved, when it sets none itself."""
    if getattr(request, "max_output_tokens", None) is not msgspec.UNSET:
        return request
    limits = {"max_output_tokens": WRITTEN_TOKENS}
    if getattr(request, "max_sentences", None) is msgspec.UNSET and request.task == "summarize":
        limits["max_sentences"] = SENTENCES
    return msgspec.structs.replace(request, **limits)


async def allowance_of(spending: Spending | None, call: Call, request: Any) -> tuple[Allowance, Any]:
    """Return what ``call`` may use, and the request that uses no more.

    Raises:
        ProviderError: ``quota_exhausted``.
    """
    if spending is None or spending.is_unlimited(call.tenant):
        return UNLIMITED, request
    return await spending.allow(call, request)
