"""What a caller's statement is turned into before DuckDB sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import UnsetType

from erp.providers.db.duckdb.changes import Change
from erp.providers.db.duckdb.functions import HARMLESS
from erp.providers.db.duckdb.pooled import Own
from erp.providers.db.duckdb.statements import ROW_SOURCES, change, queries
from erp.vendor_clients.sql.lexis import Kind, Token
from erp.vendor_clients.sql.placeholders import Placed
from erp.vendor_clients.sql.values import bound

if TYPE_CHECKING:
    from sqlglot import exp

    from erp.vendor_clients.row_security.duckdb import PooledTable
    from erp.vendor_clients.safe_sql.isolation import Confined, Isolation

Given = Sequence[Any] | UnsetType
PARAMETERS = "/params/parameters"
_MEETING = frozenset({"conflict", "replace", "ignore"})


class Asked(msgspec.Struct, frozen=True):
    """A query as it runs."""

    sql: str
    parameters: Any


class Wording(Protocol):
    """Judges statements, and turns them into what may run."""

    functions: Collection[str]
    """All that DuckDB has; known once it is open."""

    def query(self, sql: str, given: Given) -> Asked: ...

    def change(self, sql: str, given: Given, where: str = PARAMETERS) -> Change: ...


class AsWritten:
    """Leaves statements as they are."""

    def __init__(self) -> None:
        self.functions: Collection[str] = ()
        self._queries = queries()

    def query(self, sql: str, given: Given) -> Asked:
        made = self._queries.checked(sql)
        parameters = bound(given)
        made.require(len(parameters))
        return Asked(made.sql, parameters)

    def change(self, sql: str, given: Given, where: str = PARAMETERS) -> Change:
        made = change(sql, self.functions)
        parameters = bound(given, where=where)
        made.require(len(parameters), where)
        return Change(made, parameters)


class Rewritten:
    """Writes statements anew, naming only the tenant's rows of shared tables, once they are judged as everywhere."""

    def __init__(self, tables: Mapping[str, PooledTable], tenant: str) -> None:
        self.functions: Collection[str] = ()
        self._queries = queries()
        self._isolation = _isolation(tables)
        self._tenant = tenant

    def query(self, sql: str, given: Given) -> Asked:
        made = self._queries.checked(sql)
        parameters = bound(given)
        made.require(len(parameters))
        confined = self._isolation.confined(sql, writes=False)
        return Asked(confined.sql, self._own(confined, parameters))

    def change(self, sql: str, given: Given, where: str = PARAMETERS) -> Change:
        made = change(sql, self.functions)
        parameters = bound(given, where=where)
        made.require(len(parameters), where)
        confined = self._isolation.confined(sql, writes=True)
        own = self._own(confined, parameters, only_adds=_only_adds(made.tokens))
        return Change(Placed(confined.sql, confined.count, made.tokens), own)

    def _own(self, confined: Confined, parameters: Sequence[Any], *, only_adds: bool = False) -> Own:
        return Own(confined.bind(parameters, self._tenant), confined.target, only_adds)


def _isolation(tables: Mapping[str, PooledTable]) -> Isolation:
    from erp.vendor_clients.safe_sql.isolation import Isolation
    from erp.vendor_clients.safe_sql.relations import Relation, folded

    relations = {
        folded(name): Relation(
            name=table.name,
            columns=table.columns,
            tenant_column=folded(table.tenant_column),
            source=table.held,
            source_schema="main",
        )
        for name, table in tables.items()
    }
    return Isolation("duckdb", relations, HARMLESS, ROW_SOURCES, respelled=_respelled)


def _respelled(tree: exp.Expr) -> exp.Expr:
    """Name the columns of a conflict without an order, which DuckDB does not read there."""
    conflict = tree.args.get("conflict")
    if conflict is not None and conflict.args.get("conflict_keys"):
        conflict.set("conflict_keys", [getattr(key, "this", key) if key.key == "ordered" else key
                                       for key in conflict.args["conflict_keys"]])  # fmt: skip
    return tree


def _only_adds(tokens: Sequence[Token]) -> bool:
    """Whether it is an INSERT that cannot meet a row; one that can and is not seen here fails at the primary key."""
    words = [token.folded for token in tokens if token.kind is Kind.WORD]
    return words[:1] == ["insert"] and not _MEETING.intersection(words)
