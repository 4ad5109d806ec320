"""The same statement, confined to what one tenant may see and change.

Every table becomes a filtered subquery under the table's own name; a changed table keeps its place and gets a
condition, and new rows get the tenant's value. The tenant's column does not exist for the statement. What runs is
written anew from the tree, so that the engine reads what was understood here; names of common table expressions are
replaced, so that one out of its scope cannot mean a table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from erp.runtime.spi import ErrorCode, FieldError, ProviderError
from erp.vendor_clients.safe_sql import proof, rules
from erp.vendor_clients.safe_sql.relations import TENANT, Relation, folded
from erp.vendor_clients.safe_sql.statements import PARAMETER, parsed, refusal

CACHED = 1000
CTE = "erp_cte_"
ROW_NUMBERS = frozenset({"rowid", "_rowid_", "oid", "ctid"})
_NAMELESS = frozenset({"mysql"})
"""Engines in which what is inserted into or deleted from has no other name, and VALUES cannot be selected from."""
_TABLE_PARTS = frozenset({"this", "db", "alias", "joins"})


@dataclass(frozen=True, slots=True)
class Confined:
    """A statement that may run, with named parameters."""

    sql: str
    count: int
    target: str | None = None
    """The table it changes, if it changes one, and the alias it has there."""
    alias: str | None = None

    def bind(self, values: Sequence[Any], tenant: str) -> dict[str, Any]:
        """Return the parameters by name.

        Raises:
            ProviderError: ``invalid_argument`` when there are more or fewer than placeholders.
        """
        if len(values) != self.count:
            wrong = FieldError("/params/parameters", f"has {len(values)} values for {self.count} placeholders")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Each placeholder needs one value.", errors=[wrong])
        return {TENANT: tenant, **{f"{PARAMETER}{number}": value for number, value in enumerate(values, 1)}}


class Isolation:
    """Confines statements by a list of relations; all others do not exist.

    ``functions`` are allowed, by their lower-case names; ``row_sources`` are those of them that may stand in FROM.
    """

    def __init__(
        self,
        dialect: str,
        relations: Mapping[str, Relation],
        functions: Collection[str],
        row_sources: Collection[str] = (),
        *,
        respelled: Callable[[exp.Expr], exp.Expr] | None = None,
    ) -> None:
        """``respelled`` says in the engine's words what the parser would write otherwise."""
        self.dialect = dialect
        self.relations = relations
        self._functions = frozenset(functions)
        self._row_sources = frozenset(row_sources)
        self._respelled = respelled
        self._is_shared = any(relation.tenant_column for relation in relations.values())
        self._cache: OrderedDict[tuple[bool, str], Confined] = OrderedDict()

    def confined(self, sql: str, *, writes: bool) -> Confined:
        """Return ``sql`` as it may run.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        key = (writes, sql)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self._made(sql, writes=writes)
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        return found

    def _made(self, sql: str, *, writes: bool) -> Confined:
        tree, count = parsed(sql, self.dialect)
        rules.check(tree, self.dialect, writes=writes, functions=self._functions)
        self._check_names(tree)
        target = _target(tree)
        if target is not None:
            self._check_columns(tree, self._relation(target).tenant_column)
        self._rename_expressions(tree)
        for table in list(tree.find_all(exp.Table)):
            if table is not target:
                self._replace(table)
        if target is not None:
            self._confine(tree, target)
        if self._respelled is not None:
            tree = self._respelled(tree)
        text = written(tree, self.dialect)
        proof.check(text, self.dialect, self.relations, CTE, self._row_sources)
        if target is None:
            return Confined(text, count)
        return Confined(text, count, folded(target.name), target.alias_or_name)

    # -- reading ---------------------------------------------------------------------------------

    def _rename_expressions(self, tree: exp.Expr) -> None:
        names = {folded(cte.alias) for cte in tree.find_all(exp.CTE)}
        taken = sorted(name for name in names if name in self.relations)
        if taken:
            raise refusal("A common table expression hides a table.", f"names one {taken[0]!r}; choose another name")
        for cte in tree.find_all(exp.CTE):
            cte.args["alias"].set("this", _identifier(CTE + folded(cte.alias)))
        for table in tree.find_all(exp.Table):
            if isinstance(table.this, exp.Identifier) and not table.args.get("db") and folded(table.name) in names:
                _keep_name(table)
                table.set("this", _identifier(CTE + folded(table.name)))

    def _replace(self, table: exp.Table) -> None:
        if not isinstance(table.this, exp.Identifier):
            self._check_row_source(table)
            return
        if table.name.startswith(CTE):
            return
        relation = self._relation(table)
        if relation.tenant_column is None:
            _keep_name(table)
            table.set("this", _identifier(relation.name))
            table.set("db", _identifier(relation.schema))
            return
        subquery = exp.Subquery(this=relation.filtered(), alias=_alias(table), joins=table.args.get("joins"))
        table.replace(subquery)

    def _check_row_source(self, table: exp.Table) -> None:
        call = table.this
        if not isinstance(call, exp.Anonymous) or call.name.lower() not in self._row_sources or table.args.get("db"):
            raise refusal("A table function is not allowed here.", f"reads from {table.sql(self.dialect)[:64]}")

    def _relation(self, table: exp.Table) -> Relation:
        odd = [
            part for part, value in table.args.items() if value is not None and value != [] and part not in _TABLE_PARTS
        ]
        if odd:
            raise refusal("A table can only have an alias here.", f"has {odd[0]} at {table.name!r}")
        relation = self.relations.get(folded(table.name))
        if relation is None or folded(table.db or relation.schema) != relation.schema:
            raise refusal("There is no such table.", f"names {table.sql(self.dialect)[:80]}")
        return relation

    # -- changing --------------------------------------------------------------------------------

    def _confine(self, tree: exp.Expr, target: exp.Table) -> None:
        relation = self._relation(target)
        if self.dialect not in _NAMELESS or isinstance(tree, exp.Update):
            _keep_name(target)
        target.set("this", _identifier(relation.name))
        target.set("db", _identifier(relation.schema))
        if relation.tenant_column is None:
            return
        self._expand_returning(tree, relation)
        if isinstance(tree, exp.Insert):
            _own_rows(tree, target, relation, in_place=self.dialect in _NAMELESS)
        else:
            old = tree.args.get("where")
            owned = relation.condition(target.alias_or_name)
            both = exp.And(this=owned, expression=exp.Paren(this=old.this)) if old else owned
            tree.set("where", exp.Where(this=both))

    def _expand_returning(self, tree: exp.Expr, relation: Relation) -> None:
        returning = tree.args.get("returning")
        if returning is None:
            return
        shown: list[exp.Expr] = []
        for item in returning.expressions:
            is_all = isinstance(item, exp.Star)
            shown += [exp.Column(this=_identifier(name)) for name in relation.columns] if is_all else [item]
        returning.set("expressions", shown)

    def _check_columns(self, tree: exp.Expr, tenant_column: str | None) -> None:
        """Refuse a change that names the tenant's column: it would be the engine's own, not that of a subquery."""
        if tenant_column is None:
            return
        named = [*tree.find_all(exp.Column)]
        if isinstance(tree, exp.Insert) and isinstance(tree.this, exp.Schema):
            named += tree.this.expressions
        if any(folded(node.name) == tenant_column for node in named):
            raise refusal("There is no such column.", f"names {tenant_column!r}, which the layer sets")

    def _check_names(self, tree: exp.Expr) -> None:
        """Refuse names of the layer's own, and row numbers, which count the rows of all tenants."""
        visible = {folded(name) for relation in self.relations.values() for name in relation.columns}
        for node in tree.find_all(exp.Identifier):
            if folded(node.name).startswith("erp_"):
                raise refusal("Names beginning with erp_ belong to the layer.", f"names {node.name[:64]!r}")
        for column in tree.find_all(exp.Column):
            column.set("db", None)
            if folded(column.name) in ROW_NUMBERS - visible and self._is_shared:
                raise refusal("There is no such column.", f"names {column.name!r}")


