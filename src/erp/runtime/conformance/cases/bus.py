"""Events by topic."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

DATA: tuple[Any, ...] = (None, 0, "", "ünïcödé \U0001f98a", [], {"a": [1, {"b": None}]}, "x" * 200_000)


def _event(number: int | str, **more: Any) -> dict[str, Any]:
    return {"id": f"e-{number}", "source": "/conformance", "type": "sample", **more}


async def _publish(
    bench: Bench, topic: str, *numbers: int | str, key: str | None = None, tenant: str = ALPHA
) -> list[str]:
    """Publish one event for each number; return their positions."""
    keyed = {} if key is None else {"key": key}
    answers = [
        await bench.call("publish", {"topic": topic, "event": _event(number), **keyed}, tenant=tenant)
        for number in numbers
    ]
    return [answer["position"] for answer in answers]


async def _pull(bench: Bench, topic: str, group: str = "g", *, tenant: str = ALPHA, **more: Any) -> list[Any]:
    params = {"topic": topic, "group": group, **more}
    found: list[Any] = (await bench.call("pull", params, tenant=tenant))["deliveries"]
    return found


def _ids(deliveries: list[Any]) -> list[str]:
    return [delivery["event"]["id"] for delivery in deliveries]


async def _ack(bench: Bench, deliveries: list[Any]) -> int:
    params = {"ack_ids": [delivery["ack_id"] for delivery in deliveries]}
    count: int = (await bench.call("ack", params))["acknowledged"]
    return count


@case("BUS-01")
async def an_event_arrives_as_it_was_published(bench: Bench) -> None:
    """``pull`` MUST deliver every attribute, extension and datum of a CloudEvent as ``publish`` was given it.

    A bus MAY add the time of publication to an event without one.
    """
    topic = bench.unique("topic")
    full = {
        "subject": "SKU-1",
        "time": "2026-01-02T03:04:05.123456Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:example:schema",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "extensions": {"tenantregion": "eu"},
    }
    events = [_event(number, data=data) for number, data in enumerate(DATA)] + [_event("full", **full), _event("bare")]
    for event in events:
        await bench.call("publish", {"topic": topic, "event": event})
    deliveries = await _pull(bench, topic)
    for sent, delivery in zip(events, deliveries, strict=True):
        got = dict(delivery["event"])
        require(got.pop("specversion", "1.0") == "1.0", "the specversion is not 1.0")
        time = got.pop("time", None)
        same_time = "time" not in sent or _moment(time) == _moment(sent["time"])
        rest = {name: value for name, value in sent.items() if name != "time"}
        require(same_time and got == rest, f"sent {str(sent)[:200]}, got {str(got)[:200]}")


def _moment(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


@case("BUS-02")
async def each_group_receives_every_event(bench: Bench) -> None:
    """Every group MUST receive every event of a topic, and of no other topic."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1, 2, 3)
    await _publish(bench, f"{topic}.more", 4)
    for group in ("first", "second"):
        found = _ids(await _pull(bench, topic, group))
        require(found == ["e-1", "e-2", "e-3"], f"group {group} received {found}")


@case("BUS-03")
async def consumers_of_a_group_share_its_events(bench: Bench) -> None:
    """An event that was delivered to one consumer of a group MUST NOT be delivered to another while it is visible to the first."""
    topic = bench.unique("topic")
    await _publish(bench, topic, *range(40))
    pulls = await asyncio.gather(*(_pull(bench, topic, max_events=10) for _ in range(6)))
    found = [event for deliveries in pulls for event in _ids(deliveries)]
    require(len(found) == len(set(found)), "an event was delivered to two consumers")
    require(len(found) == 40, f"{len(found)} of 40 events were delivered")  # noqa: PLR2004  (as published)


@case("BUS-04")
async def what_is_acknowledged_does_not_come_back(bench: Bench) -> None:
    """An acknowledged event MUST NOT be delivered to its group again; ``ack`` answers how many it confirmed."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1, 2)
    deliveries = await _pull(bench, topic, visibility_seconds=0.05)
    require(await _ack(bench, deliveries) == 2, "ack confirmed another number")  # noqa: PLR2004  (as published)
    require(await _ack(bench, deliveries) == 0, "ack confirmed them twice")
    await asyncio.sleep(0.1)
    require(await _pull(bench, topic) == [], "an acknowledged event came back")


@case("BUS-05", timed=True)
async def what_is_not_acknowledged_comes_back(bench: Bench) -> None:
    """An event that is not acknowledged within its visibility MUST be delivered again, and counted."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    (first,) = await _pull(bench, topic, visibility_seconds=0.1)
    require(await _pull(bench, topic) == [], "it was delivered again while it was visible")
    await asyncio.sleep(0.15)
    again = await _pull(bench, topic)
    require(_ids(again) == ["e-1"], f"after its visibility {_ids(again)} was delivered")
    require((first["delivery"], again[0]["delivery"]) == (1, 2), "deliveries are not counted")


