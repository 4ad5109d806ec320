"""What a caller's statement is turned into before the server sees it, or why it is refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erp.providers.db.mysql.functions import HARMLESS
from erp.vendor_clients.sql.lexis import MYSQL, Kind, Token, refusal
from erp.vendor_clients.sql.placeholders import Placed, percent, placed

if TYPE_CHECKING:
    from erp.providers.db.mysql.confining import Confining
    from erp.vendor_clients.safe_sql.queries import Queries

CACHED = 1000
ROWS = frozenset({"insert", "update", "delete", "replace", "with", "select", "values"})
SHAPING = frozenset({"create", "alter", "drop", "truncate", "rename", "analyze", "optimize"})
"""Each of these commits whatever is open (https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/)."""
_SHAPES = frozenset({"table", "index", "view", "sequence"})
_BEFORE_SHAPE = frozenset({"create", "or", "replace", "unique", "fulltext", "spatial", "alter", "drop", "online", "ignore",
                           "algorithm", "merge", "undefined", "truncate", "rename", "analyze", "optimize",
                           "no_write_to_binlog", "local"})  # fmt: skip
_NEVER = frozenset({"outfile", "dumpfile", "load_file", "infile", "procedure"})


@dataclass(frozen=True, slots=True)
class Change:
    """A change as it runs."""

    placed: Placed
    is_shaping: bool
    """Whether it commits whatever is open."""
    is_plain: bool
    """Whether it calls nothing that could leave a lock or a setting behind."""
    first: str
    words: frozenset[str]


class Statements:
    """Judges what callers send, each text once."""

    def __init__(
        self,
        database: str,
        *,
        functions: Collection[str] = (),
        tables: Collection[str] | None = None,
        confining: Confining | None = None,
    ) -> None:
        """``functions`` may be called besides those that only compute; with ``tables`` only these can be named.

        ``confining`` rewrites what has been judged, and knows the tables itself.
        """
        self._confining = confining
        self._is_shaping_allowed = tables is None and confining is None
        self._functions = HARMLESS | {name.lower() for name in functions}
        self._queries = _judging(database, self._functions, tables)
        self._changes: OrderedDict[str, Change] = OrderedDict()

    def query(self, sql: str) -> Placed:
        """Return a query as it runs.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        made = self._queries.checked(sql)
        _check_variables(made.tokens)
        return made if self._confining is None else self._confining.confined(made, sql, writes=False)

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
        from erp.vendor_clients.safe_sql.queries import called

        made = placed(sql, MYSQL, percent) if self._is_shaping_allowed else self._queries.checked(sql, writes=True)
        first = _check_kind(made.tokens)
        _check_variables(made.tokens)
        _check_end(made.tokens)
        is_plain = all(name in self._functions for name in called(made.tokens))
        words = frozenset(token.folded for token in made.tokens if token.kind is Kind.WORD)
        if self._confining is not None:
            made = self._confining.confined(made, sql, writes=True)
        return Change(made, first in SHAPING, is_plain or first in SHAPING, first, words)


def arranged(made: Placed, given: Sequence[Any], where: str = "/params/parameters") -> Sequence[Any]:
    """Return the caller's values as ``made`` takes them.

    Raises:
        ProviderError: ``invalid_argument`` when there are more or fewer than placeholders.
    """
    made.require(len(given), where)
    order = getattr(made, "arranged", None)
    return given if order is None else order(given)


def _judging(database: str, functions: Collection[str], tables: Collection[str] | None) -> Queries:
    from erp.vendor_clients.safe_sql.queries import Policy, Queries

    policy = Policy(
        dialect="mysql",
        lexis=MYSQL,
        functions=frozenset(functions),
        default_schemas=(database,),
        tables=None if tables is None else frozenset((database, name) for name in tables),
    )
    return Queries(policy, percent)


def _check_kind(tokens: Sequence[Token]) -> str:
    """Refuse what does more than change rows or the schema."""
    first = tokens[0] if tokens else None
    if first is None or first.kind is not Kind.WORD or first.folded not in ROWS | SHAPING:
        kinds = ", ".join(sorted(ROWS | SHAPING)).upper()
        begins = first.text[:30] if first else ""
        raise refusal("The statement is not allowed here.", f"begins with {begins!r}; use one of {kinds}")
    words = [token.folded for token in tokens if token.kind is Kind.WORD]
    found = _NEVER.intersection(words)
    if found:
        raise refusal("The statement does what is not allowed here.", f"has {min(found).upper()} inside")
    if first.folded in SHAPING:
        shape = next((word for word in words if word not in _BEFORE_SHAPE), "")
        if shape not in _SHAPES:
            raise refusal(
                "This cannot be made or changed.", f"names {shape[:40]!r}; only tables, indexes, views, sequences"
            )
    return first.folded


def _check_variables(tokens: Sequence[Token]) -> None:
    """Refuse variables: calls share their connections, so the next one would see them."""
    for token in tokens:
        if token.text.startswith("@") or token.text == ":":
            raise refusal("Variables are not allowed.", "has a variable or a label")


def _check_end(tokens: Sequence[Token]) -> None:
    if any(token.text == ";" and token.kind is Kind.OPERATOR for token in tokens[:-1]):
        raise refusal("Only one statement can be sent at a time.", "has several statements; send each in a call")
