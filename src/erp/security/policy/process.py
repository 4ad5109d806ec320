"""The layer's side of the process that runs Rego: started when needed, killed when it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from erp.security.policy.rego import Finding

START_SECONDS = 30.0
GRACE_SECONDS = 0.2
"""A process that has nothing to do ends by itself when its input does."""
LONGEST_ANSWER = 1 << 20
_PASSED_ON = ("PATH", "LANG", "PYTHONPATH", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""The process gets no secret of the layer's environment."""


class NoAnswerError(Exception):
    """The process died, or did not answer in time and was killed. The next question starts another one."""


class RegoProcess:
    """Evaluates programs, one question at a time."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Be ready before the first question."""
        async with self._turn:
            with contextlib.suppress(NoAnswerError):
                await self._running()

    async def evaluate(self, key: str, modules: Mapping[str, str], entry: str, input_: str) -> Any:
        """Return the value of ``entry`` for an input; None when it is undefined.

        Args:
            key: names the program, uniquely.
            modules: file name -> source.
            entry: a path as ``erp/decision/verdict``.
            input_: JSON.

        Raises:
            NoAnswerError: nothing is known.
        """
        found = await self._ask({"key": key, "modules": dict(modules), "entry": entry, "input": input_})
        return found.get("value")

    async def findings(
        self, key: str, modules: Mapping[str, str], entry: str, input_: str
    ) -> tuple[list[Finding], Any]:
        """Return what is wrong with a program; without a finding, its value for an input.

        Raises:
            NoAnswerError: nothing is known.
        """
        found = await self._ask({"key": key, "modules": dict(modules), "entry": entry, "input": input_})
        return msgspec.convert(found.get("findings", []), list[Finding]), found.get("value")

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            process = await self._running()
            answered = None
            try:
                answered = await self._line(process, request)
            except (TimeoutError, OSError, ValueError) as error:
                raise NoAnswerError from error
            finally:
                if answered is None:
                    await self._stop()
            if answered is None:
                raise NoAnswerError
            return answered

    async def _line(self, process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any] | None:
        assert process.stdin is not None  # noqa: S101  (a pipe)
        assert process.stdout is not None  # noqa: S101
        async with asyncio.timeout(self.seconds):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        found = json.loads(line) if line.endswith(b"\n") else None
        return found if isinstance(found, dict) else None

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        made = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "erp.security.policy.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=LONGEST_ANSWER,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            # A terminal's Ctrl-C is for the layer, which then ends its own.
            start_new_session=True,
        )
        assert made.stdout is not None  # noqa: S101  (a pipe)
        ready = b""
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await made.stdout.readline()
        except TimeoutError as error:
            raise NoAnswerError from error
        finally:
            if not ready:
                await self._stop()
        if not ready:
            raise NoAnswerError
        return made

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def close(self) -> None:
        """End the process. Safe twice."""
        async with self._turn:
            await self._stop()
