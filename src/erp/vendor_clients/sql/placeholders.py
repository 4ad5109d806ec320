"""The contract's ``?`` to the placeholders of a driver, outside strings, names, comments and operators.

``??`` is the operator ``?`` of an engine that has one, as in JDBC.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from erp.runtime.spi import ErrorCode, FieldError, ProviderError
from erp.vendor_clients.sql.lexis import Kind, Lexis, Token, refusal

Style = Callable[[int], str]
"""Number of a placeholder, from 1 -> its text."""


def dollar(number: int) -> str:
    """``$1``: PostgreSQL, DuckDB."""
    return f"${number}"


def percent(_number: int) -> str:
    """``%s``: drivers that write values into the text. Every other ``%`` is doubled."""
    return "%s"


def colon(number: int) -> str:
    """``:p1``: drivers that take values by name."""
    return f":p{number}"


def question(_number: int) -> str:
    """``?``: drivers that speak as the contract does."""
    return "?"


@dataclass(frozen=True, slots=True)
class Placed:
    """A statement with a driver's placeholders."""

    sql: str
    count: int
    tokens: Sequence[Token]
    """Of the text as it was."""

    def require(self, given: int, where: str = "/params/parameters") -> None:
        """Refuse another number of values than placeholders.

        Raises:
            ProviderError: ``invalid_argument``.
        """
        if given != self.count:
            wrong = FieldError(where, f"has {given} values for {self.count} placeholders")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Each placeholder needs one value.", errors=[wrong])


def placed(sql: str, lexis: Lexis, style: Style) -> Placed:
    """Return ``sql`` with the placeholders of ``style``.

    Raises:
        ProviderError: ``invalid_argument`` for text that is not understood, or that has placeholders of the driver's own.
    """
    tokens = lexis.tokens(sql)
    _refuse_others(tokens)
    parts: list[str] = []
    place = count = 0
    for token in tokens:
        if token.kind is Kind.PLACEHOLDER:
            count += 1
            text = style(count)
        elif token.text == "??" and token.kind is Kind.OPERATOR:
            text = "?"
        else:
            continue
        parts += [_plain(sql[place : token.start], style), text]
        place = token.end
    parts.append(_plain(sql[place:], style))
    return Placed("".join(parts), count, tokens)


def _plain(text: str, style: Style) -> str:
    return text.replace("%", "%%") if style is percent else text


def _refuse_others(tokens: Sequence[Token]) -> None:
    """``$1``, ``?1``, ``:name``: they would be counted or named by the driver."""
    for token, following in itertools.pairwise(tokens):
        is_next = following.start == token.end
        is_other = (token.text == "$" or token.kind is Kind.PLACEHOLDER) and following.kind in {Kind.NUMBER, Kind.WORD}
        if is_next and is_other:
            raise refusal("Only ? is a placeholder here.", f"has {token.text}{following.text[:20]}")
