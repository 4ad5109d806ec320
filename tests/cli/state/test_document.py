"""A state file is read as JSON's types and written so that every reader takes it to mean the same."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from erp.cli.state.document import StateError, parse
from erp.cli.state.shape import completed, entry_schema, schema, shortened
from erp.cli.state.writing import written

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TRAPS = [
    "no",
    "on",
    "12:30",
    "1_000",
    "0x10",
    "010",
    "1e3",
    "1.",
    "~",
    "null",
    "2026-01-01",
    "<<",
    "=",
    "",
    " a ",
    "a: b",
    "+1",
]


def test_texts_that_other_readers_take_for_something_else_are_texts() -> None:
    assert parse("a: no\nb: 12:30\nc: 0x10\nd: 2026-01-01\ne: 1_000").value == {
        "a": "no",
        "b": "12:30",
        "c": "0x10",
        "d": "2026-01-01",
        "e": "1_000",
    }


@pytest.mark.parametrize("text", TRAPS)
def test_a_text_is_written_so_that_every_reader_finds_a_text(text: str) -> None:
    state = {"a": text, "b": [text]}

    assert parse(written(state)).value == state
    assert yaml.safe_load(written(state)) == state


@given(value=st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_written_reads_back_as_it_was(value: dict[str, Any]) -> None:
    text = written(value)

    assert parse(text).value == value
    assert written(parse(text).value) == text


def test_lines_are_those_of_the_names() -> None:
    lines = parse("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n").lines

    assert {place: lines[place] for place in [("a",), ("a", "b"), ("a", "c"), ("a", "c", "1", "d")]} == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", "1", "d"): 5,
    }


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )

    with pytest.raises(StateError, match="Anchors and aliases"):
        parse(bomb)


def test_defaults_are_those_of_the_schema_both_ways() -> None:
    route = entry_schema("routes")
    short = {"kind": "single", "targets": [{"provider": "memory"}]}

    whole = completed(short, route)

    assert whole["after_failures"] == 3
    assert whole["targets"] == [{"provider": "memory", "connection": "default", "weight": 1}]
    assert shortened(whole, route) == short


def test_the_schema_stands_on_its_own() -> None:
    assert "$ref" not in str(schema())
    assert schema()["title"] == "State"
