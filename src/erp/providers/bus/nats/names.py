"""How tenants, topics, groups and keys are named in NATS, so that no name can reach another's.

NATS gives meaning to ``.``, ``*``, ``>`` and white space. Everything but letters, digits, ``-`` and ``_`` is
written as ``=XX`` (its UTF-8 bytes in hexadecimal), which makes the names different for different originals. The
words of a topic stay words of a subject, so that what watches NATS from outside can follow it.
"""

from __future__ import annotations

import functools
import hashlib
import re
import zlib

UNKEYED = "u"
"""The lane of events without a key."""
EMPTY_WORD = "="
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


def token(text: str) -> str:
    """Return ``text`` as one word of a subject or one part of a name."""
    return _OTHER.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), text) or EMPTY_WORD


def _words(topic: str) -> str:
    return ".".join(map(token, topic.split(".")))


class Names:
    """The names of one connection of one tenant."""

    def __init__(self, prefix: str, tenant: str, connection: str) -> None:
        self.stream = f"{token(prefix)}~{token(tenant)}~{token(connection)}"
        self.root = f"{token(prefix)}.{token(tenant)}.{token(connection)}"
        self.event = functools.lru_cache(4096)(self._event)
        self.consumer = functools.lru_cache(4096)(self._consumer)

    def _consumer(self, topic: str, group: str) -> str:
        """What the consumers of a group begin with; one follows for each lane. No two tenants have the same."""
        return hashlib.blake2b(f"{self.stream}\0{topic}\0{group}".encode(), digest_size=16).hexdigest()

    def _event(self, topic: str, lane: str) -> str:
        return f"{self.root}.e.{lane}.{_words(topic)}"

    def requeued(self, topic: str, group: str, lane: str) -> str:
        """Return the subject of events that one group alone receives again."""
        return f"{self.root}.r.{lane}.{token(group)}.{_words(topic)}"

    def dead(self, topic: str | None, group: str | None) -> str:
        """Return the subject of dead letters, or with wildcards where one of the two is not given."""
        return f"{self.root}.d.{token(group) if group else '*'}.{_words(topic) if topic else '>'}"


def lane(key: str | None, lanes: int) -> str:
    """Return the lane of a key: its events follow each other there."""
    return UNKEYED if key is None else str(zlib.crc32(key.encode()) % lanes)


def message_id(topic: str, event_id: str) -> str:
    """Return the id by which the stream recognises an event of a topic (``Nats-Msg-Id``)."""
    return f"{topic}:{token(event_id)}"
