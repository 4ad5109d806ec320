"""The groups of a topic: consumers of JetStream, one for events without a key and one for each ordered lane.

A lane has at most one event with a consumer at a time (``max_ack_pending`` 1), in whatever process: so the server
itself keeps the order of a key. How often events are delivered is unbounded for the server; the provider sets aside.
Rules: the JetStream API, and ADR-60 (reset) of https://github.com/nats-io/nats-architecture-and-design.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from erp.providers.bus.nats.channel import Channel, Refused
from erp.providers.bus.nats.names import UNKEYED, Names
from erp.providers.bus.nats.receipts import ACK_WAIT_SECONDS, consumer_of
from erp.providers.bus.nats.stream import EventStream

if TYPE_CHECKING:
    from nats.aio.msg import Msg

EXISTS = {10013, 10105, 10148}
CONSUMER_NOT_FOUND = 10014
RESET_REFUSED = 10204
MAX_RESETS = 5
MAX_OPEN = 20_000
LOOK_SECONDS = 1.0
"""How soon a consumer notices the first events with keys that another process publishes."""
SILENCE_SECONDS = 0.02
"""After how long without an answer it is asked why."""
NAK = b"-NAK"
NEVER = 1 << 63


class Place(NamedTuple):
    """A group of a topic."""

    topic: str
    group: str


class _Reached(msgspec.Struct):
    stream_seq: int = 0


class ConsumerFacts(msgspec.Struct):
    """How far a consumer is."""

    config: dict[str, Any]
    ack_floor: _Reached
    delivered: _Reached
    num_pending: int
    num_ack_pending: int


_facts = msgspec.json.Decoder(ConsumerFacts).decode


class Groups:
    """Makes, asks and moves groups."""

    def __init__(self, channel: Channel, names: Names, stream: EventStream) -> None:
        self._channel = channel
        self._names = names
        self._stream = stream
        self._made: set[Place] = set()
        self._places: dict[str, Place] = {}
        self._keyed: dict[str, set[str]] = {}
        self._looked: dict[Place, float] = {}

    @property
    def _lanes(self) -> list[str]:
        return [UNKEYED, *map(str, range(self._stream.lanes))]

    def forget(self) -> None:
        """Look again which groups there are: the server may have lost them."""
        self._made.clear()

    def note(self, topic: str, lane: str) -> None:
        """Say that there are events in a lane of the topic."""
        if lane != UNKEYED:
            self._keyed.setdefault(topic, set()).add(lane)

    async def ensure(self, place: Place, *, from_earliest: bool) -> None:
        """Make the group where there is none."""
        if place in self._made:
            return
        start = 0 if from_earliest else (await self._stream.facts()).state.last_seq + 1
        await asyncio.gather(*(self._create(place, lane, start) for lane in self._lanes))
        self._made.add(place)
        self._places[self._names.consumer(*place)] = place

    async def _create(self, place: Place, lane: str, start: int) -> None:
        name = f"{self._names.consumer(*place)}-{lane}"
        event, requeued = self._names.event(place.topic, lane), self._names.requeued(*place, lane)
        config: dict[str, Any] = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(ACK_WAIT_SECONDS * 10**9),
            "max_deliver": -1,
            "max_ack_pending": MAX_OPEN if lane == UNKEYED else 1,
            "filter_subjects": [event, requeued],
            "metadata": {"erp.topic": place.topic, "erp.group": place.group},
        }
        config |= (
            {"deliver_policy": "by_start_sequence", "opt_start_seq": start} if start else {"deliver_policy": "all"}
        )
        body = {"stream_name": self._names.stream, "config": config, "action": "create"}
        try:
            await self._channel.api(f"CONSUMER.CREATE.{self._names.stream}.{name}", body)
        except Refused as refused:
            if refused.refusal.err_code not in EXISTS:
                raise

    async def place(self, consumer: str) -> Place | None:
        """Return whose a consumer is; None when there is none of this name."""
        if consumer not in self._places:
            facts = await self._facts(consumer, UNKEYED)
            if facts is None:
                return None
            metadata = facts.config["metadata"]
            self._places[consumer] = Place(metadata["erp.topic"], metadata["erp.group"])
        return self._places[consumer]

    async def _facts(self, consumer: str, lane: str) -> ConsumerFacts | None:
        try:
            return _facts(await self._channel.api(f"CONSUMER.INFO.{self._names.stream}.{consumer}-{lane}"))
        except Refused as refused:
            if refused.refusal.err_code != CONSUMER_NOT_FOUND:
                raise
            return None

    async def reached(self, consumer: str, lane: str) -> int:
        """Return the sequence up to which a consumer has delivered; 0 when there is no such consumer."""
        facts = await self._facts(consumer, lane)
        return 0 if facts is None else facts.delivered.stream_seq

    async def facts(self, place: Place) -> list[tuple[str, ConsumerFacts]]:
        """Return how far each lane of a group is; nothing when there is no such group."""
        found = await asyncio.gather(*(self._facts(self._names.consumer(*place), lane) for lane in self._lanes))
        return [(lane, facts) for lane, facts in zip(self._lanes, found, strict=True) if facts is not None]

    async def move(self, place: Place, seq: int) -> None:
        """Have the group receive what comes after ``seq``."""
        await self.ensure(place, from_earliest=True)
        await asyncio.gather(*(self._reset(place, lane, seq + 1) for lane in self._lanes))

    async def _reset(self, place: Place, lane: str, seq: int) -> None:
        name = self._names.consumer(*place)
        subject = f"{self._names.stream}.{name}-{lane}"
        try:
            for _ in range(MAX_RESETS):
                await self._channel.api(f"CONSUMER.RESET.{subject}", {"seq": seq})
                facts = await self._facts(name, lane)
                # What was delivered in that moment can be written down after the reset, which is then half undone.
                if facts is None or (not facts.num_ack_pending and facts.delivered.stream_seq < seq):
                    break
                await asyncio.sleep(SILENCE_SECONDS)
        except Refused as refused:
            if refused.refusal.err_code != RESET_REFUSED:
                raise
            # It was made to begin with new events, and cannot go back beyond that.
            await self._channel.api(f"CONSUMER.DELETE.{subject}")
            await self._create(place, lane, seq)

    # -- receiving -------------------------------------------------------------------------------

    async def fetch(self, place: Place, limit: int) -> list[Msg]:
        """Return up to ``limit`` messages that are there now; of fewer than there are lanes, those with the oldest."""
        lanes = await self._lanes_in_use(place)
        if limit > len(lanes):
            found = await self._asked(place, {UNKEYED: limit - len(lanes), **dict.fromkeys(lanes, 1)}, seconds=None)
            if not lanes or len(found) < limit - len(lanes):
                return found
        else:
            ways = await self._by_age(place, lanes)
            found = await self._asked(place, dict.fromkeys(ways[:limit], 1), seconds=None)
            for way in ways[limit:]:
                if len(found) < limit:
                    found += await self._asked(place, {way: 1}, seconds=None)
        if len(found) < limit:
            found += await self._asked(place, {UNKEYED: limit - len(found)}, seconds=None)
        return found

    async def _by_age(self, place: Place, lanes: list[str]) -> list[str]:
        """Return the lanes, and that of events without a key, by the sequence of what each would deliver next."""
        ages: dict[str, int] = {}
        found = [(lane, facts) for lane, facts in await self.facts(place) if lane == UNKEYED or lane in lanes]
        for lane, facts in found:
            if facts.num_ack_pending and lane != UNKEYED:  # with a consumer, unless that one has lapsed
                ages[lane] = facts.ack_floor.stream_seq
            elif facts.num_pending:
                ages[lane] = await self._next(place, lane, facts.delivered.stream_seq)
        return sorted((lane for lane, _ in found), key=lambda lane: ages.get(lane, NEVER))

    async def _next(self, place: Place, lane: str, after: int) -> int:
        subjects = self._names.event(place.topic, lane), self._names.requeued(*place, lane)
        found = await asyncio.gather(*(self._stream.read(one, limit=1, after=after) for one in subjects))
        return min((one.seq for stored in found for one in stored), default=NEVER)

    async def wait(self, place: Place, limit: int, seconds: float) -> list[Msg]:
        """Return up to ``limit`` messages as soon as there is one; nothing after ``seconds`` at the latest."""
        lanes = await self._lanes_in_use(place)
        if len(lanes) < self._stream.lanes:
            seconds = min(seconds, LOOK_SECONDS)
        found = await self._asked(place, dict.fromkeys((UNKEYED, *lanes), 1), seconds=seconds)
        await self.put_back(found[limit:])
        if not found or len(found) >= limit:
            return found[:limit]
        return found + await self.fetch(place, limit - len(found))

    async def _lanes_in_use(self, place: Place) -> list[str]:
        """Return the lanes that have ever had events."""
        now = time.monotonic()
        if (
            now - self._looked.get(place, 0.0) >= LOOK_SECONDS
            and len(self._keyed.get(place.topic, ())) < self._stream.lanes
        ):
            self._looked[place] = now
            subjects = self._names.event(place.topic, "*"), self._names.requeued(*place, "*")
            for facts in await asyncio.gather(*map(self._stream.facts, subjects)):
                for subject in facts.state.subjects:
                    self.note(place.topic, subject.removeprefix(self._names.root).split(".")[2])
        return sorted(self._keyed.get(place.topic, ()))

    async def _asked(self, place: Place, batches: dict[str, int], *, seconds: float | None) -> list[Msg]:
        """Ask lanes for messages; what comes after the end, or is not wanted any more, goes back."""
        answers = _Answers(batches)
        body: dict[str, Any] = {"no_wait": True} if seconds is None else {"expires": int(seconds * 10**9)}
        request = f"$JS.API.CONSUMER.MSG.NEXT.{self._names.stream}.{self._names.consumer(*place)}"
        try:
            async with self._channel.inbox(answers.take, self._return) as (client, inbox):
                for lane, count in batches.items():
                    # The word after the inbox tells whose answer it is.
                    await client.publish(
                        f"{request}-{lane}", _encode({"batch": count, **body}), reply=f"{inbox}.{lane}"
                    )
                if seconds is None:
                    await self._all_answered(place, answers)
                else:
                    await answers.arrived(seconds, first=True)
        except BaseException:
            self._channel.later(self.put_back(answers.messages))
            raise
        return answers.messages

    async def _all_answered(self, place: Place, answers: _Answers) -> None:
        """Wait until every lane has answered or can not.

        One whose messages went to another request, or whose only one is with a consumer, says nothing.
        """
        while not await answers.arrived(SILENCE_SECONDS):
            silent = sorted(answers.open)
            for lane, facts in zip(
                silent,
                await asyncio.gather(*(self._facts(self._names.consumer(*place), x) for x in silent)),
                strict=True,
            ):
                if facts is None or not facts.num_pending or facts.num_ack_pending >= facts.config["max_ack_pending"]:
                    answers.open.pop(lane, None)

    async def _return(self, message: Msg) -> None:
        if message.reply:
            await self.put_back([message])

    async def put_back(self, messages: Iterable[Msg]) -> None:
        """Have messages delivered again at once. JetStream counts the delivery although nobody has seen it."""
        for message in messages:
            await self._channel.publish(message.reply, NAK)


class _Answers:
    """The messages and statuses that lanes answer."""

    def __init__(self, batches: dict[str, int]) -> None:
        self.messages: list[Msg] = []
        self.open = dict(batches)
        """How many messages each lane may still send."""
        self._changed = asyncio.Event()

    def take(self, message: Msg) -> None:
        """Take a message, or the status that says that a lane has no more."""
        if message.reply:
            self.messages.append(message)
            lane = consumer_of(message.reply).rpartition("-")[2]
        else:
            lane = message.subject.rpartition(".")[2]
        if lane in self.open:
            self.open[lane] -= 1
            if not message.reply or not self.open[lane]:
                del self.open[lane]
        self._changed.set()

    async def arrived(self, seconds: float, *, first: bool = False) -> bool:
        """Wait for all answers, or the first message; return False when there is none for ``seconds``."""
        while self.open and not (first and self.messages):
            self._changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return True


_encode = msgspec.json.Encoder().encode
