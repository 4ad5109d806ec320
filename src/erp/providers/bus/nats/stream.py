"""The stream that holds what one connection publishes, and everything asked of it.

Rules: the JetStream API (https://docs.nats.io/reference/reference-protocols/nats_api_reference), ADR-31 (direct and
batched get) and ADR-50 (atomic batches) of https://github.com/nats-io/nats-architecture-and-design.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from erp.providers.bus.nats.channel import Channel, Headers, Refusal, Refused, checked
from erp.providers.bus.nats.names import Names
from erp.runtime.spi import Config, ErrorCode, ProviderError

STREAM_NOT_FOUND = 10059
OTHER_LAST_ID = 10070
DUPLICATES_IN_BATCH = 10201
TOO_MANY_BATCHES = 10210
MESSAGE_NOT_FOUND = 10037
API_LEVEL = 4
"""Of NATS 2.14: consumers can be reset."""
BATCHES_AT_ONCE = 16
MAX_BATCH_ATTEMPTS = 3
NO_SUCH_ID = "-"
LANES = "erp.lanes"

Moment = datetime.datetime


class Ack(msgspec.Struct):
    """Where the stream has put a message."""

    seq: int
    duplicate: bool = False
    count: int = 1


class State(msgspec.Struct):
    """What is in the stream."""

    last_seq: int = 0
    subjects: dict[str, int] = {}


class Facts(msgspec.Struct):
    """What is known of the stream."""

    config: dict[str, Any]
    state: State


class New(NamedTuple):
    """A message to be published."""

    subject: str
    body: bytes
    id: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of the stream."""

    subject: str
    seq: int
    time: Moment
    body: bytes
    headers: Headers


_ack = msgspec.json.Decoder(Ack).decode
_facts = msgspec.json.Decoder(Facts).decode


