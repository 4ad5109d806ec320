"""File names for object keys. No key can name a file outside the folder, because no key is ever a path.

A key becomes one flat name: letters, digits, ``-`` and ``_`` stand for themselves, every other byte of its UTF-8
form is ``%XX``. There are no slashes, no dots and no case to fold (capital letters are escaped too), so ``..``,
absolute paths, device names, NUL and look-alikes are just text. A name longer than a file system allows
ends in a digest instead; the object's own head keeps the whole key.
"""

from __future__ import annotations

import hashlib

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_MAX_NAME = 200
_PREFIX = "o-"


def file_name(key: str) -> str:
    """Return the name of the file that holds ``key``."""
    escaped = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in key.encode("utf-8", "surrogatepass"))
    if len(escaped) <= _MAX_NAME:
        return _PREFIX + escaped
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_PREFIX}{escaped[:100]}%%{digest}"


def key_of(name: str) -> str | None:
    """Return the key that a file is named after; None when the name ends in a digest and only the head knows."""
    escaped = name.removeprefix(_PREFIX)
    if "%%" in escaped:
        return None
    plain, *rest = escaped.split("%")
    parts = [plain.encode(), *(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)]
    return b"".join(parts).decode("utf-8", "surrogatepass")


def is_object(name: str) -> bool:
    """Whether a file of this name holds an object (and is not being written)."""
    return name.startswith(_PREFIX)
