"""A second engine is asked the same questions; what it answers otherwise is counted and reported, and decides nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erp.runtime.question import Decision
    from erp.security.policy.engines import Engine

MAX_WAITING = 1000
KEPT = 50


class Shadow:
    """Compares decisions in the background."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()
        self.compared = 0
        self.skipped = 0
        """Not compared, because too many comparisons were waiting."""
        self.different = 0
        self.differences: deque[dict[str, Any]] = deque(maxlen=KEPT)
        """The newest: question, and what each engine decided."""

    def compare(self, input_: dict[str, Any], decided: Decision) -> None:
        """Ask the second engine soon."""
        if len(self._tasks) >= MAX_WAITING:
            self.skipped += 1
            return
        task = asyncio.create_task(self._compare(input_, decided), name="policy shadow")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self, input_: dict[str, Any], decided: Decision) -> None:
        other = await self._engine.decide(input_)
        self.compared += 1
        if other != decided:
            self.different += 1
            self.differences.append({"input": input_, "decided": _shown(decided), self._engine.name: _shown(other)})

    def report(self) -> dict[str, Any]:
        """Return the counts and the newest differences."""
        return {
            "engine": self._engine.name,
            "compared": self.compared,
            "skipped": self.skipped,
            "different": self.different,
            "differences": list(self.differences),
        }

    async def close(self) -> None:
        """Stop comparing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._engine.close()


def _shown(decision: Decision) -> dict[str, Any]:
    return {"allow": decision.allow, "reason": decision.reason}
