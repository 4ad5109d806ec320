"""Compare and mend, pass after pass, until a pass finds nothing that differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from erp.cli.migrate.journal import Journal

WIDTH = 2**256


class MigrationError(Exception):
    """The migration cannot be made, or must not. The message says why and what to do."""


@dataclass
class Tally:
    """What a pass has found in one unit (a table, all objects, a topic)."""

    compared: int = 0
    copied: int = 0
    """Missing or different at the target, and written there."""
    removed: int = 0
    """No longer at the source, and removed from the target."""
    digest: int = 0
    """Of the source: the sum of the checksums of its things, so that their order does not count."""

    @property
    def changed(self) -> int:
        """How much of the target was not what it should be."""
        return self.copied + self.removed

    def add(self, checksum: bytes) -> None:
        """Count one thing of the source."""
        self.compared += 1
        self.digest = (self.digest + int.from_bytes(checksum)) % WIDTH

    def shown(self) -> dict[str, Any]:
        """Return it as reports show it."""
        return {**asdict(self), "digest": f"{self.digest:064x}"}


Advance = Callable[[str, int, int | None], None]
"""``advance(unit, done, total)``: how far a pass has come."""


class Copier(Protocol):
    """What a domain has to do. Every method may be called again after a kill and does nothing twice."""

    def check(self) -> list[str]:
        """Return what cannot be carried over, in words; find it out before anything is written.

        Raises:
            MigrationError: it cannot be done at all.
        """

    def is_empty(self) -> bool:
        """Whether the target holds nothing that a pass would have to remove or change."""

    def plan(self) -> dict[str, int]:
        """Return unit -> how much there is to copy."""

    def copy(self, number: int, advance: Advance) -> dict[str, Tally]:
        """Make the target what the source is; ``number`` counts the passes."""

    def fingerprint(self) -> dict[str, int]:
        """Return unit -> digest of the source, as ``copy`` would find it now. The target is not asked."""


@dataclass
class Outcome:
    """What all passes have come to."""

    passes: int = 0
    copied: dict[str, int] = field(default_factory=dict)
    last: dict[str, Tally] = field(default_factory=dict)

    @property
    def is_equal(self) -> bool:
        """Whether the newest pass found nothing to mend."""
        return bool(self.passes) and not any(one.changed for one in self.last.values())

    def note(self, tallies: dict[str, Tally]) -> None:
        """Count a pass."""
        self.passes += 1
        self.last = tallies
        for unit, tally in tallies.items():
            self.copied[unit] = self.copied.get(unit, 0) + tally.copied


def until_equal(copier: Copier, journal: Journal, advance: Advance, *, most: int) -> Outcome:
    """Make passes until one finds nothing to mend, at most ``most`` of them."""
    outcome = Outcome()
    while not outcome.is_equal and outcome.passes < most:
        number = journal.fact("pass", 1)
        outcome.note(copier.copy(number, advance))
        journal.note("pass", number + 1)
    return outcome
