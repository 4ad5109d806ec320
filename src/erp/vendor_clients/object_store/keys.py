r"""Names in a bucket for object keys: any text becomes a name below the tenant's own root, and back.

KeySpace(root, longest_bytes)      names of our own making: every key has one, none can leave the root
KeySpace(..., is_verbatim=True)    names that other programs made: root + key; keys that no store takes are refused
KeySpace.of(namespace, ...)        the part of a bucket that belongs to one tenant and connection

A key keeps its look (``invoices/2026/1.pdf`` is stored as such). What object stores treat specially is escaped:
control characters, ``%`` and ``\\`` as ``%XX``; a dot that begins a segment as ``%2E``; and a segment that is empty or
ends with a dot gets the mark ``%E`` at its end. So there are no ``.``, ``..`` or empty segments in a name, and the name
of a prefix is a prefix of the names of its keys, which lets the store itself list and fold.
"""

from __future__ import annotations

import hashlib
import re

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

_SPECIAL = re.compile("[\\x00-\\x1f\\x7f-\\x9f%\\\\\ufffe\uffff]|(?:\\A|(?<=/))\\.")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_MARK = "%E"
_LONG = "%%"
_DIGEST_CHARACTERS = 64
_LONGEST_ESCAPE = 9
"""What one character can become, in bytes: three escaped ones."""
_UNUSABLE = re.compile(r"(?:^|/)(?:\.{0,2})(?:/|$)|[\x00-\x1f\x7f]")


class KeySpace:
    """The names of one connection."""

    def __init__(self, root: str, *, longest_bytes: int = 1024, is_verbatim: bool = False) -> None:
        """``root`` begins every name; ``longest_bytes`` is what the store allows for one, in UTF-8."""
        self.root = root
        self._longest_bytes = longest_bytes
        self._is_verbatim = is_verbatim

    @classmethod
    def of(cls, namespace: str, tenant: str, connection: str, *, longest_bytes: int) -> KeySpace:
        """The part of a bucket that belongs to one tenant and connection."""
        root = "/".join((_escaped(namespace), *(_escaped(part).replace("/", "%2F") for part in (tenant, connection))))
        return cls(f"{root}/", longest_bytes=longest_bytes)

    def name(self, key: str) -> str:
        """Return the name of a key.

        Raises:
            ProviderError: ``invalid_argument``: no store takes this key under a name that other programs know (verbatim).
        """
        if self._is_verbatim:
            return self._verbatim(key)
        name = f"{self.root}{_escaped(key)}"
        if len(name.encode()) <= self._longest_bytes:
            return name
        digest = hashlib.sha256(key.encode()).hexdigest()
        return f"{self._cut(name)}{_LONG}{digest}"

    def _verbatim(self, key: str) -> str:
        name = f"{self.root}{key}"
        if _UNUSABLE.search(key) or len(name.encode()) > self._longest_bytes:
            error = FieldError("/params/key", "Leave out empty segments, '.', '..' and control characters; shorten it.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The bucket cannot hold this key.", errors=[error])
        return name

    def needs_more(self, key: str) -> bool:
        """Whether the name of a key is too short for it."""
        if len(key) * _LONGEST_ESCAPE + len(self.root) <= self._room:  # nearly every key
            return False
        return self.is_long(self.name(key))

    def is_long(self, name: str) -> bool:
        """Whether a name is too short for its key, which then is kept beside the content."""
        return not self._is_verbatim and _LONG in name

    def key(self, name: str) -> str:
        """Return the key of a name that is not ``is_long``, and the prefix of a folded one."""
        inside = name.removeprefix(self.root)
        if self._is_verbatim:
            return inside
        segments = [segment.removesuffix(_MARK).encode() for segment in inside.split("/")]
        plain = b"/".join(_ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), one) for one in segments)
        return plain.decode("utf-8", "replace")

    def prefix(self, prefix: str) -> tuple[str, bool]:
        """Return what the names of all keys with ``prefix`` begin with, and whether those of other keys do, too."""
        name = f"{self.root}{prefix if self._is_verbatim else _escaped_prefix(prefix)}"
        is_cut = len(name.encode()) > self._room
        return self._cut(name) if is_cut else name, is_cut

    @property
    def _room(self) -> int:
        return self._longest_bytes - len(_LONG) - _DIGEST_CHARACTERS

    def _cut(self, name: str) -> str:
        return name.encode()[: self._room].decode("utf-8", "ignore")


def _escaped(key: str) -> str:
    head, slash, last = _escaped_prefix(key).rpartition("/")
    return f"{head}{slash}{_closed(last)}"


def _escaped_prefix(prefix: str) -> str:
    *complete, partial = _SPECIAL.sub(_escape, prefix).split("/")
    return "/".join((*(_closed(segment) for segment in complete), partial))


def _closed(segment: str) -> str:
    """A complete segment: never empty, never ending with a dot."""
    return f"{segment}{_MARK}" if not segment or segment.endswith(".") else segment


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())
