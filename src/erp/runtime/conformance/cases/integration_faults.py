"""A peer that fails: every answer becomes a code of the closed list, and the next call works."""

from __future__ import annotations

import asyncio
import time

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.peers import API, Reply
from erp.runtime.conformance.stock import Stock

REFUSALS = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    409: "conflict",
    422: "invalid_argument",
}
DEADLINE_SECONDS = 0.8
LATE_SECONDS = 1.0
GARBAGE = {
    "no JSON": b"<html>maintenance</html>",
    "half of it": b'{"items": [{"sku"',
    "no UTF-8": b'{"items": "\xff\xfe"}',
    "nothing": b"",
    "another shape": b'{"items": {"sku": 1}}',
    "null": b"null",
    "deep": b"[" * 100_000,
}


@case("INT-40", capability="sync", needs="peer")
async def refusals_of_the_peer_have_their_codes(bench: Bench) -> None:
    """What the peer refuses MUST be answered with the code of its status: 401 ``unauthenticated``, 409 ``conflict`` ..."""
    stock = Stock(bench)
    for status, code in REFUSALS.items():
        bench.peer.instead(API, Reply.of(status, {"error": "because"}))
        await bench.refused(code, "sync", {"object": stock.object, "start": "beginning"})
    await stock.page(start="beginning")


@case("INT-41", capability="sync", needs="peer")
async def a_limit_of_the_peer_is_passed_on(bench: Bench) -> None:
    """429 MUST be ``rate_limited`` and retryable, with the time the peer asks to wait (``Retry-After``)."""
    stock = Stock(bench)
    bench.peer.instead(API, Reply.of(429, retry_after="7"))
    error = await bench.refused("rate_limited", "sync", {"object": stock.object, "start": "beginning"})
    require(error.retryable and error.retry_after_seconds == 7.0, f"wait {error.retry_after_seconds} s")  # noqa: PLR2004
    await stock.page(start="beginning")


@case("INT-42", capability="sync", needs="peer")
async def a_peer_that_fails_is_unavailable(bench: Bench) -> None:
    """5xx and a connection that is closed without an answer MUST be ``unavailable`` to a reading call, and retryable."""
    stock = Stock(bench)
    replies = [Reply.of(status) for status in (500, 502, 503, 504, 599)]
    for reply in (*replies, Reply(hangs_up=True), Reply.of(200, {"items": []}).cut()):
        bench.peer.instead(API, reply)
        error = await bench.refused("unavailable", "sync", {"object": stock.object, "start": "beginning"})
        require(error.retryable, f"{reply.status} is answered as if it could not be tried again")
    await stock.page(start="beginning")


@case("INT-43", capability="sync", needs="peer")
async def garbage_is_the_peers_fault(bench: Bench) -> None:
    """An answer that cannot be understood MUST be ``unavailable`` or ``failed_precondition``, never ``internal``."""
    stock = Stock(bench)
    for what, body in GARBAGE.items():
        bench.peer.instead(API, Reply(200, {"content-type": "application/json"}, body))
        try:
            await stock.page(start="beginning")
        except Exception as error:  # noqa: BLE001  (what it is, is looked at)
            code = getattr(error, "code", None)
            require(code in {"unavailable", "failed_precondition"}, f"{what} is answered {code}: {error}")
            continue
        require(False, f"{what} is answered as if it were a list")  # noqa: FBT003  (always fails)
    await stock.page(start="beginning")


@case("INT-44", capability="sync", needs="peer", timed=True)
async def a_slow_peer_costs_no_more_than_the_deadline(bench: Bench) -> None:
    """When the peer does not answer the call MUST end at its deadline, as ``timeout`` or ``unavailable``."""
    stock = Stock(bench)
    await stock.page(start="beginning")
    bench.peer.instead(API, Reply.of(200).late(5.0))
    started = time.monotonic()
    try:
        await bench.call("sync", {"object": stock.object, "start": "beginning"}, seconds=DEADLINE_SECONDS)
    except Exception as error:  # noqa: BLE001  (what it is, is looked at)
        code = getattr(error, "code", None)
        require(code in {"timeout", "unavailable"}, f"it is answered {code}: {error}")
    took = time.monotonic() - started
    require(took < DEADLINE_SECONDS + LATE_SECONDS, f"a call with {DEADLINE_SECONDS} s took {took:.2f} s")
    await stock.page(start="beginning")


