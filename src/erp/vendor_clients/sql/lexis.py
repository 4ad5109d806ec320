"""Text of a statement to tokens, as the engine's own lexer reads it.

Whoever takes a string for code, or code for a string, can be talked into anything; so this follows the engines' rules
for strings, names and comments, and refuses the few spellings in which they differ from one version to the next.
Sources: PostgreSQL 4.1 "Lexical Structure", MySQL 11.1 and 11.7, Transact-SQL "Comment" and "Constants", Snowflake
"String & binary data types".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

_WORD = r"[^\W\d][\w$]*"
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_DOLLAR_TAG = re.compile(r"\$(?:[^\W\d][\w]*)?\$")
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_BLOCK_END = re.compile(r"\*/")


class Kind(Enum):
    """What a token is. Comments and spaces are none."""

    WORD = "word"
    NAME = "name"
    STRING = "string"
    NUMBER = "number"
    PLACEHOLDER = "placeholder"
    OPERATOR = "operator"
    """One sign, or one of the operators with a question mark in them."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token and where it stands."""

    kind: Kind
    text: str
    start: int
    end: int
    """The place after its last character."""

    @property
    def folded(self) -> str:
        """The word or name in lower case and without its quotes."""
        return (self.text if self.kind is Kind.WORD else self.text[1:-1]).lower()


@dataclass(frozen=True)
class Lexis:
    """How an engine writes strings, names and comments."""

    name_quotes: Mapping[str, str] = field(default_factory=lambda: {'"': '"'})
    """Opening quote of a name -> its closing one, which is doubled inside."""
    string_quotes: str = "'"
    has_backslashes: bool = False
    """Whether a backslash escapes in every string."""
    has_escape_strings: bool = False
    """Whether a backslash escapes in strings that begin with E."""
    has_dollar_strings: bool = False
    has_nested_comments: bool = False
    has_hash_comments: bool = False
    needs_space_after_dashes: bool = False
    """Whether ``--`` begins a comment only before a space or the end of the line."""
    has_slash_comments: bool = False
    operators: Sequence[str] = ()
    """Operators with a question mark in them; ``??`` is always written for the operator ``?``."""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        dashes = r"--(?=[\s\x00-\x1f]|\Z)" if self.needs_space_after_dashes else "--"
        lines = [dashes, *(["#"] if self.has_hash_comments else []), *(["//"] if self.has_slash_comments else [])]
        parts = [rf"(?P<comment>(?:{'|'.join(lines)})[^\r\n]*|\s+)", r"(?P<block>/\*)"]
        if self.has_escape_strings:
            parts.append(r"(?P<escape>[eE]'(?:[^'\\]|''|\\.)*')")
            parts.append(r"(?P<unicode>[uU]&(?=['\"]))")
        inner = r"\\." if self.has_backslashes else r"(?!)"
        stop = r"\\" if self.has_backslashes else ""
        strings = [f"{quote}(?:[^{quote}{stop}]|{quote}{quote}|{inner})*{quote}" for quote in self.string_quotes]
        parts.append(f"(?P<string>{'|'.join(strings)})")
        names = [
            f"{re.escape(first)}(?:[^{re.escape(last)}]|{re.escape(last)}{re.escape(last)})*{re.escape(last)}"
            for first, last in self.name_quotes.items()
        ]
        parts.append(f"(?P<name>{'|'.join(names)})")
        if self.has_dollar_strings:
            parts.append(rf"(?P<dollar>{_DOLLAR_TAG.pattern})")
        operators = sorted(["??", *self.operators], key=len, reverse=True)
        parts.append(rf"(?P<word>{_WORD})|(?P<number>{_NUMBER})|(?P<operator>{'|'.join(map(_operator, operators))})")
        parts.append(r"(?P<placeholder>\?)|(?P<sign>.)")
        return re.compile("|".join(parts), re.DOTALL)

    def tokens(self, sql: str) -> list[Token]:
        """Return the tokens of ``sql``.

        Raises:
            ProviderError: ``invalid_argument`` for text that does not end what it begins, or has a zero character.
        """
        if "\0" in sql:
            raise refusal("The statement has a zero character.", "must not have a zero character")
        return list(self._read(sql))

    def _read(self, sql: str) -> Iterator[Token]:
        place = 0
        is_after_escape = False
        while place < len(sql):
            found = self._pattern.match(sql, place)
            assert found is not None and found.lastgroup is not None  # noqa: S101, PT018  (a sign matches anything)
            kind, end = found.lastgroup, found.end()
            if kind == "block":
                end = self._after_comment(sql, place)
            elif kind == "dollar":
                end = _after(sql, found[0], end)
            place, start = end, place
            if kind in {"comment", "block"}:
                continue
            self._judge(kind, found[0], is_after_escape=is_after_escape)
            is_after_escape = kind == "escape"
            yield Token(_KINDS[kind], sql[start:end], start, end)

    def _judge(self, kind: str, text: str, *, is_after_escape: bool) -> None:
        if kind == "unicode":
            raise refusal("The statement is not understood.", "write U&'...' and U&\"...\" as plain text")
        if is_after_escape and kind in {"string", "escape", "dollar"}:
            raise refusal("The statement is not understood.", "write two strings after each other as one")
        if kind == "sign" and (text in self.string_quotes or text in self.name_quotes):
            raise refusal("The statement is not understood.", f"a quote {text} is never closed")

    def _after_comment(self, sql: str, place: int) -> int:
        if sql.startswith(("/*!", "/*+", "/*M!"), place):
            raise refusal("The statement is not understood.", "must have no comment that the engine would run")
        if not self.has_nested_comments:
            found = _BLOCK_END.search(sql, place + 2)
            if found is None:
                raise refusal("The statement is not understood.", "a comment is never closed")
            return found.end()
        depth = 0
        for edge in _BLOCK_EDGE.finditer(sql, place):
            depth += 1 if edge[0] == "/*" else -1
            if depth == 0:
                return edge.end()
        raise refusal("The statement is not understood.", "a comment is never closed")


