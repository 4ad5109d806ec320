"""What a caller's statement is turned into before Snowflake sees it, or why it is refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from erp.providers.db.snowflake.functions import HARMLESS
from erp.vendor_clients.sql.lexis import SNOWFLAKE, Kind, Token, refusal
from erp.vendor_clients.sql.placeholders import Placed, placed, question

if TYPE_CHECKING:
    from erp.vendor_clients.safe_sql.queries import Queries

ROWS = frozenset({"insert", "update", "delete", "merge"})
SHAPING = frozenset({"create", "alter", "drop", "truncate", "comment", "undrop"})
"""Each of these commits whatever is open, and is a transaction of its own (documentation, "Transactions")."""
_SHAPES = frozenset({"table", "view", "sequence"})
_BEFORE_SHAPE = frozenset({"create", "or", "replace", "alter", "drop", "undrop", "truncate", "comment", "if", "exists", "on",
                           "hybrid", "transient", "secure", "recursive", "column"})  # fmt: skip
_NEVER = frozenset({"identifier", "execute", "immediate", "call", "put", "copy", "use", "begin", "commit", "rollback", "clone",
                    "result_scan", "external", "masking", "policy", "tag"})  # fmt: skip


class Statements:
    """Judges what callers send. With ``schema`` nothing of another one can be named."""

    def __init__(self, schema: str | None = None, *, functions: Collection[str] = ()) -> None:
        self._schema = schema
        self._functions = HARMLESS | {name.lower() for name in functions}
        self._queries = _judging(self._functions, schema)

    def query(self, sql: str) -> Placed:
        """Return a query as it runs.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        made = self._queries.checked(sql)
        _check_signs(made.tokens)
        self._check_schema(sql)
        return made

    def change(self, sql: str) -> tuple[Placed, bool]:
        """Return a change as it runs, and whether it commits whatever is open.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        made = placed(sql, SNOWFLAKE, question)
        first = _kind(made.tokens)
        _check_signs(made.tokens)
        if any(token.text == ";" for token in made.tokens[:-1]):
            raise refusal("Only one statement can be sent at a time.", "has several statements; send each in a call")
        self._check_schema(sql)
        return made, first in SHAPING

    def _check_schema(self, sql: str) -> None:
        """In a schema of its own a tenant names tables without one, so that it cannot name another's."""
        if self._schema is None:
            return
        from sqlglot import exp

        from erp.vendor_clients.safe_sql.statements import tree_of

        tree = tree_of(sql, "snowflake")
        if isinstance(tree, exp.Command):
            raise refusal("The statement is not understood.", "write it more plainly")
        for table in tree.find_all(exp.Table):
            if table.args.get("db") or table.args.get("catalog"):
                raise refusal("There is no such table.", f"names {table.sql('snowflake')[:80]}; leave the schema out")


def _judging(functions: Collection[str], schema: str | None) -> Queries:
    from erp.vendor_clients.safe_sql.queries import Policy, Queries

    policy = Policy(
        dialect="snowflake",
        lexis=SNOWFLAKE,
        functions=frozenset(functions),
        default_schemas=() if schema is None else (schema,),
        folds_upper=True,
        hidden_prefixes=("erp_", "snowflake"),
    )
    return Queries(policy, question)


def _kind(tokens: Sequence[Token]) -> str:
    """Refuse what does more than change rows or tables."""
    first = tokens[0] if tokens else None
    if first is None or first.kind is not Kind.WORD or first.folded not in ROWS | SHAPING:
        kinds = ", ".join(sorted(ROWS | SHAPING)).upper()
        raise refusal(
            "The statement is not allowed here.",
            f"begins with {first.text[:30] if first else ''!r}; use one of {kinds}",
        )
    words = [token.folded for token in tokens if token.kind is Kind.WORD]
    found = _NEVER.intersection(words)
    if found:
        raise refusal("The statement does what is not allowed here.", f"has {min(found).upper()} inside")
    if first.folded in SHAPING:
        shape = next((word for word in words if word not in _BEFORE_SHAPE), "")
        if shape not in _SHAPES:
            raise refusal("This cannot be made or changed.", f"names {shape[:40]!r}; only tables, views, sequences")
    return first.folded


def _check_signs(tokens: Sequence[Token]) -> None:
    """Refuse stages (``@stage``), variables (``$name``), bodies of programs (``$$``), sequences, and whatever leads on.

    ``->>`` sends the result of one statement into the next one; ``table('name')`` names a table by text.
    """
    for number, token in enumerate(tokens):
        following = [each.text.lower() for each in tokens[number + 1 : number + 3]]
        if token.text.startswith(("@", "$")):
            raise refusal("Stages and variables are not allowed.", f"has {token.text[:20]}")
        if token.text == "-" and following == [">", ">"]:
            raise refusal("Only one statement can be sent at a time.", "has ->>; send each in a call")
        if token.folded == "nextval":
            raise refusal("The statement does what is not allowed here.", "draws from a sequence")
        if token.folded == "table" and following[:1] == ["("] and following[1:] != ["flatten"]:
            raise refusal("There is no such table.", "names a table by an expression")
