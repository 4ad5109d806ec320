"""What kind of statement a tree is and which functions it calls."""

from __future__ import annotations

import re
from collections.abc import Collection

from sqlglot import exp

from erp.vendor_clients.safe_sql.statements import PARAMETER, refusal

_READING = (exp.Select, exp.SetOperation, exp.Subquery, exp.Values)
_CHANGING = (exp.Insert, exp.Update, exp.Delete)
_EFFECTS = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Pragma, exp.Set, exp.Transaction, exp.Commit,
            exp.Rollback, exp.Attach, exp.Detach, exp.Copy, exp.Use, exp.Kill, exp.Parameter, exp.SessionParameter)  # fmt: skip
_SYNTAX = (exp.Connector, exp.Case, exp.Cast, exp.Exists)
"""What the parser calls functions though the engine does not."""
_CALL = re.compile(r"(\w+)\(")


def check(tree: exp.Expr, dialect: str, *, writes: bool, functions: Collection[str]) -> None:
    """Refuse anything but one query (or one change of rows) of allowed functions, given in lower case.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    if writes and not isinstance(tree, (*_READING, *_CHANGING)):
        raise refusal("The statement is not allowed here.", "must be one SELECT, INSERT, UPDATE or DELETE")
    if not writes and not isinstance(tree, _READING):
        raise refusal("A query can only read. Use execute to change rows.", "must be one SELECT")
    for node in tree.walk():
        _check_node(node, tree)
        if isinstance(node, exp.Func) and not isinstance(node, _SYNTAX):
            name = _called(node, dialect)
            if name and name not in functions:
                raise refusal("A function is not allowed here.", f"calls {name[:64]}")


def _called(node: exp.Func, dialect: str) -> str:
    """Return the name that the engine will read; empty for an operator or a keyword."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    found = _CALL.match(node.sql(dialect, comments=False))
    return found[1].lower() if found else ""


def _check_node(node: exp.Expr, tree: exp.Expr) -> None:
    if isinstance(node, _EFFECTS) and node is not tree and not isinstance(node, exp.Query):
        raise refusal("The statement does what is not allowed here.", f"has {node.key.upper()} inside")
    if isinstance(node, exp.In) and node.args.get("field") is not None:
        raise refusal("A table after IN is not allowed here.", "write IN (SELECT ... FROM table)")
    if isinstance(node, exp.Placeholder) and not str(node.this).startswith(PARAMETER):
        raise refusal("Only ? is a placeholder here.", "has a named placeholder")
