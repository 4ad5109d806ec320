"""A server is started, driven and killed again and again on one data directory; after each start the files are checked."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.durability import invariants, schedule
from tests.durability.driver import GONE, Caller, Client, Tally, overtake, spend
from tests.durability.effects import LIMITED, TENANT, Evidence
from tests.durability.furnishing import CALLERS, LIMITED_UNITS
from tests.durability.ledger import Book, Ledger
from tests.durability.processes import ServerProcess, Starter

LIFE_SECONDS = 20.0
OVERTAKEN_SECONDS = 0.05
SETTLE_SECONDS = 60.0


@dataclass(slots=True)
class Summary:
    """What a campaign did."""

    seed: int
    kills: int
    calls: int
    answered: int
    unknown: int
    audit_records: int
    quota_admitted: int
    quota_refused: int
    violations: list[str]


class Campaign:
    """Kills by one seed."""

    def __init__(self, folder: Path, starter: Starter, seed: int) -> None:
        self._data_dir, self._log = folder / "data", folder / "server.log"
        self._starter = starter
        self._seed = seed
        self._keys = starter.furnish(self._data_dir)
        self._evidence = Evidence(self._data_dir)
        self._ledger = Ledger([Book(caller) for caller in CALLERS])
        self._chain = invariants.Chain()
        self._kills = 0

    def run(self, kills: int) -> Summary:
        """Live and be killed that often, then live once more and let everything settle."""
        for life in schedule.lives(self._seed, kills):
            self._live(life)
            if self._ledger.violations:
                break
        else:
            self._settle()
        return self._summary()

    def _summary(self) -> Summary:
        states = [sent.state for sent in self._ledger.all()]
        return Summary(
            seed=self._seed,
            kills=self._kills,
            calls=len(states),
            answered=states.count("answered"),
            unknown=states.count("unknown"),
            audit_records=self._chain.seq,
            quota_admitted=self._ledger.allowance.admitted,
            quota_refused=self._ledger.allowance.refused,
            violations=self._ledger.violations,
        )

    # -- one life --------------------------------------------------------------------------------

    def _live(self, life: schedule.Life) -> None:
        server = self._starter.start(self._data_dir, self._log)
        try:
            if life.killed_while_starting is not None:
                time.sleep(life.killed_while_starting)
                return
            server.ready()
            let_leases_lapse(self._evidence.control_file)
            self._check(life.number - 1)
            self._drive(server, life)
        finally:
            server.kill()
            self._kills += 1

    def _check(self, last_life: int) -> None:
        """Check what the last life did, while the next one has begun and nobody calls yet."""
        sent = self._ledger.of_life(last_life)
        evidence = self._evidence
        self._expect(
            invariants.effects(evidence, sent),
            self._chain.check(evidence),
            invariants.quota(evidence, self._ledger, LIMITED_UNITS),
        )

    def _expect(self, *found: Iterable[str]) -> None:
        for violations in found:
            for violation in violations:
                self._ledger.violated(violation)

    def _drive(self, server: ServerProcess, life: schedule.Life) -> None:
        tally = Tally()
        clients = [Client(server.address, self._keys[TENANT]) for _ in self._ledger.books]
        limited = Client(server.address, self._keys[LIMITED])
        with ThreadPoolExecutor(len(clients) + 1) as threads:
            running = [
                threads.submit(self._caller(client, book, tally).run, life.number, self._dice(life, book))
                for client, book in zip(clients, self._ledger.books, strict=True)
            ]
            running.append(threads.submit(spend, limited, self._ledger.allowance, self._ledger))
            if not tally.wait_for(life.answers, LIFE_SECONDS):
                self._ledger.violated(f"life {life.number}: fewer than {life.answers} answers in {LIFE_SECONDS} s")
            self._end(server, life)
            for caller in running:
                caller.result()
        for client in (*clients, limited):
            client.close()

    def _end(self, server: ServerProcess, life: schedule.Life) -> None:
        time.sleep(life.extra_seconds)
        if life.is_overtaken:
            self._overtake(server)
        if life.pause_seconds is not None:
            server.pause(life.pause_seconds)
        server.kill()

    def _overtake(self, server: ServerProcess) -> None:
        """Let a second server take over what the first is frozen in, thaw the first, and kill the second."""
        server.signal(signal.SIGSTOP)
        try:
            # A process frozen while it writes holds the file: then nobody can take over.
            let_leases_lapse(self._evidence.control_file, seconds=0.1)
        except sqlite3.OperationalError:
            server.signal(signal.SIGCONT)
            return
        second = self._starter.start(self._data_dir, self._log)
        try:
            client = Client(second.ready().address, self._keys[TENANT])
            with suppress(*GONE):
                overtake(client, self._ledger)
            client.close()
            server.signal(signal.SIGCONT)
            time.sleep(OVERTAKEN_SECONDS)
        finally:
            server.signal(signal.SIGCONT)
            second.kill()
            self._kills += 1

    def _caller(self, client: Client, book: Book, tally: Tally) -> Caller:
        return Caller(client, book, self._ledger, tally)

    def _dice(self, life: schedule.Life, book: Book) -> random.Random:
        return random.Random(f"{self._seed}.{life.number}.{book.caller}")

    # -- the last life ---------------------------------------------------------------------------

    def _settle(self) -> None:
        let_leases_lapse(self._evidence.control_file)
        let_steps_be_due(self._evidence.database_file)
        server = self._starter.start(self._data_dir, self._log).ready()
        try:
            self._end_all_calls(server)
            self._wait_for_events()
            self._check_all()
        finally:
            server.kill()
        self._expect(invariants.intact(self._data_dir))

    def _end_all_calls(self, server: ServerProcess) -> None:
        """Let every caller learn how its last call ended, and ask for all answers it remembers once more."""
        client = Client(server.address, self._keys[TENANT])
        for book in self._ledger.books:
            caller = self._caller(client, book, Tally())
            try:
                caller.settle()
                caller.repeat(random.Random(self._seed))
            except GONE as error:
                self._ledger.violated(f"the last life ended by itself: {error}\n{server.log}")
        client.close()

    def _wait_for_events(self) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            due = self._evidence.control("SELECT count(*) FROM outbox WHERE state = 'due'")[0][0]
            pending = self._evidence.database("SELECT count(*) FROM order_steps WHERE status = 'pending'")[0][0]
            if not due and not pending:
                return
            time.sleep(0.05)

    def _check_all(self) -> None:
        evidence, sent = self._evidence, self._ledger.all()
        self._expect(
            invariants.effects(evidence, sent),
            invariants.rotations(evidence, sent),
            invariants.strangers(evidence, sent),
            invariants.publications_in_order(evidence, sent),
            invariants.followed_up(evidence),
            invariants.events(evidence, sent),
            self._chain.check(evidence),
            invariants.audited(evidence, sent),
            invariants.quota(evidence, self._ledger, LIMITED_UNITS),
        )


def let_leases_lapse(control_file: Path, *, seconds: float = 10.0) -> None:
    """Do what a minute does: nobody believes any more that a killed process still runs its calls and deliveries."""
    with closing(sqlite3.connect(control_file, timeout=seconds, isolation_level=None)) as control:
        control.execute("UPDATE owners SET alive_until = 0")
        control.execute("UPDATE outbox SET due_at = 0 WHERE state = 'due'")


def let_steps_be_due(database_file: Path) -> None:
    """Do the same for the steps that follow orders; no server may run."""
    with closing(sqlite3.connect(database_file, timeout=10, isolation_level=None)) as database:
        database.execute("UPDATE order_steps SET due_at = '2000-01-01T00:00:00.000000+00:00' WHERE status = 'pending'")


def facts(summary: Summary) -> dict[str, object]:
    """Return a summary as JSON has it."""
    return asdict(summary)
