"""When a delivery is attempted again, and when an endpoint is given up."""

from __future__ import annotations

import random

DELAYS = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds between attempts that follow each other: at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h."""
ATTEMPTS = len(DELAYS) + 1
JITTER = 0.2
"""Each pause is up to this part longer or shorter, so that messages that failed together do not come back together."""
FAILING_SECONDS = 5 * 86_400.0
"""An endpoint to which nothing got through for so long is disabled."""
LONGEST_SECONDS = 86_400.0
"""No pause is longer, whatever an endpoint asks for."""

_jitter = random.SystemRandom()


def pause_seconds(tries: int, retry_after_seconds: float | None) -> float | None:
    """Seconds until the next attempt after ``tries`` failed ones; None when that was the last."""
    if tries >= ATTEMPTS:
        return None
    planned = DELAYS[tries - 1] * _jitter.uniform(1 - JITTER, 1 + JITTER)
    return min(max(planned, retry_after_seconds or 0.0), LONGEST_SECONDS)
