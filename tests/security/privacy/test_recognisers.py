"""How good the recognisers are on labelled texts, what they leave alone, and how long they take."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import pytest

from erp.security.privacy.recognisers import Hit, hits
from erp.security.privacy.scanning import found_in

LABELLED: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks/personal_texts.py"))


def test_precision_and_recall_are_at_least_95_percent_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    right, found, wanted = (dict.fromkeys(LABELLED["MAKERS"], 0) for _ in range(3))
    for text, labels in LABELLED["texts"](1500):
        for kind, _ in labels:
            wanted[kind] += 1
        for hit in hits(text):
            found[hit.kind] += 1
            right[hit.kind] += (hit.kind, text[hit.start : hit.end]) in labels
    measured = {kind: (right[kind] / found[kind], right[kind] / wanted[kind]) for kind in wanted}
    with capsys.disabled():
        print("\n" + "\n".join(f"{kind:<14} precision {p:.3f} recall {r:.3f}" for kind, (p, r) in measured.items()))  # noqa: T201  (figures for whoever runs it)
    assert {kind: pair for kind, pair in measured.items() if min(pair) < 0.95} == {}


def test_rows_without_personal_data_have_no_hit() -> None:
    assert [(found, row) for row in LABELLED["plain_rows"](5000) if (found := found_in(row))] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SSN 536-90-4399", [Hit(4, 15, "us_ssn")]),
        ("social security 536904399", [Hit(16, 25, "us_ssn")]),
        ("666-12-3456, 000-12-3456, 900-12-3456", []),
        ("NI ab123456c", [Hit(3, 11 + 1, "uk_nino")]),
        ("NI BG123456C", []),
        ("Steuer-ID 86 095 742 719", [Hit(10, 24, "de_steuer_id")]),
        ("86095742719", []),
        ("Steuer-ID 86095742718", []),
        ("PESEL 44051401359", [Hit(6, 17, "pl_pesel")]),
        ("PESEL 44133301359", []),
        ("DNI 12345678Z, NIE X1234567L", [Hit(4, 13, "es_dni"), Hit(19, 28, "es_dni")]),
        ("BSN 111222333", [Hit(4, 13, "nl_bsn")]),
        ("BSN\n111222333", []),
        ("order 111222333", []),
        ("+999 123 4567 and +1 234", []),
    ],
)
def test_national_numbers_need_their_check_and_where_it_is_weak_their_word(text: str, expected: list[Hit]) -> None:
    assert hits(text) == expected


@pytest.mark.parametrize(
    "piece", ["1-", "12-34-", "1 1 ", "PESEL 1", "X1234567", "ab12 ", "123456789 ", "+49 ", "bsn "]
)
def test_time_is_linear_in_the_length(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        best = 60.0
        for _ in range(3):
            started = time.process_time()
            hits(text)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(80_000) < 12 * max(seconds(10_000), 0.002)
