"""Events by topic."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

DATA: tuple[Any, ...] = (None, 0, "", "ünïcödé \U0001f98a", [], {"a": [1, {"b": None}]}, "x" * 200_000)


def new_event(number: int | str, **more: Any) -> dict[str, Any]:
    """Return a small event with an id of its own."""
    return {"id": f"e-{number}", "source": "/conformance", "type": "sample", **more}


async def publish(
    bench: Bench, topic: str, *numbers: int | str, key: str | None = None, tenant: str = ALPHA
) -> list[str]:
    """Publish one event for each number; return their positions."""
    keyed = {} if key is None else {"key": key}
    answers = [
        await bench.call("publish", {"topic": topic, "event": new_event(number), **keyed}, tenant=tenant)
        for number in numbers
    ]
    return [answer["position"] for answer in answers]


async def pull(bench: Bench, topic: str, group: str = "g", *, tenant: str = ALPHA, **more: Any) -> list[Any]:
    """Return the deliveries of one ``pull``."""
    params = {"topic": topic, "group": group, **more}
    found: list[Any] = (await bench.call("pull", params, tenant=tenant))["deliveries"]
    return found


def ids(deliveries: list[Any]) -> list[str]:
    """Return the event ids of deliveries."""
    return [delivery["event"]["id"] for delivery in deliveries]


async def ack(bench: Bench, deliveries: list[Any]) -> int:
    """Acknowledge deliveries; return how many were confirmed."""
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
    events = [new_event(number, data=data) for number, data in enumerate(DATA)] + [
        new_event("full", **full),
        new_event("bare"),
    ]
    for event in events:
        await bench.call("publish", {"topic": topic, "event": event})
    deliveries = await pull(bench, topic)
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
    await publish(bench, topic, 1, 2, 3)
    await publish(bench, f"{topic}.more", 4)
    for group in ("first", "second"):
        found = ids(await pull(bench, topic, group))
        require(found == ["e-1", "e-2", "e-3"], f"group {group} received {found}")


@case("BUS-03")
async def consumers_of_a_group_share_its_events(bench: Bench) -> None:
    """An event that was delivered to one consumer of a group MUST NOT be delivered to another while it is visible to the first."""
    topic = bench.unique("topic")
    await publish(bench, topic, *range(40))
    pulls = await asyncio.gather(*(pull(bench, topic, max_events=10) for _ in range(6)))
    found = [event for deliveries in pulls for event in ids(deliveries)]
    require(len(found) == len(set(found)), "an event was delivered to two consumers")
    require(len(found) == 40, f"{len(found)} of 40 events were delivered")  # noqa: PLR2004  (as published)


@case("BUS-04")
async def what_is_acknowledged_does_not_come_back(bench: Bench) -> None:
    """An acknowledged event MUST NOT be delivered to its group again; ``ack`` answers how many it confirmed."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1, 2)
    deliveries = await pull(bench, topic, visibility_seconds=0.05)
    require(await ack(bench, deliveries) == 2, "ack confirmed another number")  # noqa: PLR2004  (as published)
    require(await ack(bench, deliveries) == 0, "ack confirmed them twice")
    await asyncio.sleep(0.1)
    require(await pull(bench, topic) == [], "an acknowledged event came back")


@case("BUS-05", timed=True)
async def what_is_not_acknowledged_comes_back(bench: Bench) -> None:
    """An event that is not acknowledged within its visibility MUST be delivered again, and counted."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    (first,) = await pull(bench, topic, visibility_seconds=0.1)
    require(await pull(bench, topic) == [], "it was delivered again while it was visible")
    await asyncio.sleep(0.15)
    again = await pull(bench, topic)
    require(ids(again) == ["e-1"], f"after its visibility {ids(again)} was delivered")
    require((first["delivery"], again[0]["delivery"]) == (1, 2), "deliveries are not counted")


@case("BUS-06")
async def an_old_acknowledgement_confirms_nothing(bench: Bench) -> None:
    """An ``ack_id`` of a delivery that has been repeated MUST NOT confirm the newer one."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    first = await pull(bench, topic, visibility_seconds=0.03)
    await asyncio.sleep(0.08)
    second = await pull(bench, topic)
    require(ids(second) == ["e-1"], "it did not come back")
    require(await ack(bench, first) == 0, "the old acknowledgement was taken")
    require(await ack(bench, second) == 1, "the new acknowledgement was not taken")


@case("BUS-07")
async def a_batch_is_published_whole_and_in_order(bench: Bench) -> None:
    """``publish_batch`` MUST publish all its events in their order and answer their positions in that order."""
    topic = bench.unique("topic")
    events = [{"event": new_event(number)} for number in range(50)]
    published = (await bench.call("publish_batch", {"topic": topic, "events": events}))["published"]
    deliveries = await pull(bench, topic)
    require(ids(deliveries) == [f"e-{number}" for number in range(50)], "the order is another")
    require([one["position"] for one in published] == [one["position"] for one in deliveries], "positions differ")


@case("BUS-08")
async def a_pull_waits_for_the_first_event(bench: Bench) -> None:
    """With ``wait_seconds`` ``pull`` MUST answer as soon as an event is published, and nothing when none is."""
    topic = bench.unique("topic")
    require(await pull(bench, topic) == [], "a new group of a new topic received something")  # and both are made
    waiting = asyncio.ensure_future(pull(bench, topic, wait_seconds=10))
    await asyncio.sleep(0.05)
    require(not waiting.done(), "it did not wait")
    await publish(bench, topic, 1)
    async with asyncio.timeout(8):
        require(ids(await waiting) == ["e-1"], "it answered something else")
    require(await pull(bench, topic, wait_seconds=0.05) == [], "it answered what is not there")


