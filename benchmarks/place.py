"""Where a benchmark opens a provider by itself: none of the layer's ports is there, for it needs none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from erp.runtime.spi import OpenContext


async def _nobody_reminds(_: Any) -> None:
    """Reminders go nowhere."""


def place(folder: Path) -> OpenContext:
    """Return the place of a connection that keeps all it has in ``folder``."""
    nothing = cast("Any", None)
    return OpenContext(
        tenant="bench",
        connection="default",
        data_dir=folder,
        shared_dir=folder,
        vault=nothing,
        identity=nothing,
        links=nothing,
        remind=_nobody_reminds,
        overlaps=nothing,
    )
