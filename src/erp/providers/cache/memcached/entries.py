"""How entries are named and written: Memcached's own keys are short, and its lifetimes are whole seconds.

An entry is a version, the time of death (milliseconds since 1970, digits of fixed width, zeros for never) and the JSON text
of the value. The server drops it at most two seconds after that time; until then readers see by it that it is gone.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import secrets
import time
from typing import NamedTuple
from urllib.parse import quote

MAX_KEY = 250
"""Bytes; https://docs.memcached.org/protocols/basic/."""
MONTH = 30 * 24 * 3600
"""Seconds; a longer lifetime is taken for a time since 1970."""
VERSION, DEATH = 28, 15
HEAD = VERSION + DEATH


class Names:
    """Makes the server's keys of one tenant's connection.

    ``<prefix>:<tenant>/<connection>:<key>``, each percent-encoded; what would be too long is ``<prefix>:h:<SHA-256 of it>``.
    Nothing that is encoded has a colon, and no tenant's part is without a slash, so that the two forms never meet.
    """

    def __init__(self, prefix: str, tenant: str, connection: str) -> None:
        self._prefix = prefix
        self._base = f"{prefix}:{quote(tenant, safe='')}/{quote(connection, safe='')}:"

    def of(self, key: str) -> str:
        """Return the server's key for the caller's."""
        name = self._base + quote(key, safe="")
        if len(name) <= MAX_KEY:
            return name
        return f"{self._prefix}:h:{hashlib.sha256(name.encode()).hexdigest()}"


class Entry(NamedTuple):
    """An entry as it was read or will be written."""

    version: str
    dies_at: int
    data: bytes

    def encoded(self) -> bytes:
        """Return what the server is given."""
        return b"%b%015d%b" % (self.version.encode(), self.dies_at, self.data)

    def seconds(self) -> int:
        """Return the lifetime that the server is told: whole seconds, rounded up; 0 is for ever."""
        if not self.dies_at:
            return 0
        left = max(math.ceil((self.dies_at - now()) / 1000), 0) + 1
        return left if left <= MONTH else int(time.time()) + left


def decoded(data: bytes) -> Entry | None:
    """Take an entry apart; None when it has died."""
    entry = Entry(data[:VERSION].decode(), int(data[VERSION:HEAD]), data[HEAD:])
    return None if entry.dies_at and entry.dies_at <= now() else entry


def death(ttl_seconds: float | None) -> int:
    """Return when an entry dies that lives so long; 0 is never."""
    return 0 if ttl_seconds is None else now() + max(1, math.ceil(ttl_seconds * 1000))


def now() -> int:
    """Return milliseconds since 1970."""
    return int(time.time() * 1000)


class Versions:
    """Versions that no other writer makes and that never come again."""

    def __init__(self) -> None:
        self._origin = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """Return a version nobody has used."""
        return f"{self._origin}{next(self._numbers):012x}"
