"""A second look at a confined statement: its text is read again, and every table in it must be accounted for.

It shares no step with the rewriting: whatever that did wrong, an unfiltered table does not get past here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlglot import exp, parse
from sqlglot.errors import SqlglotError

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.safe_sql.relations import TENANT, Relation, folded


def check(
    text: str, dialect: str, relations: Mapping[str, Relation], prefix: str, row_sources: Collection[str]
) -> None:
    """Refuse ``text`` unless each table is a common table expression, a function, a filtered subquery or the target.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    try:
        trees = parse(text, read=dialect)
    except (SqlglotError, RecursionError):
        raise _unproven() from None
    if len(trees) != 1 or trees[0] is None:
        raise _unproven()
    tree = trees[0]
    allowed = {relation.filtered().sql(dialect) for relation in relations.values() if relation.tenant_column}
    target = _target(tree, dialect, relations)
    for table in tree.find_all(exp.Table):
        if table is not target and not _is_accounted_for(table, dialect, relations, prefix, row_sources, allowed):
            raise _unproven()


def _is_accounted_for(
    table: exp.Table,
    dialect: str,
    relations: Mapping[str, Relation],
    prefix: str,
    row_sources: Collection[str],
    allowed: Collection[str],
) -> bool:
    if not isinstance(table.this, exp.Identifier):
        return isinstance(table.this, exp.Anonymous) and table.this.name.lower() in row_sources
    if table.name.startswith(prefix):
        return not table.args.get("db")
    relation = relations.get(folded(table.name))
    if relation is not None and relation.tenant_column is None:
        return folded(table.db) == relation.schema
    select = table.find_ancestor(exp.Select)
    return select is not None and isinstance(select.parent, exp.Subquery) and select.sql(dialect) in allowed


def _target(tree: exp.Expr, dialect: str, relations: Mapping[str, Relation]) -> exp.Table | None:
    """Return the changed table once it is certain that only the tenant's rows change."""
    if not isinstance(tree, (exp.Insert, exp.Update, exp.Delete)):
        return None
    table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    relation = relations.get(folded(table.name)) if isinstance(table, exp.Table) else None
    if relation is None or folded(table.db) != relation.schema:
        raise _unproven()
    if relation.tenant_column is not None:
        is_own = _inserts_own(tree, relation) if isinstance(tree, exp.Insert) else _is_limited(tree, relation, dialect)
        if not is_own:
            raise _unproven()
    found: exp.Table = table
    return found


def _inserts_own(tree: exp.Insert, relation: Relation) -> bool:
    """Whether the last column is the tenant's and the last value of each row the tenant."""
    columns = [folded(item.name) for item in tree.this.expressions] if isinstance(tree.this, exp.Schema) else []
    rows = tree.expression
    if columns.count(relation.tenant_column or "") != 1 or columns[-1] != relation.tenant_column:
        return False
    if isinstance(rows, exp.Values):
        return all(len(row.expressions) == len(columns) and _ends_with_tenant(row) for row in rows.expressions)
    return isinstance(rows, exp.Select) and len(rows.expressions) == 2 and _ends_with_tenant(rows)  # noqa: PLR2004


def _ends_with_tenant(row: exp.Expr) -> bool:
    last = row.expressions[-1]
    return isinstance(last, exp.Placeholder) and last.this == TENANT


def _is_limited(tree: exp.Expr, relation: Relation, dialect: str) -> bool:
    where = tree.args.get("where")
    first = where.this if where is not None else None
    while isinstance(first, exp.And):
        first = first.this
    wanted = relation.condition(tree.this.alias_or_name).sql(dialect)
    return first is not None and first.sql(dialect) == wanted


def _unproven() -> ProviderError:
    message = "The statement could not be confined to the tenant's rows. Write it more plainly."
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message)
