"""Events that were delivered too often: messages of the same stream under a subject of their own.

They are copies, so they outlive nothing and need nothing. JetStream's own notice of the last delivery is not used: it
is sent once and kept by nobody, and a dead event must not depend on who was listening.
"""

from __future__ import annotations

from typing import Any

import msgspec

from erp.contracts.models.bus import CloudEvent, DeadLetter
from erp.providers.bus.nats.groups import Place
from erp.providers.bus.nats.names import Names
from erp.providers.bus.nats.stream import EventStream, New, Stored
from erp.runtime.spi import UNSET
from erp.vendor_clients import cloudevents


class Corpse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is kept of a dead event."""

    topic: str
    group: str
    lane: str
    position: str
    deliveries: int
    event: msgspec.Raw
    headers: dict[str, str]
    reason: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Corpse).decode


class DeadLetters:
    """Sets events aside, lists them, gives them back to their group and forgets them."""

    def __init__(self, names: Names, stream: EventStream) -> None:
        self._names = names
        self._stream = stream

    async def bury(self, corpse: Corpse, death: str) -> bool:
        """Keep a dead event; return False when it was kept before. ``death`` names this death among others."""
        new = New(self._names.dead(corpse.topic, corpse.group), _encode(corpse), f"dead:{death}", {})
        ack = await self._stream.publish(new)
        if ack.duplicate and await self._stream.message(ack.seq) is None:
            # It died before, not long ago, and was discarded or requeued since.
            ack = await self._stream.publish(new._replace(id=f"{new.id}:{ack.seq}"))
        return not ack.duplicate

    async def page(self, topic: str | None, group: str | None, after: int, limit: int) -> list[DeadLetter]:
        """Return dead letters by age."""
        found = await self._stream.read(self._names.dead(topic, group), after=after, limit=limit)
        return [_letter(stored) for stored in found]

    async def requeue(self, id_: str) -> tuple[Place, str] | None:
        """Deliver a dead event to its group again; return the group and the lane, None when there is no such."""
        stored = await self._found(id_)
        if stored is None:
            return None
        corpse = _decode(stored.body)
        subject = self._names.requeued(corpse.topic, corpse.group, corpse.lane)
        await self._stream.publish(New(subject, bytes(corpse.event), f"requeued:{id_}", corpse.headers))
        # Killed here, it is delivered and still listed; requeued again it is not delivered twice.
        if not await self._stream.delete(stored.seq):
            return None
        return Place(corpse.topic, corpse.group), corpse.lane

    async def discard(self, id_: str) -> bool:
        """Forget a dead event; return whether there was one."""
        stored = await self._found(id_)
        return stored is not None and await self._stream.delete(stored.seq)

    async def _found(self, id_: str) -> Stored | None:
        if not (id_.isascii() and id_.isdigit() and len(id_) < 19):  # noqa: PLR2004  (digits of a 64-bit number)
            return None
        stored = await self._stream.message(int(id_))
        return stored if stored is not None and stored.subject.startswith(f"{self._names.root}.d.") else None


def event_of(body: bytes, position: str) -> CloudEvent:
    """Return the event of a message; what is not a CloudEvent is handed on as data of one that says so."""
    try:
        return cloudevents.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data: Any = body.decode(errors="replace")
        return CloudEvent(id=position, source="urn:nats", type="undecodable", data=data)


def _letter(stored: Stored) -> DeadLetter:
    corpse = _decode(stored.body)
    return DeadLetter(
        id=str(stored.seq),
        topic=corpse.topic,
        group=corpse.group,
        position=corpse.position,
        event=event_of(bytes(corpse.event), corpse.position),
        deliveries=corpse.deliveries,
        died_at=stored.time,
        reason=UNSET if corpse.reason is None else corpse.reason,
    )
