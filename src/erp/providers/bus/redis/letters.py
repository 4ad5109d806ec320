"""Between the words of the contract and those of the steps: positions, deliveries, dead letters."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from erp.contracts.models.bus import CloudEvent, DeadLetter, Delivery, ReplayRequest
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError, UnsetType

_POSITION = re.compile(r"\d{1,15}-\d{1,19}")
_ACK_ID = re.compile(r"(\d{1,15})\.(\d{1,15}-\d{1,19})\.(\d{1,9})")
_decode = msgspec.json.Decoder(CloudEvent).decode


def position(text: str, pointer: str) -> str:
    """Return a position or cursor that this provider gave.

    Raises:
        ProviderError: ``invalid_argument``, it gave none like that.
    """
    if _POSITION.fullmatch(text):
        return text
    error = FieldError(pointer, "Use a value that this provider gave, unchanged.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A position is not valid.", errors=[error])


def known(ids: Iterable[str]) -> list[str]:
    """Return those that this provider could have given."""
    return [one for one in ids if _POSITION.fullmatch(one)]


def held(ack_ids: Iterable[str]) -> list[str]:
    """Take ack ids apart, number of the group, position and deliveries of each; what is none is left out."""
    return [part for text in ack_ids if (match := _ACK_ID.fullmatch(text)) for part in match.groups()]


def delivery(topic: str, row: Sequence[Any]) -> Delivery:
    """Return what a group was given."""
    at, key, body, count, number = row
    return Delivery(
        ack_id=f"{number.decode()}.{at.decode()}.{count}",
        topic=topic,
        position=at.decode(),
        key=key.decode() if key else UNSET,
        event=_decode(body),
        delivery=count,
    )


def event_id(body: bytes) -> str:
    """Return the id of a stored event."""
    return _decode(body).id


def dead_letter(entry: Sequence[Any]) -> DeadLetter:
    """Return what was set aside; its id says when."""
    number, flat = entry
    facts = dict(zip(flat[::2], flat[1::2], strict=True))
    milliseconds = int(number.split(b"-")[0])
    return DeadLetter(
        id=number.decode(),
        topic=facts[b"topic"].decode(),
        group=facts[b"group"].decode(),
        position=facts[b"position"].decode(),
        event=_decode(facts[b"body"]),
        deliveries=int(facts[b"count"]),
        died_at=datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC),
        reason=facts[b"reason"].decode() or UNSET,
    )


def target(request: ReplayRequest) -> tuple[str, int]:
    """Return the position, or the milliseconds since 1970, that a group is moved to.

    Raises:
        ProviderError: ``invalid_argument``, neither or both were given.
    """
    at, when = request.from_position, request.from_time
    if isinstance(at, UnsetType) and not isinstance(when, UnsetType):
        return "", max(int(when.timestamp() * 1000), 0)
    if isinstance(when, UnsetType) and not isinstance(at, UnsetType):
        return position(at, "/params/from_position"), 0
    error = FieldError("/params/from_time", "Give from_time or from_position, one of them.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Say where to replay from.", errors=[error])
