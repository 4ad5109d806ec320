"""The ledger of proof: how each capability of each provider was shown to be kept, against which server, and when.

``proof.json`` is written by ``erp provider certify REF --record`` and by nothing else; ``erp contracts generate`` only
brings it into its form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

FILE = "proof.json"

Levels = dict[str, str]
"""Capability -> P0 to P5."""


class _Levels(TypedDict):
    levels: Levels


class Proof(_Levels, total=False):
    """What is known of one provider."""

    server: str
    """Name and version as the server says them (``Redis 8.0.2``); absent when nothing stands behind the provider."""
    date: str
    """When it was proven last (RFC 3339, ``full-date``); absent when nobody wrote it down."""


def read(path: Path) -> dict[str, Proof]:
    """Return provider -> proof; empty when there is no ledger."""
    if not path.is_file():
        return {}
    return {ref: entry(found) for ref, found in json.loads(path.read_text(encoding="utf-8")).items()}


def entry(found: Mapping[str, Any]) -> Proof:
    """Return an entry in its form; one that holds levels alone, as they were once kept, is taken for what it is."""
    if isinstance(found.get("levels"), dict):
        return cast("Proof", found)
    return Proof(levels=dict(found))


def text(ledger: Mapping[str, Proof]) -> str:
    """Return the ledger as it is kept: sorted, one capability a line."""
    return json.dumps(ledger, indent=2, sort_keys=True) + "\n"
