"""Run-time access to what was generated: one JSON, read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec


@cache
def catalog() -> dict[str, Any]:
    """Return domains, services, gateway operations, providers and proofs as generated."""
    found: dict[str, Any] = msgspec.json.decode(document("catalog.json"))
    return found


@cache
def quality() -> dict[str, str]:
    """Return provider -> level of the quality scale, of the providers of this distribution."""
    found: dict[str, str] = msgspec.json.decode(document("quality.json"))
    return found


def document(name: str) -> bytes:
    """Return a generated document: ``catalog.json``, ``quality.json``, ``openapi.json``, ``asyncapi.json``, ``state.schema.json``."""
    return files("erp.contracts").joinpath(name).read_bytes()
