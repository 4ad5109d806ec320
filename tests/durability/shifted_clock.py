"""A wall clock that a test moves: what ``time`` and ``datetime`` say in a server is shifted by the number in a file.

The monotonic clock goes on as it does when an administrator or NTP sets the time. Only for programs of the tests, and
only when nothing has been imported that keeps ``time.time`` under another name.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import mmap
import os
import struct
import time
from pathlib import Path

VARIABLE = "ERP_TEST_CLOCK"
"""Names the file."""
_NUMBER = struct.Struct("d")


def make(file: Path) -> None:
    """Make a file that shifts nothing."""
    file.write_bytes(_NUMBER.pack(0.0))


def shift(file: Path, seconds: float) -> None:
    """Let every process that looks at ``file`` be that many seconds ahead of the real time, from now on."""
    with file.open("r+b") as opened:
        opened.write(_NUMBER.pack(seconds))


def install_if_wanted() -> None:
    """Shift the clock of this process and its children, when the environment names a file."""
    name = os.environ.get(VARIABLE)
    if name:
        _install(Path(name))


def _install(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    number = mmap.mmap(descriptor, _NUMBER.size, mmap.MAP_SHARED, mmap.PROT_READ)
    os.close(descriptor)
    real_time, real_time_ns, real_now = time.time, time.time_ns, datetime.datetime.now

    def ahead() -> float:
        found: float = _NUMBER.unpack(number[:])[0]
        return found

    def now(tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return real_now(tz) + datetime.timedelta(seconds=ahead())

    time.time = lambda: real_time() + ahead()
    time.time_ns = lambda: real_time_ns() + int(ahead() * 1_000_000_000)
    # The type is written in C and shared by all who have imported it, so it is changed rather than replaced.
    gc.get_referents(datetime.datetime.__dict__)[0]["now"] = staticmethod(now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