@case("BUS-09")
async def a_new_group_begins_where_it_says(bench: Bench) -> None:
    """A group that has never received MUST begin with the earliest event, or with ``start: new`` after its first pull."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    require(await pull(bench, topic, "late", start="new") == [], "start: new delivered an older event")
    await publish(bench, topic, 2)
    require(ids(await pull(bench, topic, "late", start="new")) == ["e-2"], "start: new lost a newer event")
    require(ids(await pull(bench, topic, "early")) == ["e-1", "e-2"], "the default is not earliest")


@case("BUS-10")
async def tenants_share_no_topics(bench: Bench) -> None:
    """No tenant MUST ever receive, acknowledge or see events of another, whatever topic and group it names."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1)
    require(await pull(bench, topic, tenant=BETA) == [], "another tenant received the event")
    (delivery,) = await pull(bench, topic, visibility_seconds=0.05)
    answer = await bench.call("ack", {"ack_ids": [delivery["ack_id"]]}, tenant=BETA)
    require(answer["acknowledged"] == 0, "another tenant acknowledged the event")
    await asyncio.sleep(0.1)
    require(ids(await pull(bench, topic)) == ["e-1"], "another tenant's acknowledgement counted")


@case("BUS-11")
async def positions_grow(bench: Bench) -> None:
    """Positions of a topic MUST be different for every event and delivered in the order they were answered."""
    topic = bench.unique("topic")
    positions = await publish(bench, topic, *range(20))
    require(len(set(positions)) == len(positions), "positions repeat")
    require(
        [one["position"] for one in await pull(bench, topic)] == positions, "positions are delivered in another order"
    )


@case("BUS-12")
async def a_cancelled_pull_loses_nothing(bench: Bench) -> None:
    """What a cancelled ``pull`` had taken MUST be delivered again; nothing is lost."""
    topic = bench.unique("topic")
    for number in range(5):
        waiting = asyncio.ensure_future(pull(bench, topic, wait_seconds=5, visibility_seconds=0.05))
        await asyncio.sleep(0.01)
        publishing = asyncio.ensure_future(publish(bench, topic, number))
        await asyncio.sleep(number * 0.0005)
        waiting.cancel()
        await asyncio.gather(waiting, publishing, return_exceptions=True)
    await asyncio.sleep(0.1)
    found = set(ids(await pull(bench, topic)))
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
    params = {"topic": topic, "event": new_event(1, data="first")}
    first = await bench.equal("publish", params, {"duplicate": False})
    again = {"topic": topic, "event": new_event(1, data="second")}
    await bench.equal("publish", again, {"duplicate": True, "position": first["position"]})
    batch = await bench.call(
        "publish_batch", {"topic": topic, "events": [{"event": new_event(1)}, {"event": new_event(2)}]}
    )
    require([one["duplicate"] for one in batch["published"]] == [True, False], "a batch does not deduplicate")
    deliveries = await pull(bench, topic)
    require(ids(deliveries) == ["e-1", "e-2"], f"delivered {ids(deliveries)}")
    require(deliveries[0]["event"]["data"] == "first", "the repeated event replaced the first")


@case("BUS-21", capability="deduplication")
async def of_concurrent_publishers_one_publishes(bench: Bench) -> None:
    """Of concurrent ``publish`` with one event id exactly one MUST publish it. Another topic is another matter."""
    topic = bench.unique("topic")
    params = {"topic": topic, "event": new_event(1)}
    answers = await asyncio.gather(*(bench.call("publish", params) for _ in range(20)))
    require(sum(not answer["duplicate"] for answer in answers) == 1, "several published it")
    require(len(await pull(bench, topic)) == 1, "it is there several times")
    await bench.equal("publish", {**params, "topic": f"{topic}.other"}, {"duplicate": False})


@case("BUS-30", capability="ordering")
async def events_of_a_key_keep_their_order(bench: Bench) -> None:
    """Events with one key MUST be delivered in the order they were published; a later one not before an earlier is confirmed."""
    topic = bench.unique("topic")
    await publish(bench, topic, "a1", "a2", key="a")
    await publish(bench, topic, "b1", key="b")
    (first, *rest) = sorted(await pull(bench, topic, max_events=1), key=lambda one: str(one["event"]["id"]))
    require(first["event"]["id"] == "e-a1" and not rest, "the first event is not the first")
    found = ids(await pull(bench, topic))
    require("e-a2" not in found, "a later event of the key came before the earlier one was confirmed")
    require("e-b1" in found, "an event of another key had to wait")
    await ack(bench, [first])
    require(ids(await pull(bench, topic)) == ["e-a2"], "the next event of the key did not follow")


@case("BUS-31", capability="ordering", timed=True)
async def redelivery_keeps_the_order_of_a_key(bench: Bench) -> None:
    """After a delivery has lapsed the events of its key MUST come again in their order."""
    topic = bench.unique("topic")
    await publish(bench, topic, 1, 2, 3, key="k")
    await pull(bench, topic, visibility_seconds=0.05)
    await asyncio.sleep(0.1)
    seen = []
    for _ in range(6):
        deliveries = await pull(bench, topic)
        seen += ids(deliveries)
        if deliveries:
            await ack(bench, deliveries)
    require(seen == ["e-1", "e-2", "e-3"], f"they came as {seen}")
