"""Moments as the database keeps them: whole microseconds since 1970, UTC."""

from __future__ import annotations

import datetime
import time

MICROSECONDS = 1_000_000


def now() -> int:
    """Return the present moment."""
    return time.time_ns() // 1000


def after(seconds: float) -> int:
    """Return the moment ``seconds`` from now."""
    return now() + int(seconds * MICROSECONDS)


def of(time_: datetime.datetime) -> int:
    """Return the moment of a time with a zone."""
    return int(time_.timestamp() * MICROSECONDS)


def parsed(text: str) -> int:
    """Return the moment that RFC 3339 ``text`` names."""
    return of(datetime.datetime.fromisoformat(text))


def text(moment: int) -> str:
    """Return ``moment`` as RFC 3339 text in UTC."""
    seconds, microseconds = divmod(moment, MICROSECONDS)
    found = datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(microsecond=microseconds)
    return found.isoformat().replace("+00:00", "Z")


def optional_text(moment: int | None) -> str | None:
    """Return ``moment`` as text, or None for None."""
    return None if moment is None else text(moment)