class EventStream:
    """Makes the stream, publishes to it and reads it."""

    def __init__(self, channel: Channel, names: Names, config: Config) -> None:
        self._channel = channel
        self._names = names
        self._config = config
        self._batches = asyncio.Semaphore(BATCHES_AT_ONCE)
        self._batch_ids = (f"{os.getpid()}-{os.urandom(6).hex()}-{number}" for number in itertools.count())
        self.lanes = 0

    async def open(self) -> None:
        """Make the stream, or bring it to its configuration. How many lanes it has stays as it was made.

        Raises:
            ProviderError: ``failed_precondition`` when this server cannot hold it.
        """
        try:
            metadata = (await self._ensured()).config.get("metadata") or {}
        except Refused as refused:
            message = f"NATS cannot hold the stream: {refused}."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from refused
        if int(metadata.get("_nats.level", "0")) < API_LEVEL:
            message = "The server is too old; bus/nats needs NATS 2.14 or newer."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        self.lanes = int(metadata[LANES])

    async def _ensured(self) -> Facts:
        wanted = _wanted(self._names, self._config)
        try:
            facts = await self.facts()
        except Refused as refused:
            if refused.refusal.err_code != STREAM_NOT_FOUND:
                raise
            return _facts(await self._channel.api(f"STREAM.CREATE.{self._names.stream}", wanted))
        wanted["metadata"] |= facts.config.get("metadata") or {}
        settings = {name: value for name, value in wanted.items() if name != "metadata"}
        if all(facts.config.get(name) == value for name, value in settings.items()):
            return facts
        return _facts(await self._channel.api(f"STREAM.UPDATE.{self._names.stream}", wanted))

    async def facts(self, subjects: str | None = None) -> Facts:
        """Ask how the stream is; with ``subjects`` also how many messages each of them has."""
        body = None if subjects is None else {"subjects_filter": subjects}
        return _facts(await self._channel.api(f"STREAM.INFO.{self._names.stream}", body))

    # -- publishing ------------------------------------------------------------------------------

    async def publish(self, new: New) -> Ack:
        """Publish one message, once per id.

        Raises:
            Refused: the stream does not take it.
        """
        answer = await self._channel.request(new.subject, new.body, {"Nats-Msg-Id": new.id, **new.headers})
        return _ack(checked(answer.data))

    async def publish_batch(self, batch: Sequence[New]) -> list[Ack]:
        """Publish all messages or none; those whose ids are known stay as they are."""
        async with self._batches:
            for _ in range(MAX_BATCH_ATTEMPTS):
                try:
                    return await self._publish_new(batch, {})
                except Refused as refused:
                    _refuse_unless_duplicates(refused)
                known = await self._known(batch)
                try:
                    return await self._publish_new(batch, known)
                except Refused as refused:  # somebody published one of them just now
                    _refuse_unless_duplicates(refused)
        raise _busy("Others publish the same events at this moment.")

    async def _publish_new(self, batch: Sequence[New], known: dict[str, Ack]) -> list[Ack]:
        """Publish what is not known as one atomic batch; the first of several with one id stands for all."""
        fresh = list({new.id: new for new in reversed(batch) if new.id not in known}.values())[::-1]
        acks = {**known}
        if fresh:
            last = await self._publish_atomically(fresh)
            first = last.seq - len(fresh) + 1
            acks |= {new.id: Ack(seq=first + number) for number, new in enumerate(fresh)}
        seen = set(known)
        found = []
        for new in batch:
            found.append(Ack(seq=acks[new.id].seq, duplicate=new.id in seen))
            seen.add(new.id)
        return found

    async def _publish_atomically(self, fresh: Sequence[New]) -> Ack:
        if len(fresh) == 1:
            ack = await self.publish(fresh[0])
            if ack.duplicate:
                raise Refused(Refusal(err_code=DUPLICATES_IN_BATCH))
            return ack
        batch_id = next(self._batch_ids)
        *others, last = [
            new._replace(headers={"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number), **new.headers})
            for number, new in enumerate(fresh, 1)
        ]
        for new in others:
            await self._channel.publish(new.subject, new.body, {"Nats-Msg-Id": new.id, **new.headers})
        return await self.publish(last._replace(headers={"Nats-Batch-Commit": "1", **last.headers}))

    async def _known(self, batch: Sequence[New]) -> dict[str, Ack]:
        """Return which ids are known, without publishing: after its id a message must fail for another reason."""

        async def ask(new: New) -> tuple[str, Ack | None]:
            headers = {"Nats-Msg-Id": new.id, "Nats-Expected-Last-Msg-Id": NO_SUCH_ID}
            answer = await self._channel.request(new.subject, b"", headers)
            try:
                return new.id, _ack(checked(answer.data))
            except Refused as refused:
                if refused.refusal.err_code != OTHER_LAST_ID:
                    raise
                return new.id, None

        found = await asyncio.gather(*(ask(new) for new in {new.id: new for new in batch}.values()))
        return {id_: ack for id_, ack in found if ack is not None}

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, subjects: str, *, limit: int, after: int = 0, since: Moment | None = None) -> list[Stored]:
        """Return up to ``limit`` messages of ``subjects`` behind a sequence or since a time, in order."""
        start: dict[str, Any] = {"seq": after + 1} if since is None else {"start_time": since.isoformat()}
        found: list[Stored] = []
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take(message: Any) -> None:
            stored = _stored(message)
            if stored is None:
                ended.set_result(None)
            else:
                found.append(stored)

        async with self._channel.inbox(take, _ignore) as (client, inbox):
            body = msgspec.json.encode({**start, "batch": limit, "next_by_subj": subjects})
            await client.publish(f"$JS.API.DIRECT.GET.{self._names.stream}", body, reply=f"{inbox}.0")
            await ended
        return found

    async def message(self, seq: int) -> Stored | None:
        """Return the message with this sequence; None when it is not there."""
        answer = await self._channel.request(
            f"$JS.API.DIRECT.GET.{self._names.stream}", msgspec.json.encode({"seq": seq})
        )
        return _stored(answer)

    async def delete(self, seq: int) -> bool:
        """Remove a message; return whether it was there."""
        try:
            await self._channel.api(f"STREAM.MSG.DELETE.{self._names.stream}", {"seq": seq, "no_erase": True})
        except Refused:
            if await self.message(seq) is None:
                return False
            raise
        return True


def _wanted(names: Names, config: Config) -> dict[str, Any]:
    seconds = 10**9
    retention = config.get("retention_seconds", 604_800)
    return {
        "name": names.stream,
        "subjects": [f"{names.root}.{kind}.>" for kind in "erd"],
        "storage": "file",
        "num_replicas": config.get("replicas", 1),
        "max_age": retention * seconds,
        "duplicate_window": min(config.get("deduplication_seconds", 600), retention) * seconds,
        "allow_direct": True,
        "allow_atomic": True,
        "metadata": {LANES: str(config.get("ordered_lanes", 4))},
    }


def _refuse_unless_duplicates(refused: Refused) -> None:
    if refused.refusal.err_code == TOO_MANY_BATCHES:
        raise _busy("The server has too many batches under way.") from refused
    if refused.refusal.err_code != DUPLICATES_IN_BATCH:
        raise refused


def _busy(message: str) -> ProviderError:
    return ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)


def _stored(message: Any) -> Stored | None:
    headers: Headers = message.headers or {}
    if "Nats-Sequence" not in headers:
        return None
    moment = _moment(headers["Nats-Time-Stamp"])
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), moment, message.data, headers)


def _moment(text: str) -> Moment:
    """Read a time of NATS, which has nanoseconds."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")


async def _ignore(_: Any) -> None:
    """Nothing is lost when a message that was only read comes too late."""
