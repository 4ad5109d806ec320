"""What a statement may do, judged before DuckDB runs it.

A query is judged by two readers that share nothing (``safe_sql.queries``), then by DuckDB's own parser, and runs in a
read-only transaction. A change is judged by DuckDB's parser and by its words. Whatever the judges miss: the engine
itself reaches no file but its own, loads no extension and keeps its settings
(https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from erp.providers.db.duckdb.functions import HARMLESS
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.safe_sql.queries import Policy, Queries, called
from erp.vendor_clients.safe_sql.statements import MAX_LENGTH
from erp.vendor_clients.sql.lexis import DUCKDB, Kind, Token, refusal
from erp.vendor_clients.sql.placeholders import Placed, placed, question

CHANGING = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE_INTO", "CREATE", "DROP", "ALTER", "VACUUM"})
ROW_SOURCES = frozenset({"json_each", "json_tree"})
"""Functions from which a rewritten statement can select."""
_CREATED = frozenset({"table", "view", "index", "sequence", "schema", "type"})
_BEFORE_KIND = frozenset({"create", "or", "replace", "unique"})
_ALSO_IN_CHANGES = frozenset({"nextval", "currval", "repeat"})
MAX_DEPTH = 64
MAX_DOTS = 6
"""DuckDB looks for names similar to a wrong one, which takes it half a minute when it has thousands of parts."""
_HIDDEN = ("duckdb_", "pragma_", "pg_", "sqlite_", "erp_")


def queries() -> Queries:
    """Return the judge of queries."""
    policy = Policy(
        dialect="duckdb",
        lexis=DUCKDB,
        functions=HARMLESS,
        default_schemas=("main",),
        hidden_prefixes=_HIDDEN,
        has_file_tables=True,
    )
    return Queries(policy, question)


def change(sql: str, engine_functions: Collection[str]) -> Placed:
    """Return a change as it may run; ``engine_functions`` are all that DuckDB has.

    Raises:
        ProviderError: ``invalid_argument`` naming what is not allowed.
    """
    if len(sql) > MAX_LENGTH:
        raise refusal("The statement is too long to be checked.", f"has more than {MAX_LENGTH} characters")
    made = placed(sql, DUCKDB, question)
    _check_nesting(made.tokens)
    words = [token.folded for token in made.tokens if token.kind is Kind.WORD]
    is_view = _is_view(words)
    allowed = HARMLESS if is_view else HARMLESS | _ALSO_IN_CHANGES
    for name in called(made.tokens):
        function = name.rpartition(".")[2]
        if function in engine_functions and function not in allowed:
            raise refusal("A function is not allowed here.", f"calls {function[:64]}")
    return made


def _is_view(words: Sequence[str]) -> bool:
    """Whether a view is made; of what is made at all only some kinds are allowed."""
    if words[:1] == ["vacuum"]:
        raise refusal("The statement is not allowed here.", "must not be VACUUM; DuckDB frees space by itself")
    if words[:1] != ["create"]:
        return False
    kind = next((word for word in words if word not in _BEFORE_KIND), "")
    if kind not in _CREATED:
        raise refusal(
            "This cannot be created.", f"creates {kind[:40]!r}; only tables, views, indexes, sequences, schemas, types"
        )
    return kind == "view"


def _check_nesting(tokens: Sequence[Token]) -> None:
    depth = deepest = dots = longest = 0
    for token in tokens:
        depth += (token.text in {"(", "[", "{"}) - (token.text in {")", "]", "}"})
        deepest = max(deepest, depth)
        if token.text == ".":
            dots += 1
        elif token.kind not in {Kind.WORD, Kind.NAME}:
            dots = 0
        longest = max(longest, dots)
    if deepest > MAX_DEPTH:
        raise refusal("The statement is nested too deeply.", f"is nested more than {MAX_DEPTH} deep")
    if longest > MAX_DOTS:
        raise refusal("A name has too many parts.", f"has a name of more than {MAX_DOTS + 1} parts")


def only(handle: Any, sql: str, allowed: Collection[str]) -> Any:
    """Return the one statement that DuckDB sees in ``sql``, of an allowed type.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    found = handle.extract_statements(sql)
    if len(found) != 1:
        raise refusal("Only one statement can be sent at a time.", f"has {len(found)} statements; send each in a call")
    kind = found[0].type.name
    if kind not in allowed:
        message = f"A statement of the kind {kind} is not allowed here: query only reads, execute changes only its own database."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message)
    return found[0]
