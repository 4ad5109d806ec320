"""Statements are read as the engine's own lexer reads them."""

from __future__ import annotations

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.sql.lexis import DUCKDB, MYSQL, POSTGRES, SNOWFLAKE, TSQL, Kind, Lexis


def texts(lexis: Lexis, sql: str, kind: Kind) -> list[str]:
    return [token.text for token in lexis.tokens(sql) if token.kind is kind]


@pytest.mark.parametrize(
    ("lexis", "sql", "strings"),
    [
        (POSTGRES, "select 'it''s ?'", ["'it''s ?'"]),
        (POSTGRES, r"select '\', '?'", [r"'\'", "'?'"]),
        (POSTGRES, r"select E'\'?', '?'", [r"E'\'?'", "'?'"]),
        (POSTGRES, "select $a$ ' $b$ ? $a$", ["$a$ ' $b$ ? $a$"]),
        (POSTGRES, "select $$?$$, a$1$", ["$$?$$"]),
        (POSTGRES, "select n'x'", ["'x'"]),
        (MYSQL, r"select '\'', " + '"?"', [r"'\''", '"?"']),
        (SNOWFLAKE, r"select 'a\'b', $$?$$", [r"'a\'b'", "$$?$$"]),
        (TSQL, r"select N'\', '?'", [r"'\'", "'?'"]),
    ],
)
def test_a_string_ends_where_the_engine_ends_it(lexis: Lexis, sql: str, strings: list[str]) -> None:
    assert texts(lexis, sql, Kind.STRING) == strings


@pytest.mark.parametrize(
    ("lexis", "sql", "names"),
    [
        (POSTGRES, 'select "a ""?" from "b"', ['"a ""?"', '"b"']),
        (MYSQL, "select `a``?` from `b`", ["`a``?`", "`b`"]),
        (TSQL, 'select [a]]?] from "b"', ["[a]]?]", '"b"']),
    ],
)
def test_a_quoted_name_ends_where_the_engine_ends_it(lexis: Lexis, sql: str, names: list[str]) -> None:
    assert texts(lexis, sql, Kind.NAME) == names


@pytest.mark.parametrize(
    ("lexis", "sql", "words"),
    [
        (POSTGRES, "a -- b ?\nc", ["a", "c"]),
        (POSTGRES, "a -- b\rc", ["a", "c"]),
        (POSTGRES, "a /* b /* ? */ ' */ c", ["a", "c"]),
        (DUCKDB, "a /* /* */ */ c", ["a", "c"]),
        (MYSQL, "a # b\nc --d\n-- e\nf", ["a", "c", "d", "f"]),
        (SNOWFLAKE, "a // b\nc", ["a", "c"]),
        (TSQL, "a /* /* */ */ c", ["a", "c"]),
    ],
)
def test_a_comment_ends_where_the_engine_ends_it(lexis: Lexis, sql: str, words: list[str]) -> None:
    assert texts(lexis, sql, Kind.WORD) == words


@pytest.mark.parametrize(
    ("lexis", "sql", "remedy"),
    [
        (POSTGRES, "select 'x", "a quote ' is never closed"),
        (POSTGRES, 'select "x', 'a quote " is never closed'),
        (POSTGRES, "select $t$ x $T$", "a string $t$ is never closed"),
        (POSTGRES, "select /* /* */", "a comment is never closed"),
        (DUCKDB, "select /*", "a comment is never closed"),
        (POSTGRES, "select U&'\\0061'", "write U&'...' and U&\"...\" as plain text"),
        (POSTGRES, 'select u&"\\0061"', "write U&'...' and U&\"...\" as plain text"),
        (POSTGRES, "select E'a'\n'b\\' or 1 --'", "write two strings after each other as one"),
        (POSTGRES, "select E'a' -- x\n'b\\' or 1 --'", "write two strings after each other as one"),
        (MYSQL, "select 1 /*! into outfile '/x' */", "must have no comment that the engine would run"),
        (MYSQL, "select 1 /*M! into outfile '/x' */", "must have no comment that the engine would run"),
        (POSTGRES, "select '\0'", "must not have a zero character"),
    ],
)
def test_what_engines_could_read_in_two_ways_is_refused(lexis: Lexis, sql: str, remedy: str) -> None:
    with pytest.raises(ProviderError) as refused:
        lexis.tokens(sql)

    assert (refused.value.code, refused.value.errors[0].message) == ("invalid_argument", remedy)


def test_a_token_tells_where_it_stands() -> None:
    sql = 'select "A", b1 >= 1.5e3'

    assert [(token.kind.value, sql[token.start : token.end]) for token in POSTGRES.tokens(sql)] == [
        ("word", "select"), ("name", '"A"'), ("operator", ","), ("word", "b1"), ("operator", ">"), ("operator", "="),
        ("number", "1.5e3"),
    ]  # fmt: skip
