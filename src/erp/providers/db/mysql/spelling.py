"""What a rewritten statement says in other words, because the parser would write what MariaDB does not have or does worse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import exp


def respelled(tree: exp.Expr) -> exp.Expr:
    """Return ``tree`` with the same meaning in words of both MySQL and MariaDB."""
    return tree.transform(_respelled, copy=False)


def _respelled(node: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    if isinstance(node, exp.RegexpLike) and node.args.get("flag") is None:
        # ``a RLIKE b`` would become REGEXP_LIKE, which MariaDB has not.
        found = exp.Anonymous(this="REGEXP_INSTR", expressions=[node.this, node.expression])
        return exp.Paren(this=exp.GT(this=found, expression=exp.Literal.number(0)))
    if isinstance(node, exp.Log) and isinstance(node.this, exp.Literal) and node.this.this == "10" and node.expression:
        # ``LOG10(1000)`` is 3, and ``LOG(10, 1000)``, for which the parser takes it, is not quite.
        return exp.Anonymous(this="LOG10", expressions=[node.expression])
    return node