@case("BUS-06")
async def an_old_acknowledgement_confirms_nothing(bench: Bench) -> None:
    """An ``ack_id`` of a delivery that has been repeated MUST NOT confirm the newer one."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    first = await _pull(bench, topic, visibility_seconds=0.03)
    await asyncio.sleep(0.08)
    second = await _pull(bench, topic)
    require(_ids(second) == ["e-1"], "it did not come back")
    require(await _ack(bench, first) == 0, "the old acknowledgement was taken")
    require(await _ack(bench, second) == 1, "the new acknowledgement was not taken")


@case("BUS-07")
async def a_batch_is_published_whole_and_in_order(bench: Bench) -> None:
    """``publish_batch`` MUST publish all its events in their order and answer their positions in that order."""
    topic = bench.unique("topic")
    events = [{"event": _event(number)} for number in range(50)]
    published = (await bench.call("publish_batch", {"topic": topic, "events": events}))["published"]
    deliveries = await _pull(bench, topic)
    require(_ids(deliveries) == [f"e-{number}" for number in range(50)], "the order is another")
    require([one["position"] for one in published] == [one["position"] for one in deliveries], "positions differ")


@case("BUS-08")
async def a_pull_waits_for_the_first_event(bench: Bench) -> None:
    """With ``wait_seconds`` ``pull`` MUST answer as soon as an event is published, and nothing when none is."""
    topic = bench.unique("topic")
    waiting = asyncio.ensure_future(_pull(bench, topic, wait_seconds=10))
    await asyncio.sleep(0.05)
    require(not waiting.done(), "it did not wait")
    await _publish(bench, topic, 1)
    async with asyncio.timeout(5):
        require(_ids(await waiting) == ["e-1"], "it answered something else")
    require(await _pull(bench, topic, wait_seconds=0.05) == [], "it answered what is not there")


@case("BUS-09")
async def a_new_group_begins_where_it_says(bench: Bench) -> None:
    """A group that has never received MUST begin with the earliest event, or with ``start: new`` after its first pull."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    require(await _pull(bench, topic, "late", start="new") == [], "start: new delivered an older event")
    await _publish(bench, topic, 2)
    require(_ids(await _pull(bench, topic, "late", start="new")) == ["e-2"], "start: new lost a newer event")
    require(_ids(await _pull(bench, topic, "early")) == ["e-1", "e-2"], "the default is not earliest")


