"""Lua that Redis runs as one indivisible step (https://redis.io/docs/latest/develop/programmability/eval-intro/)."""

from __future__ import annotations

import hashlib


class Script:
    """A script and the digest by which a server that has seen it knows it."""

    __slots__ = ("digest", "text")

    def __init__(self, *parts: str) -> None:
        """Join ``parts``; functions that several scripts use are a part of each."""
        self.text = "\n".join(parts)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
