"""Scalars of the contract and values of drivers."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from typing import Any

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.sql.values import OBJECTS, TEXTS, bound, fitted, shown, weight

UUID = "6f1f9b1e-52a8-4f0a-9a0b-1f2f3a4b5c6d"


def test_tagged_values_become_pythons_own() -> None:
    given = [
        None, True, 7, 1.5, "text", {"$decimal": "19.90"}, {"$date": "2026-11-22"},
        {"$datetime": "2026-11-22T10:00:00Z"}, {"$uuid": UUID}, {"$bytes": "AAE="},
    ]  # fmt: skip

    assert bound(given, OBJECTS) == [
        None, True, 7, 1.5, "text", decimal.Decimal("19.90"), datetime.date(2026, 11, 22),
        datetime.datetime(2026, 11, 22, 10, tzinfo=datetime.UTC), uuid.UUID(UUID), b"\0\1",
    ]  # fmt: skip


def test_tagged_values_stay_text_where_the_engine_reads_text() -> None:
    assert bound([{"$decimal": "1e400"}, {"$date": "infinity"}], TEXTS) == ["1e400", "infinity"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"$decimal": "a lot"}, "is not a decimal number"),
        ({"$bytes": "?"}, "is not base64"),
        ({"$money": "1"}, "has '$money', which is not one of"),
        ({"$date": 1}, "has '$date', which is not one of"),
        ({}, "must be null, true, false, a number, text or one of"),
        ([1], "must be null, true, false, a number, text or one of"),
        (2**63, "is beyond 64 bits; send it as text"),
        (math.inf, "is not finite"),
        ({"$uuid": "x"}, "badly formed hexadecimal UUID string"),
    ],
)
def test_a_value_without_a_form_is_named_by_its_place(value: Any, why: str) -> None:
    with pytest.raises(ProviderError) as refused:
        bound([1, value], where="/params/parameters")

    (wrong,) = refused.value.errors
    assert wrong.pointer == "/params/parameters/1"
    assert wrong.message.startswith(why)


def test_rows_are_shown_as_json_values() -> None:
    moment = datetime.datetime(2026, 11, 22, 10, tzinfo=datetime.UTC)
    row = (None, True, 1, 1.5, "x", b"\0", decimal.Decimal("1E+2"), moment, moment.date(), uuid.UUID(UUID), [1, "a"])

    assert shown(row) == [
        None, True, 1, 1.5, "x", {"$bytes": "AA=="}, "100", "2026-11-22T10:00:00Z", "2026-11-22", UUID, '[1,"a"]',
    ]  # fmt: skip


def test_an_infinite_number_is_refused() -> None:
    with pytest.raises(ProviderError) as refused:
        shown([math.nan])

    assert refused.value.code == "failed_precondition"


@pytest.mark.parametrize(
    ("rows", "max_rows", "max_bytes", "expected"),
    [
        ([], 3, 100, 0),
        ([("a",)] * 3, 3, 100, 3),
        ([("a",)] * 4, 3, 100, 3),
        ([("a" * 40,)] * 4, 9, 100, 2),
    ],
)
def test_a_page_is_bounded_by_rows_and_bytes(rows: list[Any], max_rows: int, max_bytes: int, expected: int) -> None:
    assert fitted(rows, max_rows, max_bytes) == expected


def test_a_row_larger_than_a_page_is_refused() -> None:
    assert weight(("a" * 40, 1)) == 48
    with pytest.raises(ProviderError) as refused:
        fitted([("a" * 101,)], 5, 100)

    assert refused.value.code == "failed_precondition"
