"""What an object carries beside its content: the caller's names and values, and what the layer itself has to know.

A store takes ASCII only, folds the case of names and drops blanks. What it would change is kept together in one entry
as base64 of JSON; everything else stands under its own name, where other programs look for it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

DEFAULT_TYPE = "application/octet-stream"
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TAKEN = re.compile(r"erp[-_]|content|cache|storage|expires|etag|range|tagging")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an object beside its content."""

    content_type: str
    metadata: dict[str, str]
    sha256: str | None = None
    """Of the content, when it was written in one piece."""
    key: str | None = None
    """The key, when the name in the bucket is too short for it."""
    request: str | None = None
    """Which request wrote the object under a condition."""


class MetadataForm:
    """How one vendor spells the names of metadata."""

    def __init__(self, separator: str = "-") -> None:
        """``separator`` stands between the words of our own names: Azure takes no hyphen."""
        self._own = f"erp{separator}"
        self._plain = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*" if separator == "-" else r"[a-z][a-z0-9_]*")

    def written(self, facts: Facts) -> dict[str, str]:
        """Return the entries to store."""
        odd = {name: value for name, value in facts.metadata.items() if not self._is_plain(name, value)}
        entries = {name: value for name, value in facts.metadata.items() if name not in odd}
        own = {
            "sha256": facts.sha256,
            "key": None if facts.key is None else _packed(facts.key.encode()),
            "request": facts.request,
            "metadata": _packed(msgspec.json.encode(odd)) if odd else None,
        }
        return entries | {f"{self._own}{name}": value for name, value in own.items() if value is not None}

    def read(self, content_type: str | None, entries: Mapping[str, str]) -> Facts:
        """Return what ``written`` was given; entries of other programs as they are."""
        own = {name.removeprefix(self._own): value for name, value in entries.items() if name.startswith(self._own)}
        metadata = {name: value for name, value in entries.items() if not name.startswith(self._own)}
        return Facts(
            content_type=content_type or DEFAULT_TYPE,
            metadata=metadata | _odd(own.get("metadata")),
            sha256=_checked(own.get("sha256")),
            key=_key(own.get("key")),
            request=own.get("request"),
        )

    def _is_plain(self, name: str, value: str) -> bool:
        is_name = self._plain.fullmatch(name) is not None and _TAKEN.match(name) is None
        return is_name and _VALUE.fullmatch(value) is not None


def _checked(digest: str | None) -> str | None:
    return digest if digest is not None and _SHA256.fullmatch(digest) else None


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


def _odd(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=dict[str, str])
    except (binascii.Error, ValueError):
        return {}


def _key(text: str | None) -> str | None:
    try:
        return None if text is None else base64.urlsafe_b64decode(text).decode()
    except (binascii.Error, ValueError):
        return None
