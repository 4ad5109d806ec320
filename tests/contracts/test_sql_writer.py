"""The page about the SQL of each engine says of every database what its manifest says, and how that is proven."""

from __future__ import annotations

from erp.contracts.authored import PACKAGE, read
from erp.contracts.sql_writer import page

AUTHORED = read(PACKAGE)
DATABASES = [ref for ref in AUTHORED.manifests if ref.startswith("db/")]


def test_every_database_publishes_its_sql() -> None:
    assert [ref for ref in DATABASES if "sql" not in AUTHORED.manifests[ref]] == []
    header = next(line for line in page(AUTHORED, {}).splitlines() if line.startswith("| What |"))
    assert header == f"| What | {' | '.join(f'`{ref}`' for ref in DATABASES)} |"


def test_what_no_engine_has_answered_is_declared() -> None:
    proof = {
        "db/sqlite": {"levels": {"transactions": "P4", "streaming": "P2"}, "date": "2026-11-29", "server": "SQLite"}
    }
    (line,) = [line for line in page(AUTHORED, proof).splitlines() if line.startswith("| Proven |")]
    cells = dict(zip(DATABASES, [cell.strip() for cell in line.split("|")[2:-1]], strict=True))
    assert cells == {ref: "P4" if ref == "db/sqlite" else "declared" for ref in DATABASES}


def test_a_list_of_levels_is_that_of_the_capability() -> None:
    """Where levels can be chosen the capability is declared, and only there."""
    for ref in DATABASES:
        manifest = AUTHORED.manifests[ref]
        assert bool(manifest["sql"]["isolation_levels"]) == ("isolation_levels" in manifest["capabilities"]), ref
