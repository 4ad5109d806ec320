"""Events that are given back, set aside, replayed or behind."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.cases.bus import ack, ids, publish, pull
from erp.runtime.conformance.host import BETA


@case("BUS-40", capability="negative_acknowledgement")
async def what_is_given_back_comes_again_at_once(bench: Bench) -> None:
    """``nack`` MUST make deliveries available again at once, count them, and answer how many were given back."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    (first,) = await pull(bench, topic)
    await bench.equal("nack", {"ack_ids": [first["ack_id"]]}, {"returned": 1})
    (second,) = await pull(bench, topic, wait_seconds=2)
    require(second["delivery"] == 2, f"delivery {second['delivery']}")  # noqa: PLR2004  (the second)
    await bench.equal("nack", {"ack_ids": [first["ack_id"]]}, {"returned": 0})


@case("BUS-41", capability="negative_acknowledgement", timed=True)
async def a_pause_is_kept(bench: Bench) -> None:
    """With ``delay_seconds`` what was given back MUST NOT be delivered before that time, and MUST be after it."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    (first,) = await pull(bench, topic)
    await bench.call("nack", {"ack_ids": [first["ack_id"]], "delay_seconds": 0.2})
    require(await pull(bench, topic) == [], "it was delivered during the pause")
    require(ids(await pull(bench, topic, wait_seconds=2)) == ["e-1"], "it was not delivered after the pause")


async def _dead(bench: Bench, topic: str, number: int = 1, group: str = "g") -> Any:
    """Publish an event and give it back until it is set aside; return its dead letter."""
    await publish(bench, topic, number)
    for _ in range(1000):
        deliveries = await pull(bench, topic, group)
        if not deliveries:
            break
        await bench.call("nack", {"ack_ids": [one["ack_id"] for one in deliveries], "reason": "not today"})
    items = (await bench.call("list_dead_letters", {"topic": topic, "group": group}))["items"]
    return next(one for one in items if one["event"]["id"] == f"e-{number}")


@case("BUS-50", capability="dead_letters")
async def what_fails_too_often_is_set_aside(bench: Bench) -> None:
    """An event delivered too often MUST be set aside, listed with its facts, and no longer be in the way."""
    topic = bench.unique("topic")
    letter = await _dead(bench, topic)
    require(
        (letter["topic"], letter["group"]) == (topic, "g"), f"it is listed under {letter['topic']} {letter['group']}"
    )
    require(letter["deliveries"] >= 1, f"it counts {letter['deliveries']} deliveries")
    require(letter.get("reason") == "not today", f"its reason is {letter.get('reason')!r}")
    await publish(bench, topic, 2)
    require(ids(await pull(bench, topic)) == ["e-2"], "it is in the way of the next")
    require(ids(await pull(bench, topic, "other")) == ["e-1", "e-2"], "another group has lost it")


@case("BUS-51", capability="dead_letters")
async def a_dead_letter_is_delivered_again_when_requeued(bench: Bench) -> None:
    """``requeue_dead_letters`` MUST deliver to the group again; an id that is not there is not counted."""
    topic = bench.unique("topic")
    letter = await _dead(bench, topic)
    await bench.equal("requeue_dead_letters", {"ids": [letter["id"], "no-such-letter"]}, {"requeued": 1})
    require((await bench.call("list_dead_letters", {"topic": topic}))["items"] == [], "it is still listed")
    deliveries = await pull(bench, topic)
    require(ids(deliveries) == ["e-1"], f"delivered {ids(deliveries)}")
    require(await ack(bench, deliveries) == 1, "it cannot be acknowledged")


@case("BUS-52", capability="dead_letters")
async def a_discarded_dead_letter_is_gone(bench: Bench) -> None:
    """``discard_dead_letters`` MUST remove them for good, and no others; ids of another tenant are not counted."""
    topic = bench.unique("topic")
    first, second = await _dead(bench, topic, 1), await _dead(bench, topic, 2)
    foreign = await bench.call("discard_dead_letters", {"ids": [first["id"]]}, tenant=BETA)
    require(foreign["discarded"] == 0, "another tenant discarded it")
    await bench.equal("discard_dead_letters", {"ids": [first["id"]]}, {"discarded": 1})
    left = [one["id"] for one in (await bench.call("list_dead_letters", {"topic": topic}))["items"]]
    require(left == [second["id"]], f"left over: {len(left)}")
    await bench.equal("requeue_dead_letters", {"ids": [first["id"]]}, {"requeued": 0})


@case("BUS-53", capability="dead_letters")
async def a_dead_letter_is_announced(bench: Bench) -> None:
    """Setting an event aside MUST be announced by one event ``dead_lettered``."""
    topic = bench.unique("topic")
    await _dead(bench, topic)
    announced = [
        event.data
        for one in bench.recording.calls
        for event in one.emitted
        if event.name == "dead_lettered" and event.data["topic"] == topic
    ]
    require([one["event_id"] for one in announced] == ["e-1"], f"announced {announced}")


@case("BUS-60", capability="replay")
async def a_group_goes_back_to_a_position(bench: Bench) -> None:
    """``replay`` from a position MUST deliver what comes after it again, also what was acknowledged; other groups stay."""
    topic = bench.unique("topic")
    positions = await publish(bench, topic, 1, 2, 3)
    for group in ("g", "other"):
        await ack(bench, await pull(bench, topic, group))
    await bench.call("replay", {"topic": topic, "group": "g", "from_position": positions[0]})
    require(ids(await pull(bench, topic)) == ["e-2", "e-3"], "it does not continue after the position")
    require(await pull(bench, topic, "other") == [], "another group moved too")


@case("BUS-61", capability="replay")
async def a_group_goes_back_to_a_time(bench: Bench) -> None:
    """``replay`` from a time MUST deliver every event published since, and none before; a future time skips all."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    await asyncio.sleep(0.05)
    since = datetime.datetime.now(datetime.UTC)
    await asyncio.sleep(0.05)
    await publish(bench, topic, 2)
    await ack(bench, await pull(bench, topic))
    await bench.call("replay", {"topic": topic, "group": "g", "from_time": since.isoformat()})
    require(ids(await pull(bench, topic)) == ["e-2"], "it does not begin at the time")
    ahead = since + datetime.timedelta(hours=1)
    await bench.call("replay", {"topic": topic, "group": "g", "from_time": ahead.isoformat()})
    require(await pull(bench, topic) == [], "a time ahead delivers something")


