"""A file that tenants share: statements run on it, all or none, and then a look at it as a tenant has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from erp.cli.db.servers import named_file
from erp.cli.db.stranger import Engine, met

Listed = tuple[list[str], list[str]]
"""What is wrong, and the tables that the file lists when nothing is."""


class UnusableFileError(Exception):
    """The file cannot be used; the message says why, and what to do."""


def on_file(engine: Engine, listed: Callable[[Path], Listed], *, check: bool) -> list[str]:
    """Return what is wrong with the file that the variable names.

    Args:
        engine: whose file it is.
        listed: runs the statements; what it finds wrong, or raises as ``UnusableFileError``, has undone them.
        check: whether to look as a tenant does, too.
    """
    try:
        path = named_file(engine.name, engine.ending)
    except FileNotFoundError as error:
        return [str(error)]
    try:
        found, tables = listed(path)
    except UnusableFileError as error:
        return [f"{path} {error}; nothing was changed"]
    return found if found or not check else asyncio.run(met(path, tables, engine))