_KINDS = {
    "escape": Kind.STRING,
    "string": Kind.STRING,
    "dollar": Kind.STRING,
    "name": Kind.NAME,
    "word": Kind.WORD,
    "number": Kind.NUMBER,
    "placeholder": Kind.PLACEHOLDER,
    "operator": Kind.OPERATOR,
    "sign": Kind.OPERATOR,
}


def _operator(text: str) -> str:
    """``?|`` is an operator, ``?||`` a placeholder before one."""
    return re.escape(text) + (f"(?!{re.escape(text[-1])})" if text[0] == "?" and text != "??" else "")


def _after(sql: str, tag: str, place: int) -> int:
    end = sql.find(tag, place)
    if end < 0:
        raise refusal("The statement is not understood.", f"a string {tag[:40]} is never closed")
    return end + len(tag)


def refusal(message: str, why: str) -> ProviderError:
    """Return the error for a statement that may not run; ``why`` names the remedy."""
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError("/params/sql", why)])


POSTGRES = Lexis(
    has_escape_strings=True, has_dollar_strings=True, has_nested_comments=True, operators=("?|", "?&", "@?")
)  # fmt: skip
DUCKDB = Lexis(
    name_quotes={'"': '"', "`": "`"}, has_escape_strings=True, has_dollar_strings=True, has_nested_comments=True
)  # fmt: skip
MYSQL = Lexis(
    name_quotes={"`": "`"}, string_quotes="'\"", has_backslashes=True, has_hash_comments=True,
    needs_space_after_dashes=True,
)  # fmt: skip
TSQL = Lexis(name_quotes={'"': '"', "[": "]"}, has_nested_comments=True)
SNOWFLAKE = Lexis(has_backslashes=True, has_dollar_strings=True, has_slash_comments=True)
