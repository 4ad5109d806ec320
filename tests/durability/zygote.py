"""A program that has everything imported and forks servers: a start costs the work of starting, not of importing.

Each line of standard input is a JSON object and has one line as its answer. ``{"furnish": DIRECTORY}`` makes a data
directory, which imports whatever a server imports only once it is asked; the answer is the keys. ``{"serve": DIRECTORY,
"log": FILE}`` forks a child that runs what ``erp serve --port 0`` runs, with ``FILE`` as its standard error; the answer
is its process id. Children die with the zygote, and the zygote with its standard input.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tests.durability import shifted_clock
from tests.durability.furnishing import furnished

DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of ``prctl(2)``."""
IMPORTED_LATE = ("uvloop", "httptools", "uvicorn.protocols.http.httptools_impl", "erp.cli.serve", "erp.gateway.server")
"""What furnishing does not need, but serving."""


def serve(order: dict[str, Any]) -> None:
    """Be a server until killed. Never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _redirect(Path(order["log"]))
        from erp.cli.serve import run
        from erp.main import Settings

        status = run(Settings(data_dir=Path(order["serve"]), database_url=None, log_level="warning"), "127.0.0.1", 0)
    finally:
        os._exit(status)


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, source in ((0, nothing), (1, nothing), (2, target)):
        os.dup2(source, descriptor)


def fork(order: dict[str, Any]) -> int:
    """Return the process id of a new server."""
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    if threading.active_count() != 1:
        message = f"threads would not survive a fork: {threading.enumerate()}"
        raise RuntimeError(message)
    gc.freeze()
    child = os.fork()
    if child == 0:
        serve(order)
    return child


def main() -> None:
    """Do as told until standard input ends."""
    shifted_clock.install_if_wanted()
    # The kernel buries the children; the harness watches them by pidfd.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        answer = furnished(Path(order["furnish"])) if "furnish" in order else fork(order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
