"""How an entry is written: what the layer must know about it stands before its value, in one string of Redis.

plain   version, a line feed, the value
rich    version, ``[``, time to idle, time of death, length of the tags (digits of fixed width), the tags, the value

Only an entry with a time to idle or tags is rich. Times are milliseconds; the time of death is Redis' own clock, zeros mean
never. A value is the JSON text as it goes into the answer, so that a read decodes nothing.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Sequence
from typing import NamedTuple

VERSION = 28
MARK = VERSION
RICH = ord("[")
IDLE, DEATH, LENGTH = 11, 15, 6
HEAD = VERSION + 1 + IDLE + DEATH + LENGTH


class Read(NamedTuple):
    """An entry as it was read."""

    version: str
    data: bytes
    idles: bool
    """Whether a read has to restart its time to idle."""


def read(raw: bytes) -> Read:
    """Take an entry apart."""
    version = raw[:VERSION].decode()
    if raw[MARK] != RICH:
        return Read(version, raw[VERSION + 1 :], idles=False)
    tags = int(raw[HEAD - LENGTH : HEAD])
    return Read(version, raw[HEAD + tags :], idles=int(raw[VERSION + 1 : VERSION + 1 + IDLE]) > 0)


class Versions:
    """Versions that no other writer makes and that never come again."""

    def __init__(self) -> None:
        self._origin = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """Return a version nobody has used."""
        return f"{self._origin}{next(self._numbers):012x}"


def milliseconds(seconds: float) -> int:
    """Round up: an entry is there for at least the time that was asked for."""
    return max(1, math.ceil(seconds * 1000))


def decoded(keys: Sequence[bytes], begins_with: str) -> list[bytes]:
    """Return the callers' own keys of stored ones."""
    length = len(begins_with.encode())
    return [key[length:] for key in keys]
