"""Many records in one call: an outcome for each, and what they mean for the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from erp.contracts.models.integration import WriteOutcome
from erp.providers.integration.http_api.peer import MEANING
from erp.providers.integration.http_api.records import problem_of
from erp.runtime.spi import UNSET, CallContext, ErrorCode, FieldError, ProviderError, UnsetType

_HOPELESS = frozenset(
    {
        ErrorCode.UNAVAILABLE,
        ErrorCode.TIMEOUT,
        ErrorCode.RATE_LIMITED,
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.QUOTA_EXHAUSTED,
    }
)
"""Failures that the next record would only meet again."""
_ENOUGH_SECONDS = 1.0


async def each(
    records: Sequence[Any], write: Callable[[Any], Awaitable[WriteOutcome]], context: CallContext
) -> list[WriteOutcome]:
    """Write one record after the other; once it is hopeless or too late, the rest is not tried."""
    outcomes: list[WriteOutcome] = []
    stopped: ProviderError | None = None
    for record in records:
        if stopped is None and outcomes and context.remaining_seconds() < _ENOUGH_SECONDS:
            stopped = ProviderError(
                ErrorCode.UNAVAILABLE, "The time of the call was over before this record was tried."
            )
        if stopped is not None:
            outcomes.append(WriteOutcome(keys=record.keys, status="failed", problem=problem_of(stopped)))
            continue
        try:
            outcomes.append(await write(record))
        except ProviderError as error:
            failure = error
        except tuple(MEANING) as error:
            failure = ProviderError(MEANING[type(error)], str(error))
        else:
            continue
        outcomes.append(_failed(record.keys, failure))
        stopped = failure if failure.code in _HOPELESS else None
    return outcomes


def _failed(keys: dict[str, str], failure: ProviderError) -> WriteOutcome:
    is_unknown = failure.code is ErrorCode.OUTCOME_UNKNOWN
    return WriteOutcome(keys=keys, status="unknown" if is_unknown else "failed", problem=problem_of(failure))


def require_success(outcomes: Sequence[WriteOutcome]) -> int:
    """Return 0 when every record was written.

    Raises:
        ProviderError: ``outcome_unknown`` when one may have been, ``partial`` when others were, else the first failure's.
    """
    problems = [
        (number, outcome.problem)
        for number, outcome in enumerate(outcomes)
        if not isinstance(outcome.problem, UnsetType)
    ]
    if not problems:
        return 0
    errors = [FieldError(f"/params/records/{number}", f"{item.code}: {item.message}") for number, item in problems]
    if len(problems) < len(outcomes):
        message = f"{len(problems)} of {len(outcomes)} records were not written."
        raise ProviderError(ErrorCode.PARTIAL, message, errors=errors)
    first = problems[0][1]
    is_unknown = any(outcome.status == "unknown" for outcome in outcomes)
    code = ErrorCode.OUTCOME_UNKNOWN if is_unknown else ErrorCode(first.code)
    raise ProviderError(code, first.message, errors=errors)


def failed(outcomes: Sequence[WriteOutcome]) -> int:
    """How many were not written, or perhaps not."""
    return sum(outcome.problem is not UNSET for outcome in outcomes)
