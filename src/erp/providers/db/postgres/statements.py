"""What a caller's statement is turned into before the server sees it, or why it is refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from erp.providers.db.postgres.functions import HARMLESS
from erp.vendor_clients.sql.lexis import POSTGRES, Kind, Token, refusal
from erp.vendor_clients.sql.placeholders import Placed, dollar, placed

if TYPE_CHECKING:
    from erp.vendor_clients.safe_sql.queries import Queries

CACHED = 1000
CHANGING = frozenset({"insert", "update", "delete", "merge"})
READING = frozenset({"select", "values", "table", "with"})
SHAPING = frozenset(
    {"create", "alter", "drop", "truncate", "comment", "grant", "revoke", "analyze", "refresh", "reindex"}
)
"""These and no others: what begins, ends or copies, waits for messages or runs code leaves more behind than rows."""
_TEMPORARY = frozenset({"temp", "temporary"})
_CALLING_NOTHING = frozenset(
    {"values", "in", "conflict", "and", "or", "not", "exists", "set", "on", "using", "where", "as"}
)

Named = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """A change as it runs."""

    placed: Placed
    returns: bool
    """Whether it may answer rows, which have to be bounded before they are durable."""
    needs_reset: bool
    """Whether it may leave settings or locks behind, being more than a plain change of rows."""


class Statements:
    """Judges what callers send, each text once.

    With ``tables`` only these can be named and their shape cannot be changed; without, a change may do whatever the
    role may.
    """

    def __init__(
        self,
        schemas: Sequence[str],
        *,
        functions: Collection[str] = (),
        tables: Collection[Named] | None = None,
    ) -> None:
        """``functions`` may be called besides those that only compute."""
        self.schemas = tuple(schemas)
        self.tables = tables
        self._functions = HARMLESS | {name.lower() for name in functions}
        self._queries = _judging(self.schemas, self._functions, tables)
        self._changes: OrderedDict[str, Change] = OrderedDict()

    def query(self, sql: str) -> Placed:
        """Return a query as it runs.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        return self._queries.checked(sql)

    def change(self, sql: str) -> Change:
        """Return a change as it runs.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        found = self._changes.get(sql)
        if found is None:
            found = self._changes[sql] = self._made(sql)
            if len(self._changes) > CACHED:
                self._changes.popitem(last=False)
        return found

    def _made(self, sql: str) -> Change:
        if self.tables is not None:
            made = self._queries.checked(sql, writes=True)
        else:
            made = placed(sql, POSTGRES, dollar)
            _check_kind(made.tokens)
        words = [token.folded for token in made.tokens if token.kind is Kind.WORD]
        others = set(_called(made.tokens)) - self._functions - _CALLING_NOTHING - set(_targets(made.tokens))
        is_plain = words[0] in CHANGING and not others
        return Change(made, words[0] in READING or "returning" in words, needs_reset=not is_plain)


def _judging(schemas: Sequence[str], functions: Collection[str], tables: Collection[Named] | None) -> Queries:
    from erp.vendor_clients.safe_sql.queries import Policy, Queries

    policy = Policy(
        dialect="postgres", lexis=POSTGRES, functions=frozenset(functions), default_schemas=schemas, tables=tables
    )
    return Queries(policy, dollar)


def _check_kind(tokens: Sequence[Token]) -> None:
    """Refuse what does more than change rows or the schema; the server refuses several statements in one text."""
    first = tokens[0] if tokens else None
    if first is None or first.text == "(":
        raise refusal("The statement is not allowed here.", "must begin with a word such as INSERT, UPDATE or CREATE")
    if first.kind is not Kind.WORD or first.folded not in CHANGING | READING | SHAPING:
        kinds = ", ".join(sorted(CHANGING | SHAPING)).upper()
        raise refusal("The statement is not allowed here.", f"begins with {first.text[:30]!r}; use one of {kinds}")
    words = [token.folded for token in tokens[1:5] if token.kind is Kind.WORD]
    if first.folded == "create" and _TEMPORARY.intersection(words):
        raise refusal("Nothing temporary can be made.", "is temporary; calls share their connections")


def _called(tokens: Sequence[Token]) -> Iterator[str]:
    for token, following in pairwise(tokens):
        if following.text == "(" and token.kind in {Kind.WORD, Kind.NAME}:
            yield token.folded


def _targets(tokens: Sequence[Token]) -> Iterator[str]:
    """The name of a table before its list of columns: ``into schema.table (``."""
    is_after_into = False
    for token, following in pairwise(tokens):
        if token.kind is Kind.WORD and token.folded == "into":
            is_after_into = True
        elif is_after_into and token.text != "." and following.text != ".":
            is_after_into = False
            if token.kind in {Kind.WORD, Kind.NAME}:
                yield token.folded


def place_of(name: str, schema: str) -> Named:
    """Return schema and table of a configured name."""
    first, dot, last = name.partition(".")
    return (first, last) if dot else (schema, first)