def written(tree: exp.Expr, dialect: str) -> str:
    """Return the text of ``tree``; what the dialect has no words for is refused, not left out."""
    try:
        return tree.sql(dialect, comments=False, unsupported_level=ErrorLevel.RAISE)
    except (SqlglotError, RecursionError) as error:
        raise refusal("The statement is not understood.", "use plain SQL of one statement") from error


def _target(tree: exp.Expr) -> exp.Table | None:
    if not isinstance(tree, (exp.Insert, exp.Update, exp.Delete)):
        return None
    table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise refusal("The statement is not understood.", "must change one table, named plainly")
    return table


def _own_rows(tree: exp.Insert, target: exp.Table, relation: Relation, *, in_place: bool) -> None:
    """Give every new row the tenant's value: ``INSERT ... SELECT rows.*, :tenant FROM (rows)``.

    ``in_place``: where VALUES stand, each row gets it there.
    """
    named = [item.name for item in tree.this.expressions] if isinstance(tree.this, exp.Schema) else []
    columns = named or list(relation.columns)
    rows = tree.expression
    if not isinstance(rows, (exp.Query, exp.Values)):
        raise refusal("The statement is not understood.", "must have VALUES or a SELECT with the new rows")
    if named and isinstance(rows, exp.Values) and any(len(row.expressions) != len(named) for row in rows.expressions):
        raise refusal("Each row needs a value for each column.", f"must have {len(named)} values in every row")
    if in_place and isinstance(rows, exp.Values):
        for row in rows.expressions:
            row.append("expressions", exp.Placeholder(this=TENANT))
    else:
        tree.set("expression", _widened(rows))
    _widen_conflict(tree, relation)
    names = [*columns, relation.tenant_column or ""]
    tree.set("this", exp.Schema(this=target, expressions=[_identifier(name) for name in names]))


def _widened(rows: exp.Expr) -> exp.Select:
    source = exp.Subquery(this=rows.copy(), alias=exp.TableAlias(this=_identifier("erp_rows")))
    every = exp.Column(this=exp.Star(), table=_identifier("erp_rows"))
    chosen = exp.Select(expressions=[every, exp.Placeholder(this=TENANT)], where=exp.Where(this=exp.true()))
    chosen.set("from_", exp.From(this=source))
    return chosen


def _widen_conflict(tree: exp.Insert, relation: Relation) -> None:
    """What is unique is so among the tenant's rows: the conflict's columns need the tenant's beside them."""
    conflict = tree.args.get("conflict")
    if conflict is not None and conflict.args.get("conflict_keys"):
        conflict.append("conflict_keys", _key(relation.tenant_column or ""))


def _keep_name(table: exp.Table) -> None:
    table.set("alias", _alias(table))


def _alias(table: exp.Table) -> exp.TableAlias:
    alias = table.args.get("alias")
    return alias.copy() if alias is not None else exp.TableAlias(this=_identifier(table.name))


def _identifier(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def _key(name: str) -> exp.Ordered:
    return exp.Ordered(this=exp.Column(this=_identifier(name)), nulls_first=True)
