"""What holds for every call, whatever the domain."""

from __future__ import annotations

import asyncio
import inspect
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.dialect import COMMON_ERRORS
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.action import field_errors, validator
from erp.runtime.call import Call
from erp.runtime.conformance.bench import Bench, Recorded, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA
from erp.runtime.context import Actor

if TYPE_CHECKING:
    from erp.runtime.action import Action

CONCURRENT = 200
LATE_SECONDS = 1.0


@case("CALL-01", timed=True)
async def the_deadline_is_kept(bench: Bench) -> None:
    """A call MUST end soon after its deadline (1 s), and the next call MUST work."""
    await bench.call(*bench.sample())
    for seconds in (0.05, 0.001):
        started = time.monotonic()
        try:
            await bench.call(*bench.sample(), seconds=seconds)
        except ProviderError as error:
            late = {ErrorCode.TIMEOUT, ErrorCode.OUTCOME_UNKNOWN, ErrorCode.UNAVAILABLE}
            require(error.code in late, f"a call past its deadline was answered {error.code}")
        took = time.monotonic() - started
        require(took < seconds + LATE_SECONDS, f"a call with {seconds} s took {took:.2f} s")
    await bench.call(*bench.sample())


@case("CALL-02")
async def two_hundred_calls_at_once_each_get_their_own_answer(bench: Bench) -> None:
    """Two hundred concurrent calls MUST all be answered, each with what it has asked for and not with another's."""
    answers = await asyncio.gather(*(_echoed(bench) for _ in range(CONCURRENT)), return_exceptions=True)
    failed = [str(answer) for answer in answers if isinstance(answer, BaseException)]
    require(not failed, f"{len(failed)} of {CONCURRENT} failed, the first: {failed[:1]}")


async def _echoed(bench: Bench) -> None:
    for action, params, expected in bench.echo():
        await bench.equal(action, params, expected)


@case("CALL-03", last=True)
async def every_result_matches_its_schema(bench: Bench) -> None:
    """Every result MUST match the result schema of its action."""
    _none(
        f"{one.action.ref} answered {error.pointer or 'a result'}: {error.message}"
        for one in bench.recording.calls
        if one.result is not None
        for error in field_errors(_result_checker(one.action), msgspec.json.decode(one.result))
    )


@case("CALL-04", last=True)
async def every_error_is_one_the_action_may_answer(bench: Bench) -> None:
    """Every refusal MUST carry a code of the closed list that the action may answer, and never ``internal``."""
    _none(
        f"{one.action.ref} was refused with {one.error.code}: {one.error} ({one.error.detail or ''})"
        for one in bench.recording.calls
        if one.error is not None and one.error.code not in _allowed(one.action)
    )


def _allowed(action: Action) -> set[str]:
    return {*COMMON_ERRORS, "not_found", *action.contract.get("errors", [])} - {"internal"}


@case("CALL-05", last=True)
async def every_event_matches_its_schema(bench: Bench) -> None:
    """Every event that is emitted MUST be one of the contract's and match its payload schema."""
    known = bench.host.catalog.domains[bench.domain].get("events") or {}
    _none(
        problem
        for one in bench.recording.calls
        for event in one.emitted
        for problem in _event_problems(known, event.name, event.data)
    )


def _event_problems(known: Any, name: str, data: Any) -> list[str]:
    if name not in known:
        return [f"the event {name!r} is not in the contract"]
    document = msgspec.json.decode(msgspec.json.encode(data))
    errors = field_errors(validator(known[name]["payload"]), document)
    return [f"the event {name}{error.pointer}: {error.message}" for error in errors]


@case("CALL-06", last=True)
async def every_action_offered_has_been_proven(bench: Bench) -> None:
    """Every action a provider offers MUST have been answered by it at least once in the suite."""
    answered = {one.action.name for one in bench.recording.calls if one.result is not None}
    missing = [one.name for one in bench.host.catalog.actions_of(bench.manifest) if one.name not in answered]
    require(not missing, f"never answered: {', '.join(missing)}")


@case("CALL-07")
async def what_is_not_declared_is_refused(bench: Bench) -> None:
    """Actions of a capability that is not declared MUST be refused with ``unsupported``."""
    await bench.connected()
    declared = set(bench.manifest.capabilities)
    for name, contract in bench.host.catalog.domains[bench.domain]["actions"].items():
        if contract.get("capability") not in {None, *declared}:
            await _unsupported(bench, bench.action(name))


async def _unsupported(bench: Bench, action: Action) -> None:
    actor = Actor(id="key_alpha", tenant=ALPHA, roles=frozenset({"service"}), kind="service")
    call = Call(
        action=action,
        actor=actor,
        provider=bench.manifest.name,
        connection=bench.connection,
        request=msgspec.Raw(b"{}"),
        request_id="r",
    )
    try:
        await _ended(bench, call)
    except ProviderError as error:
        require(error.code is ErrorCode.UNSUPPORTED, f"{action.ref} was refused with {error.code}, not unsupported")
        return
    require(False, f"{action.ref} needs {action.capability}, which is not declared, and was answered")  # noqa: FBT003


async def _ended(bench: Bench, call: Call) -> None:
    if not call.action.streaming:
        await bench.host.calls.invoke(call)
        return
    items = await bench.host.calls.stream(call)
    await items.aclose()


@case("CALL-08")
async def methods_and_manifest_agree(bench: Bench) -> None:
    """The class MUST have exactly one coroutine method ``(request, context)`` for each action it offers.

    A streaming action is an async generator; an action of an undeclared capability has no method.
    """
    provider = bench.host.pool.load(bench.manifest)
    offered = {one.name: one for one in bench.host.catalog.actions_of(bench.manifest)}
    for name in bench.host.catalog.domains[bench.domain]["actions"]:
        method = inspect.getattr_static(provider, name, None)
        if name not in offered:
            require(method is None, f"{name} exists, and its capability is not declared")
            continue
        is_right = inspect.isasyncgenfunction if offered[name].streaming else inspect.iscoroutinefunction
        require(method is not None and is_right(method), f"{name} is missing or not asynchronous")
        count = len(inspect.signature(getattr(provider, name)).parameters)
        require(count == 3, f"{name} takes {count - 1} arguments, not (request, context)")  # noqa: PLR2004


@case("CALL-09")
async def errors_are_translated_by_a_table(bench: Bench) -> None:
    """``translate`` MUST map exception types to codes of the closed list."""
    table = getattr(bench.host.pool.load(bench.manifest), "translate", None)
    require(table is not None, "the class has no table ``translate``")
    for kind, code in dict(table or {}).items():
        require(isinstance(kind, type) and issubclass(kind, BaseException), f"{kind!r} is no exception type")
        require(code in set(ErrorCode), f"{code!r} is no error code")


@cache
def _result_checker(action: Action) -> Any:
    return validator(action.contract["result"])


def _none(problems: Any) -> None:
    found = list(dict.fromkeys(problems))
    require(not found, f"{len(found)} found; the first: {found[:3]}")


def recorded_texts(one: Recorded) -> list[str]:
    """What a caller could have seen of a call."""
    texts = [one.result.decode()] if one.result is not None else []
    if one.error is not None:
        texts += [str(one.error), one.error.detail or "", *(error.message for error in one.error.errors)]
    return texts