@case("BUS-70", capability="subscription")
async def a_subscription_streams_old_and_new_events(bench: Bench) -> None:
    """``subscribe`` MUST stream what is there and then what is published, each to be acknowledged as if pulled."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    async with asyncio.timeout(10), bench.stream("subscribe", {"topic": topic, "group": "g"}) as items:
        first = await anext(items)
        await ack(bench, [first])
        await publish(bench, topic, 2)
        second = await anext(items)
    require(ids([first, second]) == ["e-1", "e-2"], f"streamed {ids([first, second])}")
    require(await ack(bench, [second]) == 1, "it cannot be acknowledged")
    require(await pull(bench, topic) == [], "the stream left something behind")


@case("BUS-80", capability="lag")
async def lag_tells_what_is_waiting_and_what_is_open(bench: Bench) -> None:
    """``lag`` MUST tell how many events were never given to the group, and how many are not yet confirmed."""
    topic = bench.unique("topic")
    params = {"topic": topic, "group": "g"}
    await publish(bench, topic, 1, 2, 3)
    await bench.equal("lag", params, {"waiting": 3, "unacknowledged": 0})
    deliveries = await pull(bench, topic, max_events=2)
    answer = await bench.equal("lag", params, {"waiting": 1, "unacknowledged": 2})
    require(answer.get("oldest_seconds", -1) >= 0, "the age of the oldest is missing")
    await ack(bench, deliveries + await pull(bench, topic))
    answer = await bench.equal("lag", params, {"waiting": 0, "unacknowledged": 0})
    require("oldest_seconds" not in answer, "nothing is open, and the oldest has an age")