@case("INT-45", capability="fetch", needs="peer")
async def a_lost_answer_to_a_write_is_unknown(bench: Bench) -> None:
    """When the answer to a write is lost its outcome MUST be ``unknown``, and ``fetch`` MUST tell what happened."""
    stock = Stock(bench)
    [name] = stock.named(1)
    await stock.put(name, text="before")
    changed = stock.params([stock.record(name, "after")])
    bench.peer.instead(API, None, Reply(hangs_up=True))
    await bench.refused("outcome_unknown", "upsert", changed)
    bench.peer.instead(API, None, Reply(hangs_up=True))
    answer = await bench.call("upsert", {**changed, "report_failures": True})
    [outcome] = answer["outcomes"]
    require((outcome["status"], answer["failed"]) == ("unknown", 1), f"the outcome is {outcome}")
    require(outcome["problem"]["code"] == "outcome_unknown", f"the problem is {outcome['problem']}")
    require(await stock.texts(name) == ["before"], "fetch does not tell")
    await stock.put(name, text="after")
    require(await stock.texts(name) == ["after"], "repeating did not help")


@case("INT-46", capability="upsert", needs="peer")
async def what_is_not_tried_is_said_to_have_failed(bench: Bench) -> None:
    """When the peer lets nobody in any more the records before MUST have taken effect, and the others MUST be named."""
    stock = Stock(bench)
    names = stock.named(5)
    await stock.put(*names[:2])
    asked = len(bench.peer.received)
    await stock.put(names[0])
    bench.peer.instead(API, *[None] * (len(bench.peer.received) - asked), *[Reply.of(401)] * 20)
    records = [stock.record(name, "after") for name in (names[1], *names[2:])]
    answer = await bench.call("upsert", stock.params(records, report_failures=True))
    statuses = [one["status"] for one in answer["outcomes"]]
    require((statuses, answer["failed"]) == (["updated", *["failed"] * 3], 3), f"the outcomes are {statuses}")
    codes = {one["problem"]["code"] for one in answer["outcomes"][1:]}
    require(codes <= {"unauthenticated", "unavailable"}, f"the problems are {codes}")
    bench.peer.forgive()
    require(await stock.texts(*names[1:]) == ["after", None, None, None], "the effects are others")


@case("INT-47", capability="sync", needs="peer")
async def credentials_go_nowhere_else(bench: Bench) -> None:
    """A redirect MUST NOT be followed, nor a link to another origin: the credentials are the peer's alone."""
    stock = Stock(bench)
    other = bench.host.peers.site()
    for status in (301, 302, 303, 307, 308):
        bench.peer.instead(API, Reply.of(status, location=f"{other.address}{API}/products"))
        await bench.refused("failed_precondition", "sync", {"object": stock.object, "start": "beginning"})
    bench.host.peers.forget(other)
    require(not other.received, f"another site was sent {[dict(one.headers) for one in other.received]}")
    await stock.page(start="beginning")


@case("INT-48", capability="sync", needs="peer")
async def one_failing_call_does_not_disturb_the_others(bench: Bench) -> None:
    """While one call waits for a slow answer others MUST be served."""
    stock = Stock(bench)
    await stock.page(start="beginning")
    bench.peer.instead(API, Reply.of(200, {"items": []}).late(1.0))
    slow = asyncio.ensure_future(stock.page(start="beginning"))

    async def is_waiting() -> bool:
        return len(bench.peer.received) > 1

    await bench.eventually(is_waiting, "the slow call reached the peer")
    await asyncio.gather(*(stock.page(start="beginning") for _ in range(5)))
    require(not slow.done(), "the others had to wait for the slow call")
    await slow