@case("BUS-10")
async def tenants_share_no_topics(bench: Bench) -> None:
    """No tenant MUST ever receive, acknowledge or see events of another, whatever topic and group it names."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    require(await _pull(bench, topic, tenant=BETA) == [], "another tenant received the event")
    (delivery,) = await _pull(bench, topic, visibility_seconds=0.05)
    answer = await bench.call("ack", {"ack_ids": [delivery["ack_id"]]}, tenant=BETA)
    require(answer["acknowledged"] == 0, "another tenant acknowledged the event")
    await asyncio.sleep(0.1)
    require(_ids(await _pull(bench, topic)) == ["e-1"], "another tenant's acknowledgement counted")


@case("BUS-11")
async def positions_grow(bench: Bench) -> None:
    """Positions of a topic MUST be different for every event and delivered in the order they were answered."""
    topic = bench.unique("topic")
    positions = await _publish(bench, topic, *range(20))
    require(len(set(positions)) == len(positions), "positions repeat")
    require(
        [one["position"] for one in await _pull(bench, topic)] == positions, "positions are delivered in another order"
    )


@case("BUS-12")
async def a_cancelled_pull_loses_nothing(bench: Bench) -> None:
    """What a cancelled ``pull`` had taken MUST be delivered again; nothing is lost."""
    topic = bench.unique("topic")
    for number in range(5):
        waiting = asyncio.ensure_future(_pull(bench, topic, wait_seconds=5, visibility_seconds=0.05))
        await asyncio.sleep(0.01)
        publishing = asyncio.ensure_future(_publish(bench, topic, number))
        await asyncio.sleep(number * 0.0005)
        waiting.cancel()
        await asyncio.gather(waiting, publishing, return_exceptions=True)
    await asyncio.sleep(0.1)
    found = set(_ids(await _pull(bench, topic)))
    received = {
        delivery["event"]["id"]
        for one in bench.recording.calls
        if one.action.name == "pull" and one.params.get("topic") == topic and one.result is not None
        for delivery in bench.decoded(one)["deliveries"]
    }
    require(found | received == {f"e-{number}" for number in range(5)}, f"only {sorted(found | received)} arrived")


@case("BUS-20", capability="deduplication")
async def an_event_is_published_once(bench: Bench) -> None:
    """Publishing an event id again MUST answer the first position and ``duplicate: true``, and deliver nothing more."""
    topic = bench.unique("topic")
    params = {"topic": topic, "event": _event(1, data="first")}
    first = await bench.equal("publish", params, {"duplicate": False})
    again = {"topic": topic, "event": _event(1, data="second")}
    await bench.equal("publish", again, {"duplicate": True, "position": first["position"]})
    batch = await bench.call("publish_batch", {"topic": topic, "events": [{"event": _event(1)}, {"event": _event(2)}]})
    require([one["duplicate"] for one in batch["published"]] == [True, False], "a batch does not deduplicate")
    deliveries = await _pull(bench, topic)
    require(_ids(deliveries) == ["e-1", "e-2"], f"delivered {_ids(deliveries)}")
    require(deliveries[0]["event"]["data"] == "first", "the repeated event replaced the first")


@case("BUS-21", capability="deduplication")
async def of_concurrent_publishers_one_publishes(bench: Bench) -> None:
    """Of concurrent ``publish`` with one event id exactly one MUST publish it. Another topic is another matter."""
    topic = bench.unique("topic")
    params = {"topic": topic, "event": _event(1)}
    answers = await asyncio.gather(*(bench.call("publish", params) for _ in range(20)))
    require(sum(not answer["duplicate"] for answer in answers) == 1, "several published it")
    require(len(await _pull(bench, topic)) == 1, "it is there several times")
    await bench.equal("publish", {**params, "topic": f"{topic}.other"}, {"duplicate": False})


@case("BUS-30", capability="ordering")
async def events_of_a_key_keep_their_order(bench: Bench) -> None:
    """Events with one key MUST be delivered in the order they were published; a later one not before an earlier is confirmed."""
    topic = bench.unique("topic")
    await _publish(bench, topic, "a1", "a2", key="a")
    await _publish(bench, topic, "b1", key="b")
    (first, *rest) = sorted(await _pull(bench, topic, max_events=1), key=lambda one: str(one["event"]["id"]))
    require(first["event"]["id"] == "e-a1" and not rest, "the first event is not the first")
    found = _ids(await _pull(bench, topic))
    require("e-a2" not in found, "a later event of the key came before the earlier one was confirmed")
    require("e-b1" in found, "an event of another key had to wait")
    await _ack(bench, [first])
    require(_ids(await _pull(bench, topic)) == ["e-a2"], "the next event of the key did not follow")


@case("BUS-31", capability="ordering", timed=True)
async def redelivery_keeps_the_order_of_a_key(bench: Bench) -> None:
    """After a delivery has lapsed the events of its key MUST come again in their order."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1, 2, 3, key="k")
    await _pull(bench, topic, visibility_seconds=0.05)
    await asyncio.sleep(0.1)
    seen = []
    for _ in range(6):
        deliveries = await _pull(bench, topic)
        seen += _ids(deliveries)
        if deliveries:
            await _ack(bench, deliveries)
    require(seen == ["e-1", "e-2", "e-3"], f"they came as {seen}")


@case("BUS-40", capability="negative_acknowledgement")
async def what_is_given_back_comes_again_at_once(bench: Bench) -> None:
    """``nack`` MUST make deliveries available again at once, count them, and answer how many were given back."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    (first,) = await _pull(bench, topic)
    await bench.equal("nack", {"ack_ids": [first["ack_id"]]}, {"returned": 1})
    (second,) = await _pull(bench, topic, wait_seconds=2)
    require(second["delivery"] == 2, f"delivery {second['delivery']}")  # noqa: PLR2004  (the second)
    await bench.equal("nack", {"ack_ids": [first["ack_id"]]}, {"returned": 0})


@case("BUS-41", capability="negative_acknowledgement", timed=True)
async def a_pause_is_kept(bench: Bench) -> None:
    """With ``delay_seconds`` what was given back MUST NOT be delivered before that time, and MUST be after it."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    (first,) = await _pull(bench, topic)
    await bench.call("nack", {"ack_ids": [first["ack_id"]], "delay_seconds": 0.2})
    require(await _pull(bench, topic) == [], "it was delivered during the pause")
    require(_ids(await _pull(bench, topic, wait_seconds=2)) == ["e-1"], "it was not delivered after the pause")


