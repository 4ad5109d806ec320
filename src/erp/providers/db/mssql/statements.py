"""What a caller's statement is turned into before SQL Server sees it, or why it is refused.

Transact-SQL needs nothing between two statements: ``select 1 delete from t`` is two of them, and a parser may take the
second for an alias. But every statement begins with a reserved word, so where such a word has no business, it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from erp.providers.db.mssql.functions import HARMLESS
from erp.vendor_clients.sql.lexis import TSQL, Kind, Token, refusal
from erp.vendor_clients.sql.placeholders import Placed, placed, question

if TYPE_CHECKING:
    from erp.vendor_clients.safe_sql.queries import Queries

ROWS = frozenset({"insert", "update", "delete", "merge"})
SHAPING = frozenset({"create", "alter", "drop", "truncate"})
_SHAPES = frozenset({"table", "view", "index", "sequence", "schema"})
_BEFORE_SHAPE = frozenset(
    {"create", "or", "alter", "drop", "truncate", "unique", "clustered", "nonclustered", "columnstore"}
)
_OTHERS = frozenset(["backup", "begin", "break", "bulk", "checkpoint", "close", "commit", "continue", "dbcc", "deallocate", "declare", "deny", "disable", "dump", "enable", "exec", "execute", "get", "goto", "grant", "if", "kill", "load", "lineno", "move", "open", "openquery", "opendatasource", "openrowset", "openxml", "print", "raiserror", "readtext", "receive", "reconfigure", "restore", "return", "revert", "revoke", "rollback", "save", "send", "set", "setuser", "shutdown", "throw", "use", "updatetext", "waitfor", "while", "writetext"])  # fmt: skip
"""Words that begin other statements, or reach other servers and files."""
_IN_QUERIES = (_OTHERS | ROWS | SHAPING) - {"get"}
_OWN = {
    "insert": frozenset[str](),
    "update": frozenset({"set"}),
    "delete": frozenset[str](),
    "merge": frozenset({"insert", "update", "delete", "set"}),
    "create": frozenset({"alter"}),
    "alter": frozenset({"alter", "drop"}),
    "drop": frozenset({"if"}),
    "truncate": frozenset[str](),
}
"""What a statement's own grammar has of the words that begin others."""
_HIDDEN_PREFIXES = ("sys", "fn_", "sp_", "xp_", "erp_", "#", "msreplication", "spt_")


class Statements:
    """Judges what callers send, each text once."""

    def __init__(self, schema: str, *, functions: Collection[str] = ()) -> None:
        self._functions = HARMLESS | {name.lower() for name in functions}
        self._queries = _judging(self._functions, schema)

    def query(self, sql: str) -> Placed:
        """Return a query as it runs.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        made = self._queries.checked(sql)
        _refuse_words(made.tokens, _IN_QUERIES)
        _refuse_signs(made.tokens)
        if sum(_is(token, "select") for token in made.tokens) > _selects_expected(made.tokens):
            raise refusal("Only one statement can be sent at a time.", "has several queries; send each in a call")
        return made

    def change(self, sql: str) -> tuple[Placed, bool]:
        """Return a change as it runs, and whether it returns rows.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        made = placed(sql, TSQL, question)
        first = _kind(made.tokens)
        _refuse_signs(made.tokens)
        if any(token.text == ";" for token in made.tokens[:-1]):
            raise refusal("Only one statement can be sent at a time.", "has several statements; send each in a call")
        _refuse_words(made.tokens[1:], _IN_QUERIES - _OWN[first])
        words = Counter(token.folded for token in made.tokens if token.kind is Kind.WORD)
        if words["set"] > words["update"]:
            raise refusal("Only one statement can be sent at a time.", "has SET twice; send each in a call")
        if first not in {"merge", "alter"} and any(_is(token, first) for token in made.tokens[1:]):
            raise refusal(
                "Only one statement can be sent at a time.", f"has {first.upper()} twice; send each in a call"
            )
        return made, first in ROWS and any(_is(token, "output") for token in made.tokens)


def _judging(functions: Collection[str], schema: str) -> Queries:
    from erp.vendor_clients.safe_sql.queries import Policy, Queries

    policy = Policy(
        dialect="tsql",
        lexis=TSQL,
        functions=frozenset(functions),
        default_schemas=(schema,),
        hidden_schemas=frozenset({"information_schema", "sys", "guest", "db_owner"}),
        hidden_prefixes=_HIDDEN_PREFIXES,
    )
    return Queries(policy, question)


def _is(token: Token, word: str) -> bool:
    return token.kind is Kind.WORD and token.folded == word


def _refuse_words(tokens: Sequence[Token], refused: Collection[str]) -> None:
    """Refuse reserved words that have no business here; as names they have to be quoted anyway."""
    previous = ""
    for token in tokens:
        word = token.folded if token.kind is Kind.WORD else token.text
        is_action = (previous == "on" and word in {"delete", "update"}) or (
            previous in {"delete", "update"} and word == "set"
        )
        if token.kind is Kind.WORD and word in refused and not is_action:
            raise refusal("The statement does what is not allowed here.", f"has {token.text.upper()} inside")
        previous = word


def _refuse_signs(tokens: Sequence[Token]) -> None:
    """Refuse variables (``@a``, ``@@a``), temporary tables (``#a``) and the next value of a sequence."""
    for token, following in pairwise(tokens):
        if _is(token, "next") and _is(following, "value"):
            raise refusal("The statement does what is not allowed here.", "draws from a sequence")
    for token in tokens:
        if token.text.startswith(("@", "#")) or (token.kind is Kind.NAME and token.folded.startswith("#")):
            raise refusal("Variables and temporary tables are not allowed.", f"has {token.text[:20]}")


def _selects_expected(tokens: Sequence[Token]) -> int:
    """How many SELECTs one query can have: the first, and those after an opening parenthesis or a set operation."""
    count = 0
    previous = ""
    for token in tokens:
        if _is(token, "select") and (previous in {"", "(", ")", "union", "all", "except", "intersect"}):
            count += 1
        previous = token.folded if token.kind is Kind.WORD else token.text
    return count


def _kind(tokens: Sequence[Token]) -> str:
    first = tokens[0] if tokens else None
    if first is None or first.kind is not Kind.WORD or first.folded not in ROWS | SHAPING:
        kinds = ", ".join(sorted(ROWS | SHAPING)).upper()
        raise refusal(
            "The statement is not allowed here.",
            f"begins with {first.text[:30] if first else ''!r}; use one of {kinds}",
        )
    if first.folded in SHAPING:
        words = [token.folded for token in tokens if token.kind is Kind.WORD]
        shape = next((word for word in words if word not in _BEFORE_SHAPE), "")
        if shape not in _SHAPES:
            raise refusal(
                "This cannot be made or changed.",
                f"names {shape[:40]!r}; only tables, views, indexes, sequences, schemas",
            )
    return first.folded
