"""What became of cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from erp.runtime.conformance.case import Case

Status = Literal["passed", "failed", "gap", "closed_gap", "not_run"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case ended."""

    case: Case
    status: Status
    seconds: float = 0.0
    reason: str = ""
    """Why it failed or did not run; of a gap, the manifest's reason."""
    trace: str = ""
    """Where it failed, for the author of the provider."""

    @property
    def is_bad(self) -> bool:
        """A gap that has closed is bad too: the manifest must not go on naming it."""
        return self.status in {"failed", "closed_gap"}


@dataclass(slots=True)
class Report:
    """All outcomes of one provider."""

    ref: str
    version: str
    contract: str
    outcomes: list[Outcome] = field(default_factory=list)
    server: str | None = None
    """Name and version of what answered, as it says itself; None: nothing stands behind the provider."""

    @property
    def is_good(self) -> bool:
        """True when nothing failed and something passed."""
        return not any(one.is_bad for one in self.outcomes) and any(one.status == "passed" for one in self.outcomes)

    def with_status(self, *statuses: Status) -> Iterator[Outcome]:
        """The outcomes that ended so."""
        return (one for one in self.outcomes if one.status in statuses)

    @property
    def counts(self) -> dict[str, int]:
        """How many ended how."""
        return dict(Counter(one.status for one in self.outcomes))

    @property
    def counted(self) -> str:
        """How many ended how, in words: ``40 passed, 2 not run``."""
        return ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in self.counts.items())

    @property
    def summary(self) -> str:
        """One line: ``cache/memory: 40 passed, 2 not run in 1.2 s``."""
        return f"{self.ref}: {self.counted or 'no case applies'} in {sum(one.seconds for one in self.outcomes):.1f} s"

    def proven(self, capability: str) -> bool:
        """Whether every case of ``capability`` ran and passed, and there was one."""
        mine = [one for one in self.outcomes if one.case.capability == capability]
        return bool(mine) and all(one.status == "passed" for one in mine)