async def _dead(bench: Bench, topic: str, number: int = 1, group: str = "g") -> Any:
    """Publish an event and give it back until it is set aside; return its dead letter."""
    await _publish(bench, topic, number)
    for _ in range(1000):
        deliveries = await _pull(bench, topic, group)
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
    await _publish(bench, topic, 2)
    require(_ids(await _pull(bench, topic)) == ["e-2"], "it is in the way of the next")
    require(_ids(await _pull(bench, topic, "other")) == ["e-1", "e-2"], "another group has lost it")


@case("BUS-51", capability="dead_letters")
async def a_dead_letter_is_delivered_again_when_requeued(bench: Bench) -> None:
    """``requeue_dead_letters`` MUST deliver to the group again; an id that is not there is not counted."""
    topic = bench.unique("topic")
    letter = await _dead(bench, topic)
    await bench.equal("requeue_dead_letters", {"ids": [letter["id"], "no-such-letter"]}, {"requeued": 1})
    require((await bench.call("list_dead_letters", {"topic": topic}))["items"] == [], "it is still listed")
    deliveries = await _pull(bench, topic)
    require(_ids(deliveries) == ["e-1"], f"delivered {_ids(deliveries)}")
    require(await _ack(bench, deliveries) == 1, "it cannot be acknowledged")


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
    positions = await _publish(bench, topic, 1, 2, 3)
    for group in ("g", "other"):
        await _ack(bench, await _pull(bench, topic, group))
    await bench.call("replay", {"topic": topic, "group": "g", "from_position": positions[0]})
    require(_ids(await _pull(bench, topic)) == ["e-2", "e-3"], "it does not continue after the position")
    require(await _pull(bench, topic, "other") == [], "another group moved too")


@case("BUS-61", capability="replay")
async def a_group_goes_back_to_a_time(bench: Bench) -> None:
    """``replay`` from a time MUST deliver every event published since, and none before; a future time skips all."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    await asyncio.sleep(0.05)
    since = datetime.datetime.now(datetime.UTC)
    await asyncio.sleep(0.05)
    await _publish(bench, topic, 2)
    await _ack(bench, await _pull(bench, topic))
    await bench.call("replay", {"topic": topic, "group": "g", "from_time": since.isoformat()})
    require(_ids(await _pull(bench, topic)) == ["e-2"], "it does not begin at the time")
    ahead = since + datetime.timedelta(hours=1)
    await bench.call("replay", {"topic": topic, "group": "g", "from_time": ahead.isoformat()})
    require(await _pull(bench, topic) == [], "a time ahead delivers something")


@case("BUS-70", capability="subscription")
async def a_subscription_streams_old_and_new_events(bench: Bench) -> None:
    """``subscribe`` MUST stream what is there and then what is published, each to be acknowledged as if pulled."""
    topic = bench.unique("topic")
    await _publish(bench, topic, 1)
    async with asyncio.timeout(10), bench.stream("subscribe", {"topic": topic, "group": "g"}) as items:
        first = await anext(items)
        await _ack(bench, [first])
        await _publish(bench, topic, 2)
        second = await anext(items)
    require(_ids([first, second]) == ["e-1", "e-2"], f"streamed {_ids([first, second])}")
    require(await _ack(bench, [second]) == 1, "it cannot be acknowledged")
    require(await _pull(bench, topic) == [], "the stream left something behind")


@case("BUS-80", capability="lag")
async def lag_tells_what_is_waiting_and_what_is_open(bench: Bench) -> None:
    """``lag`` MUST tell how many events were never given to the group, and how many are not yet confirmed."""
    topic = bench.unique("topic")
    params = {"topic": topic, "group": "g"}
    await _publish(bench, topic, 1, 2, 3)
    await bench.equal("lag", params, {"waiting": 3, "unacknowledged": 0})
    deliveries = await _pull(bench, topic, max_events=2)
    answer = await bench.equal("lag", params, {"waiting": 1, "unacknowledged": 2})
    require(answer.get("oldest_seconds", -1) >= 0, "the age of the oldest is missing")
    await _ack(bench, deliveries + await _pull(bench, topic))
    answer = await bench.equal("lag", params, {"waiting": 0, "unacknowledged": 0})
    require("oldest_seconds" not in answer, "nothing is open, and the oldest has an age")
