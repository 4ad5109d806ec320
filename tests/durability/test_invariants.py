"""The checks notice what they are for: each is shown files that somebody has tampered with."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.durability import invariants
from tests.durability.effects import KINDS, TENANT, Evidence
from tests.durability.faults import Prober
from tests.durability.furnishing import LIMITED_UNITS
from tests.durability.ledger import Allowance, Ledger, Sent
from tests.durability.processes import Zygote


@pytest.fixture(scope="module")
def driven(
    zygote: Zygote, template: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Sent]]:
    """A data directory that a server has left after two calls of each kind, and the calls."""
    folder = tmp_path_factory.mktemp("driven")
    data_dir = Path(shutil.copytree(template[0], folder / "data"))
    server = zygote.start(data_dir, folder / "server.log").ready()
    prober = Prober(server, template[1][TENANT], data_dir)
    try:
        assert prober.probe() + prober.probe() == {"ok": 2 * len(KINDS)}
        assert prober.all_delivered()
    finally:
        prober.close()
        server.kill()
    return data_dir, prober.sent


@pytest.fixture
def sent(driven: tuple[Path, list[Sent]]) -> list[Sent]:
    """The calls that were answered."""
    return driven[1]


@pytest.fixture
def evidence(driven: tuple[Path, list[Sent]], tmp_path: Path) -> Evidence:
    """A copy of the files, to be tampered with."""
    return Evidence(Path(shutil.copytree(driven[0], tmp_path / "data")))


def everything(evidence: Evidence, sent: list[Sent]) -> Iterator[str]:
    yield from invariants.effects(evidence, sent)
    yield from invariants.rotations(evidence, sent)
    yield from invariants.strangers(evidence, sent)
    yield from invariants.publications_in_order(evidence, sent)
    yield from invariants.events(evidence, sent)
    yield from invariants.followed_up(evidence)
    yield from invariants.Chain().check(evidence)
    yield from invariants.audited(evidence, sent)


def test_files_nobody_has_tampered_with_break_no_promise(evidence: Evidence, sent: list[Sent]) -> None:
    assert list(everything(evidence, sent)) == []


TAMPERINGS = {
    "a lost row": ("database_file", "DELETE FROM marks WHERE mark = 'c0.0.1'", "insertion that is answered exists 0"),
    "a doubled row": ("database_file", "INSERT INTO marks VALUES ('c0.0.1')", "insertion that is answered exists 2"),
    "half a batch": ("database_file", "DELETE FROM pairs WHERE rowid = 3", "c0.0.2: half a pair"),
    "an order without a line": ("database_file", "DELETE FROM order_lines WHERE line_number = 2", "half a order"),
    "a step left behind": ("database_file", "UPDATE order_steps SET status = 'failed'", "of order ord_"),
    "a row nobody asked for": ("database_file", "INSERT INTO marks VALUES ('x')", "x: nobody asked for it"),
    "a lost publication": ("log_file", "DELETE FROM events WHERE event_id = 'c0.0.3'", "publication that is answered"),
    "a lost event": ("log_file", "DELETE FROM events WHERE topic LIKE '%rotated'", "was never delivered"),
    "publications out of order": (
        "log_file",
        "UPDATE events SET position = 1000 WHERE event_id = 'c0.0.3'",
        "publications of c0 are out of order",
    ),
    "events out of order": (
        "log_file",
        "UPDATE events SET position = 1000 WHERE position = (SELECT min(position) FROM events WHERE key = 'rotated/c0')",
        "before an earlier one of its key",
    ),
    "an event in waiting": ("control_file", "UPDATE outbox SET state = 'due'", "is due"),
    "a lost secret": ("control_file", "DELETE FROM secrets WHERE path LIKE 'tenant/marks/c0%'", "secret that is"),
    "a lost version": ("control_file", "DELETE FROM secrets WHERE path LIKE '%rotated/c0' AND version = 2", "c0 was"),
    "a removed audit record": ("control_file", "DELETE FROM audit WHERE tenant = 'acme' AND seq = 5", "record 6"),
    "a changed audit record": ("control_file", "UPDATE audit SET record = x'7b7d' WHERE seq = 9", "at record 9"),
    "a forgotten audit record": ("control_file", "UPDATE audit SET outcome = 'x'", "has 0 audit records"),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_each_tampering_is_noticed(evidence: Evidence, sent: list[Sent], what: str) -> None:
    file, statement, expected = TAMPERINGS[what]
    with closing(sqlite3.connect(getattr(evidence, file), isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount > 0

    assert [violation for violation in everything(evidence, sent) if expected in violation]


def test_a_torn_object_is_noticed(evidence: Evidence, sent: list[Sent]) -> None:
    torn = next(evidence.objects.glob("o-objects*c0*"))
    torn.write_bytes(torn.read_bytes()[:-10])

    assert list(invariants.effects(evidence, sent)) == ["c0.0.4: half a object"]


@pytest.mark.parametrize(
    ("used", "admitted", "expected"),
    [
        (LIMITED_UNITS + 1, LIMITED_UNITS, "units count as used, the quota is"),
        (10, 11, "11 calls were admitted"),
        (LIMITED_UNITS, LIMITED_UNITS + 1, "calls were admitted, the quota is"),
        (100, 1, "at most 1 can have been made"),
    ],
)
def test_a_quota_that_does_not_hold_is_noticed(evidence: Evidence, used: int, admitted: int, expected: str) -> None:
    with closing(sqlite3.connect(evidence.control_file, isolation_level=None)) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO quota_usage VALUES ('tiny', 'tenant', 'requests', 'month', 0, ?)", (used,)
        )

    ledger = Ledger([], Allowance(admitted=admitted))

    found = list(invariants.quota(evidence, ledger, LIMITED_UNITS))
    assert [violation for violation in found if expected in violation], found


def test_a_damaged_file_is_noticed(evidence: Evidence) -> None:
    assert list(invariants.intact(evidence.control_file.parent)) == []
    with evidence.database_file.open("r+b") as file:
        file.seek(4096 * 2 + 8)
        file.write(b"\xff" * 64)

    assert next(invariants.intact(evidence.control_file.parent)).startswith("tenants/acme/db/sqlite")
