"""Text to tree, within limits that keep the parser quick whoever wrote the text.

The parser recurses, and tries joins without a condition in exponentially many ways; so the tokens, which
cost linear time, are judged first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

from sqlglot import Dialect, exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

# The parser logs text that it does not understand, with whatever values stand in it.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

MAX_LENGTH = 20_000
MAX_TOKENS = 6_000
MAX_DEPTH = 48
MAX_PREFIXES = 48
MAX_BARE_JOINS = 8
PARAMETER = "erp_p"
"""The first placeholder of a statement is read as ``:erp_p1``; so it keeps its number wherever it moves."""
_SIGNS = {"duckdb": "$"}
"""What stands before a named placeholder; DuckDB reads ``:name`` as what follows the alias of a column."""

_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END})
_PREFIXES = frozenset({TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE, TokenType.DOT, TokenType.DCOLON})
_NAMED = frozenset({TokenType.COLON, TokenType.PARAMETER, TokenType.DCOLON})
_CONDITIONS = frozenset({TokenType.ON, TokenType.USING})
_UNCONDITIONAL = frozenset({TokenType.CROSS, TokenType.NATURAL})


def refusal(message: str, why: str) -> ProviderError:
    """Return the error for a statement that may not run; ``why`` names the remedy."""
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError("/params/sql", why)])


def parsed(sql: str, dialect: str) -> tuple[exp.Expr, int]:
    """Return the tree of the one statement in ``sql`` and how many placeholders it has.

    Raises:
        ProviderError: ``invalid_argument`` for text beyond the limits, of several statements, with named parameters, or
            that is not understood.
    """
    engine = Dialect.get_or_raise(dialect)
    if len(sql) > MAX_LENGTH:
        raise refusal("The statement is too long to be checked.", f"has more than {MAX_LENGTH} characters")
    try:
        tokens = engine.tokenize(sql)
        _judge(tokens)
        text, count = _numbered(sql, tokens, _SIGNS.get(dialect, ":"))
        found = [tree for tree in engine.parse(text) if tree is not None]
    except (SqlglotError, RecursionError) as error:
        raise refusal("The statement is not understood.", "use plain SQL of one statement") from error
    if len(found) != 1:
        raise refusal("Only one statement can be sent at a time.", f"has {len(found)} statements; send each in a call")
    return found[0], count


def tree_of(sql: str, dialect: str) -> exp.Expr:
    """Return the tree of the one statement in ``sql``, whose placeholders were replaced before.

    Raises:
        ProviderError: ``invalid_argument`` for text beyond the limits, of several statements, or that is not understood.
    """
    engine = Dialect.get_or_raise(dialect)
    if len(sql) > MAX_LENGTH:
        raise refusal("The statement is too long to be checked.", f"has more than {MAX_LENGTH} characters")
    try:
        tokens = engine.tokenize(sql)
        _judge_size(tokens)
        found = [tree for tree in engine.parse(sql) if tree is not None and not isinstance(tree, exp.Semicolon)]
    except (SqlglotError, RecursionError) as error:
        raise refusal("The statement is not understood.", "use plain SQL of one statement") from error
    if len(found) != 1:
        raise refusal("Only one statement can be sent at a time.", f"has {len(found)} statements; send each in a call")
    return found[0]


def _judge(tokens: Sequence[Token]) -> None:
    if any(token.token_type in _NAMED for token in tokens):
        raise refusal("Only ? is a placeholder here.", "has a named parameter or a cast by ::")
    _judge_size(tokens)


def _judge_size(tokens: Sequence[Token]) -> None:
    if len(tokens) > MAX_TOKENS:
        raise refusal("The statement is too long to be checked.", f"has more than {MAX_TOKENS} words and signs")
    if _depth(tokens) > MAX_DEPTH or _longest_run(tokens) > MAX_PREFIXES:
        raise refusal("The statement is nested too deeply.", f"is nested more than {MAX_DEPTH} deep")
    if _bare_joins(tokens) > MAX_BARE_JOINS:
        raise refusal("Too many joins have no condition.", f"has more than {MAX_BARE_JOINS} joins without ON or USING")


def _depth(tokens: Sequence[Token]) -> int:
    depth = deepest = 0
    for token in tokens:
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        deepest = max(deepest, depth)
    return deepest


def _longest_run(tokens: Sequence[Token]) -> int:
    """Count signs that each nest what follows: ``not not - - a.b.c``; names between dots do not end a run."""
    run = longest = 0
    for token in tokens:
        if token.token_type in _PREFIXES:
            run += 1
        elif token.token_type not in (TokenType.VAR, TokenType.IDENTIFIER):
            run = 0
        longest = max(longest, run)
    return longest


def _bare_joins(tokens: Sequence[Token]) -> int:
    """Count joins whose next join at the same depth comes before any condition of their own."""
    bare = 0
    is_waiting = [False]
    previous = TokenType.SELECT
    for token in tokens:
        kind = token.token_type
        if kind in _OPENING:
            is_waiting.append(False)
        elif kind in _CLOSING:
            bare += is_waiting.pop() if len(is_waiting) > 1 else 0
        elif kind in _CONDITIONS:
            is_waiting[-1] = False
        elif kind is TokenType.JOIN:
            bare += is_waiting[-1]
            is_waiting[-1] = previous not in _UNCONDITIONAL
        previous = kind
    return bare + sum(is_waiting)


def _numbered(sql: str, tokens: Sequence[Token], sign: str) -> tuple[str, int]:
    """Return ``sql`` with each ``?`` named by its place, and how many there are."""
    places = [token for token in tokens if token.token_type is TokenType.PLACEHOLDER]
    for token, following in pairwise(tokens):
        if token.token_type is TokenType.PLACEHOLDER and following.start == token.end + 1 and _is_word(following):
            raise refusal("Only ? is a placeholder here.", "has a numbered or named placeholder")
    parts, end = [], 0
    for number, token in enumerate(places, 1):
        parts += [sql[end : token.start], f"{sign}{PARAMETER}{number}"]
        end = token.end + 1
    return "".join([*parts, sql[end:]]), len(places)


def _is_word(token: Token) -> bool:
    return token.token_type in (TokenType.NUMBER, TokenType.VAR)
