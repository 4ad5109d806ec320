"""The providers whose conformance suite needs a server: a module each, found by its name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast


class Live(Protocol):
    """One of them."""

    REF: str
    VARIABLE: str

    def config(self, address: str) -> Mapping[str, Any]:
        """Return the configuration with which the provider reaches the server."""


def _module(path: Path) -> Live:
    return cast("Live", importlib.import_module(f"tests.conformance.live.{path.stem}"))


LIVE = {one.REF: one for one in map(_module, sorted(Path(__file__).parent.glob("[a-z]*_*.py")))}
PRESENT = {ref: address for ref, one in LIVE.items() if (address := os.environ.get(one.VARIABLE))}
"""Those whose server is there, with its address."""
