"""Deliveries that consumers hold. RabbitMQ knows no time after which they go back; this process keeps it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erp.providers.bus.rabbitmq.topology import Place

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage


@dataclass(frozen=True, slots=True)
class Held:
    """A message that is with a consumer."""

    message: AbstractIncomingMessage
    place: Place
    deliveries: int
    version: int
    """Of the receiving channel it came on."""


class Holding:
    """What is held, by receipt, and what is on its way back."""

    def __init__(self, lapse: Callable[[Held], Coroutine[Any, Any, None]]) -> None:
        self._lapse = lapse
        self._owner = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._held: dict[str, tuple[Held, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, held: Held, seconds: float) -> str:
        """Keep a message for its consumer for a time; return the receipt."""
        receipt = f"{self._owner}.{next(self._numbers)}"
        timer = asyncio.get_running_loop().call_later(seconds, self._lapsed, receipt)
        self._held[receipt] = held, timer
        return receipt

    def take(self, receipts: Iterable[str], version: int) -> list[Held]:
        """Take back what these receipts are for, as far as it is held."""
        found = []
        for receipt in receipts:
            held, timer = self._held.pop(receipt, (None, None))
            if held is not None and timer is not None:
                timer.cancel()
                if held.version == version:
                    found.append(held)
        return found

    def of(self, place: Place) -> list[str]:
        """Return the receipts of a group."""
        return [receipt for receipt, (held, _) in self._held.items() if held.place == place]

    def later(self, seconds: float, held: Held) -> None:
        """Let a message go back after a pause."""

        async def go_back() -> None:
            await asyncio.sleep(seconds)
            await self._lapse(held)

        self._run(go_back())

    def _lapsed(self, receipt: str) -> None:
        held, _ = self._held.pop(receipt)
        self._run(self._lapse(held))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="bus-rabbitmq return")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Forget everything; RabbitMQ gives it back when the channel closes."""
        for _, timer in self._held.values():
            timer.cancel()
        self._held.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
