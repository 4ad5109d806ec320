"""The phases of one migration, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from erp.cli.migrate.cutover import MIRRORED, Cutover
from erp.cli.migrate.journal import Journal
from erp.cli.migrate.passes import Advance, Copier, MigrationError, Outcome, until_equal
from erp.cli.migrate.side import Side

if TYPE_CHECKING:
    from pathlib import Path

    from httpx2 import Client

CALL_SECONDS = 120.0
COPIED = ("bus", "db", "storage")
DOMAINS = ("bus", "cache", "db", "storage")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    refs: tuple[str, str]
    connections: tuple[str, str]
    route: str | None
    shadow_seconds: float
    may_differ: int
    topics: tuple[str, ...]
    groups: tuple[str, ...]
    is_overwriting: bool
    passes: int
    is_dry_run: bool
    journal: Path

    @property
    def domain(self) -> str:
        """Of both sides.

        Raises:
            MigrationError: they have none in common, or it cannot be migrated.
        """
        first, second = (ref.partition("/")[0] for ref in self.refs)
        if first != second or first not in DOMAINS:
            message = (
                f"{self.refs[0]} cannot be moved to {self.refs[1]}: name two providers of one of {', '.join(DOMAINS)}."
            )
            raise MigrationError(message)
        if self.refs[0] == self.refs[1] and self.connections[0] == self.connections[1]:
            raise MigrationError("Source and target are the same connection: name another one with --to-connection.")
        if self.shadow_seconds and (self.route is None or first not in MIRRORED):
            raise MigrationError("--shadow needs --route, and a cache, a database or a storage.")
        if first == "bus" and not self.topics:
            raise MigrationError("A bus does not list its topics: name each with --topic.")
        if first == "cache" and not self.shadow_seconds:
            message = (
                "A cache does not list its keys and does not tell how long they live, so that nothing is copied: "
                "give --route and --shadow, long enough for the entries that matter to be written anew."
            )
            raise MigrationError(message)
        return first


def finished(options: Options, url: str, key: str) -> dict[str, Any]:
    """Make the migration and return its report.

    Raises:
        MigrationError, JournalError, CallError, ServerError: it cannot be done; what was done is in the journal.
    """
    import httpx2

    domain = options.domain
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with (
        httpx2.Client(base_url=url, headers=headers, timeout=CALL_SECONDS) as client,
        _opened(options.journal) as journal,
    ):
        source, target = (Side(client, *pair) for pair in zip(options.refs, options.connections, strict=True))
        source.look()
        target.look()
        return _Migration(options, client, (source, target), journal, key).report(domain)


@contextmanager
def _opened(path: Path) -> Iterator[Journal]:
    is_new = not path.exists()
    journal = Journal(path)
    try:
        yield journal
    finally:
        begun = journal.fact("plan") is not None
        journal.close()
        if is_new and not begun:
            path.unlink(missing_ok=True)


class _Migration:
    def __init__(self, options: Options, client: Client, sides: tuple[Side, Side], journal: Journal, key: str) -> None:
        from erp.cli.state.server import Server

        self._options = options
        self._sides = sides
        self._journal = journal
        server = Server(client, key)
        self._cutover = Cutover(server, options.route, sides, journal) if options.route else None

    def report(self, domain: str) -> dict[str, Any]:
        """Go through the phases."""
        found: dict[str, Any] = {
            "from": self._sides[0].name,
            "to": self._sides[1].name,
            "units": {},
            "not_carried_over": [],
        }
        copier = _copier(domain, self._sides, self._journal, self._options) if domain in COPIED else None
        if copier is not None:
            found["not_carried_over"] = copier.check()
        if self._options.is_dry_run:
            units = copier.plan() if copier else {}
            return {**found, "state": "dry_run", "units": {name: {"to_copy": count} for name, count in units.items()}}
        self._begin(copier)
        if copier is None:
            return {**found, **self._warmed()}
        return {**found, **self._moved(copier)}

    def _begin(self, copier: Copier | None) -> None:
        """Note what is planned, once it is known that nothing of others would be lost."""
        options = self._options
        plan = {"from": self._sides[0].name, "to": self._sides[1].name, "topics": list(options.topics)}
        is_resumed = self._journal.fact("plan") is not None
        if copier is not None and not is_resumed and not options.is_overwriting and not copier.is_empty():
            message = (
                f"{self._sides[1].name} holds something already, which would be removed. "
                "How to fix: name an empty connection, or say --overwrite."
            )
            raise MigrationError(message)
        if self._cutover is not None:
            self._cutover.check()
        self._journal.begin(plan)

    def _moved(self, copier: Copier) -> dict[str, Any]:
        if self._cutover is not None and self._cutover.is_switched:
            return {"state": "switched", "passes": 0}
        outcome = self._passes(copier)
        compared: dict[str, Any] = {}
        if self._cutover is not None and self._options.shadow_seconds and outcome.is_equal:
            compared["shadow"] = self._shadowed()
            outcome = self._passes(copier, outcome)
        if self._cutover is None or not self._is_good(outcome, compared):
            state = "equal" if self._is_good(outcome, compared) else "different"
            if self._cutover is not None:
                self._cutover.restore()
            return {"state": state, **_shown(outcome), **compared}
        self._cutover.switch()
        late = {
            unit: {"digest_now": f"{digest:064x}"}
            for unit, digest in copier.fingerprint().items()
            if digest != outcome.last[unit].digest
        }
        shown = _shown(outcome)
        for unit, one in late.items():
            shown["units"][unit] |= one
        return {"state": "late_writes" if late else "switched", **shown, **compared}

    def _is_good(self, outcome: Outcome, compared: dict[str, Any]) -> bool:
        different = compared.get("shadow", {}).get("different", 0)
        return outcome.is_equal and different <= self._options.may_differ

    def _passes(self, copier: Copier, before: Outcome | None = None) -> Outcome:
        with _progress() as advance:
            outcome = until_equal(copier, self._journal, advance, most=self._options.passes)
        if before is None:
            return outcome
        total = {unit: count + before.copied.get(unit, 0) for unit, count in outcome.copied.items()}
        return replace(outcome, passes=outcome.passes + before.passes, copied=total)

    def _warmed(self) -> dict[str, Any]:
        """Mirror calls to an empty cache until the entries that matter have been written to it, then switch."""
        assert self._cutover is not None  # noqa: S101  (the options require a route)
        if self._cutover.is_switched:
            return {"state": "switched"}
        shadow = self._shadowed()
        self._cutover.switch()
        return {"state": "switched", "shadow": shadow}

    def _shadowed(self) -> dict[str, Any]:
        assert self._cutover is not None  # noqa: S101  (asked by the caller)
        with _progress() as advance:
            seconds = self._options.shadow_seconds

            def show(passed: float, report: dict[str, Any]) -> None:
                unit = f"shadow: {report['compared']} compared, {report['different']} different"
                advance(unit, int(passed), int(seconds))

            return self._cutover.shadow(seconds, show)


def _copier(domain: str, sides: tuple[Side, Side], journal: Journal, options: Options) -> Copier:
    if domain == "storage":
        from erp.cli.migrate.storage import StorageCopier

        return StorageCopier(*sides, journal)
    if domain == "db":
        from erp.cli.migrate.db import DatabaseCopier

        return DatabaseCopier(*sides, journal)
    from erp.cli.migrate.bus import BusCopier

    return BusCopier(*sides, journal, options.topics, options.groups)


def _shown(outcome: Outcome) -> dict[str, Any]:
    units = {name: {**tally.shown(), "copied": outcome.copied[name]} for name, tally in outcome.last.items()}
    return {"passes": outcome.passes, "units": units}


@contextmanager
def _progress() -> Iterator[Advance]:
    """Show how far it has come, on standard error; one line for each unit."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(unit: str, done: int, total: int | None) -> None:
            name = unit.partition(":")[0]
            if name not in tasks:
                tasks[name] = progress.add_task(unit, total=total)
            progress.update(tasks[name], completed=done, total=total, description=unit)

        yield advance
