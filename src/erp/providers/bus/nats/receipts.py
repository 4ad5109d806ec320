"""What a consumer confirms a delivery with, and whether it still may.

JetStream takes the acknowledgement of any delivery of a message for the present one. A receipt therefore says until
when it is good, and a process remembers which it has used: an old one confirms nothing.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

ACK_WAIT_SECONDS = 35.0
"""When JetStream delivers again by itself; longer than the usual visibility, which has to end first."""
USUAL_VISIBILITY_SECONDS = 30.0
REMEMBERED = 100_000

_FORM = re.compile(r"([0-9a-f]{32})-(u|\d{1,2})\.(\d{1,10})\.(\d{1,20})\.(\d{1,20})\.(\d{1,20})\.(\d{1,16})")


def _words(reply: str) -> list[str]:
    """Split ``$JS.ACK[.domain.account].stream.consumer.deliveries.seq.consumer seq.time.pending``."""
    words = reply.split(".")
    return words[3:8] if len(words) == 9 else words[5:10]  # noqa: PLR2004  (without domain and account)


def consumer_of(reply: str) -> str:
    """Return the consumer that a message came from, by where it is acknowledged."""
    return _words(reply)[0]


class Receipt(NamedTuple):
    """One delivery of one message to one group."""

    consumer: str
    lane: str
    deliveries: int
    seq: int
    consumer_seq: int
    stamp: int
    expires_ms: int

    @classmethod
    def of_reply(cls, reply: str, visibility_seconds: float) -> Receipt:
        """Read where JetStream expects the acknowledgement."""
        name, count, seq, consumer_seq, stamp = _words(reply)
        consumer, _, lane = name.partition("-")
        expires_ms = int((time.time() + visibility_seconds) * 1000)
        return cls(consumer, lane, int(count), int(seq), int(consumer_seq), int(stamp), expires_ms)

    @classmethod
    def of_text(cls, text: str) -> Receipt | None:
        """Read an ``ack_id``; None when it is not one of this provider."""
        found = _FORM.fullmatch(text)
        return cls(found[1], found[2], *map(int, found.groups()[2:])) if found else None

    def __str__(self) -> str:
        return f"{self.consumer}-{self.lane}.{self.deliveries}.{self.seq}.{self.consumer_seq}.{self.stamp}.{self.expires_ms}"

    def subject(self, stream: str) -> str:
        """Return where to acknowledge. The tenant's own stream is in it, whatever the receipt says."""
        return f"$JS.ACK.{stream}.{self.consumer}-{self.lane}.{self.deliveries}.{self.seq}.{self.consumer_seq}.{self.stamp}.0"


class Receipts:
    """Which receipts this process has taken back."""

    def __init__(self) -> None:
        self._used: dict[Receipt, None] = {}

    def take(self, ack_ids: list[str]) -> list[Receipt]:
        """Return those that are good, each once."""
        now = time.time() * 1000
        read = (Receipt.of_text(text) for text in dict.fromkeys(ack_ids))
        return [one for one in read if one is not None and one.expires_ms > now and one not in self._used]

    def use(self, taken: list[Receipt]) -> None:
        """Remember that these are good no more."""
        self._used.update(dict.fromkeys(taken))
        if len(self._used) > REMEMBERED:
            now = time.time() * 1000
            self._used = {one: None for one in self._used if one.expires_ms > now}

    def give_back(self, taken: list[Receipt]) -> None:
        """Take back that they were used: what they were used for has failed."""
        for one in taken:
            self._used.pop(one, None)
