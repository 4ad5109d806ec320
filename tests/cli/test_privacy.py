"""``erp privacy retention``: what would go, what has gone, and why not."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from erp.cli import app, privacy

ROW = {"place": "db/sqlite#default visits.seen_at", "rows": 3}


@pytest.mark.parametrize(
    ("arguments", "answer", "body", "status", "lines"),
    [
        (
            ["--dry-run"],
            {"dry_run": True, "classes": {"dead_events": 2}, "rows": [ROW]},
            {"dry_run": True},
            0,
            ["2  dead_events", "3  db/sqlite#default visits.seen_at", "would be deleted"],
        ),
        (
            [],
            {"dry_run": False, "classes": {}, "rows": [{**ROW, "more": True}]},
            {"dry_run": False},
            0,
            ["3  db/sqlite#default visits.seen_at, and more", "deleted"],
        ),
        (
            [],
            {"dry_run": False, "hold": "case 7", "classes": {}, "rows": []},
            {"dry_run": False},
            0,
            ["nothing is deleted: legal hold: case 7"],
        ),
        (
            [],
            {"dry_run": False, "classes": {}, "rows": [{"place": "db/x#y a.b", "rows": 0, "failure": "no such table"}]},
            {"dry_run": False},
            1,
            ["0  db/x#y a.b: no such table", "deleted"],
        ),
    ],
)
def test_it_shows_what_the_server_says(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    answer: dict[str, Any],
    body: dict[str, Any],
    status: int,
    lines: list[str],
) -> None:
    sent: list[tuple[Any, ...]] = []

    def asked(*request: Any) -> dict[str, Any]:
        sent.append(request)
        return answer

    monkeypatch.setattr(privacy, "asked", asked)
    done = CliRunner().invoke(app, ["privacy", "retention", *arguments, "--key", "k", "--url", "http://x"])
    assert (done.exit_code, [line.strip() for line in done.stdout.splitlines()]) == (status, lines)
    assert sent == [("POST", "http://x/privacy/retention:apply", "k", body)]
