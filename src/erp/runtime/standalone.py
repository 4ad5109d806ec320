"""A place for a provider that is opened without the layer, as tools, benchmarks and killed processes of tests do."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from erp.runtime.spi import OpenContext


class _Absent:
    """Stands for a port of the layer's; a provider that needs it is told which one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, asked: str) -> NoReturn:
        message = f"the provider needs {self._name}.{asked}, which only the layer has: call it through the layer"
        raise RuntimeError(message)


async def _nobody_reminds(_: datetime.datetime) -> None:
    """Reminders go nowhere: what waits is done by the provider itself, while it is open."""


def place(data_dir: Path, *, shared_dir: Path | None = None, tenant: str = "standalone") -> OpenContext:
    """Return the place of a connection that keeps what it has in ``data_dir`` and meets none of the layer's ports.

    Args:
        data_dir: a folder of the connection's own that exists.
        shared_dir: what all tenants share; ``data_dir`` when there is no such folder.
        tenant: whose the connection is.
    """
    ports: dict[str, Any] = {name: cast("Any", _Absent(name)) for name in ("vault", "identity", "links", "overlaps")}
    return OpenContext(
        tenant=tenant,
        connection="default",
        data_dir=data_dir,
        shared_dir=shared_dir or data_dir,
        remind=_nobody_reminds,
        **ports,
    )
