"""When a server is paused and killed: drawn from a seed, so that a schedule can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

MOST_ANSWERS = 60
LONGEST_EXTRA_SECONDS = 0.004
LONGEST_PAUSE_SECONDS = 0.08
OVERTAKEN_SHARE = 0.1
LONGEST_START_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a server."""

    number: int
    killed_while_starting: float | None
    """Seconds after its start at which it is killed, ready or not; None: it is killed amid calls."""
    answers: int
    """How many calls are answered before the kill."""
    pause_seconds: float | None
    """How long it is stopped (SIGSTOP, SIGCONT) before the kill."""
    is_overtaken: bool
    """Whether it is frozen until all its leases have lapsed, another server repeats its calls, and only then goes on."""
    extra_seconds: float
    """How long the kill waits after the last answer: somewhere between two writes."""


def lives(seed: int, kills: int) -> Iterator[Life]:
    """Yield as many lives as there are kills."""
    dice = random.Random(seed)
    for number in range(1, kills + 1):
        yield Life(
            number=number,
            killed_while_starting=dice.uniform(0, LONGEST_START_SECONDS) if dice.random() < 0.1 else None,
            answers=dice.randint(0, MOST_ANSWERS),
            pause_seconds=dice.uniform(0, LONGEST_PAUSE_SECONDS) if dice.random() < 0.2 else None,
            is_overtaken=dice.random() < OVERTAKEN_SHARE,
            extra_seconds=dice.uniform(0, LONGEST_EXTRA_SECONDS),
        )
