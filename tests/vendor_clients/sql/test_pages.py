"""Rows come in pages, and a page never takes more into memory than it has to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from erp.contracts.models.db import Column
from erp.errors import ProviderError
from erp.vendor_clients.sql.pages import CHUNK, FIRST_CHUNK, MAX_HELD, HeldCursors, Reading

pytestmark = pytest.mark.anyio


class Rows:
    """A cursor over rows in memory that notes what it was asked for."""

    def __init__(self, count: int, size: int = 1) -> None:
        self.columns = [Column(name="a")]
        self._rows = [(f"{number:0{size}}",) for number in range(count)]
        self.asked: list[int] = []
        self.is_closed = False

    async def fetch(self, count: int) -> Sequence[Any]:
        self.asked.append(count)
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken

    async def close(self) -> None:
        self.is_closed = True


async def test_pages_continue_each_other_and_the_last_one_says_so() -> None:
    reading = Reading("s", Rows(5))
    pages = [await reading.page(2, 1000) for _ in range(3)]

    assert [page.rows for page in pages] == [[["0"], ["1"]], [["2"], ["3"]], [["4"]]]
    assert [(page.row_count, page.truncated) for page in pages] == [(2, True), (2, True), (1, False)]


async def test_exactly_as_many_rows_as_wanted_are_not_cut() -> None:
    page = await Reading("s", Rows(3)).page(3, 1000)

    assert (page.row_count, page.truncated) == (3, False)


async def test_a_page_is_cut_by_its_bytes() -> None:
    reading = Reading("s", Rows(10, size=100))
    pages = [await reading.page(100, 350) for _ in range(4)]

    assert [(page.row_count, page.truncated) for page in pages] == [(3, True), (3, True), (3, True), (1, False)]


async def test_large_rows_are_asked_for_one_by_one_and_small_ones_by_the_thousand() -> None:
    large, small = Rows(200, size=1000), Rows(5000)
    await Reading("s", large).page(10_000, 100_000)
    await Reading("s", small).page(10_000, 1_000_000)

    assert large.asked == [FIRST_CHUNK, 100]
    assert small.asked[:3] == [FIRST_CHUNK, CHUNK, CHUNK]


async def test_a_row_larger_than_a_page_is_refused_and_its_cursor_closed() -> None:
    rows = Rows(1, size=1000)
    with pytest.raises(ProviderError) as refused:
        await HeldCursors().page(Reading("s", rows), 10, 100)

    assert (refused.value.code, rows.is_closed) == ("failed_precondition", True)


async def test_a_cursor_is_good_once_and_for_its_statement_alone() -> None:
    held, rows = HeldCursors(), Rows(3)
    first = await held.page(Reading("s", rows), 2, 1000)
    assert isinstance(first.next_cursor, str)
    with pytest.raises(ProviderError):
        held.take(first.next_cursor, "another statement")
    last = await held.page(held.take(first.next_cursor, "s"), 2, 1000)

    assert (last.rows, rows.is_closed) == ([["2"]], True)
    with pytest.raises(ProviderError) as refused:
        held.take(first.next_cursor, "s")
    assert [wrong.pointer for wrong in refused.value.errors] == ["/params/cursor"]


async def test_the_oldest_cursor_is_given_up_when_there_are_too_many() -> None:
    held = HeldCursors()
    readers = [Rows(3) for _ in range(MAX_HELD + 1)]
    for rows in readers:
        await held.page(Reading("s", rows), 1, 1000)

    assert [rows.is_closed for rows in readers] == [True] + [False] * MAX_HELD
    await held.close()
    assert all(rows.is_closed for rows in readers)
