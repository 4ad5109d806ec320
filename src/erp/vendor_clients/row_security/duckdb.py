"""Which tables of a DuckDB file tenants share, read from the file itself and proven fit for it.

The operator lists them in the table ``erp_isolation``; a tenant's own configuration cannot widen it. Each knows the
fixed statements that carry one tenant's rows out of the file and back; no word of a caller is ever in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.row_security.names import quoted
from erp.vendor_clients.sql.lexis import DUCKDB, Kind

LIST = "erp_isolation"
ARRIVING = "erp_arriving"
"""The name under which rows of the other engine are read."""
HELD = "erp_held_"
_CREATE = "CREATE TABLE "
_CARRIED = re.compile(
    r"(BOOLEAN|U?(TINYINT|SMALLINT|INTEGER|BIGINT)|HUGEINT|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB|DATE|TIME"
    r"|TIMESTAMP(_S|_MS|_NS)?|TIMESTAMP WITH TIME ZONE|INTERVAL|UUID|JSON)(\[\])*"
)
"""Types whose values arrive in another engine as they were."""


@dataclass(frozen=True, slots=True)
class PooledTable:
    """A shared table."""

    name: str
    tenant_column: str
    columns: tuple[str, ...]
    """What tenants see."""
    key: tuple[str, ...]
    """The primary key without the tenant's column."""
    types: dict[str, str]
    """Of all columns, in the file's order."""
    definition: str

    @property
    def held(self) -> str:
        """The name of the tenant's rows in the tenant's engine."""
        return HELD + self.name

    def own_rows(self) -> str:
        """Select the tenant's rows, tenant's column included."""
        return f"SELECT * FROM main.{quoted(self.name)} WHERE {quoted(self.tenant_column)} = $tenant"  # noqa: S608

    def target(self) -> str:
        """Make the table in the tenant's engine, with every rule that it has in the file."""
        return f"CREATE TEMP TABLE {self.definition.removeprefix(_CREATE)}"

    def holding(self) -> str:
        """Make what holds the tenant's rows in its engine, of the same types."""
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in self.types.items())
        return f"CREATE TEMP TABLE {quoted(self.held)} ({columns})"

    # -- what a statement did to the tenant's rows ------------------------------------------------

    def foreign(self) -> str:
        """Count rows that would be another tenant's."""
        column = quoted(self.tenant_column)
        return f"SELECT count(*) FROM main.{quoted(self.name)} WHERE {column} IS DISTINCT FROM $tenant"  # noqa: S608

    def added(self) -> str:
        """Select rows whose key was not there before."""
        return f"SELECT {self._shown} FROM main.{quoted(self.name)} ANTI JOIN {quoted(self.held)} USING ({self._key})"  # noqa: S608

    def removed(self) -> str:
        """Select the keys that are gone."""
        return f"SELECT {self._key} FROM {quoted(self.held)} ANTI JOIN main.{quoted(self.name)} USING ({self._key})"  # noqa: S608

    def altered(self) -> str:
        """Select rows that are there still, but otherwise."""
        differs = " OR ".join(f"a.{column} IS DISTINCT FROM b.{column}" for column in map(quoted, self._rest))
        shown = ", ".join(f"a.{quoted(column)}" for column in self.columns)
        before = f"{quoted(self.held)} AS b USING ({self._key})"
        return f"SELECT {shown} FROM main.{quoted(self.name)} AS a JOIN {before} WHERE {differs or 'false'}"  # noqa: S608

    # -- the same in the file ----------------------------------------------------------------------

    def add(self) -> str:
        """Insert what arrives as the tenant's rows."""
        into = f"main.{quoted(self.name)} ({self._shown}, {quoted(self.tenant_column)})"
        return f"INSERT INTO {into} SELECT {self._shown}, $tenant FROM {ARRIVING}"  # noqa: S608

    def remove(self) -> str:
        """Delete the tenant's rows whose keys arrive."""
        return f"DELETE FROM main.{quoted(self.name)} AS t USING {ARRIVING} AS a WHERE {self._same}"  # noqa: S608

    def alter(self) -> str:
        """Bring the tenant's rows to what arrives."""
        sets = ", ".join(f"{column} = a.{column}" for column in map(quoted, self._rest))
        return f"UPDATE main.{quoted(self.name)} AS t SET {sets} FROM {ARRIVING} AS a WHERE {self._same}"  # noqa: S608

    @property
    def _shown(self) -> str:
        return ", ".join(map(quoted, self.columns))

    @property
    def _key(self) -> str:
        return ", ".join(map(quoted, self.key))

    @property
    def _rest(self) -> list[str]:
        return [column for column in self.columns if column not in self.key]

    @property
    def _same(self) -> str:
        keys = [f"t.{column} = a.{column}" for column in map(quoted, self.key)]
        return " AND ".join([f"t.{quoted(self.tenant_column)} = $tenant", *keys])


def listing(table: str, column: str) -> list[str]:
    """Return the statements that list ``table``, of the schema main, as shared by ``column``."""
    name, own = (text.replace("'", "''") for text in (table, column))
    return [
        f"CREATE TABLE IF NOT EXISTS main.{LIST} (table_name VARCHAR PRIMARY KEY, tenant_column VARCHAR NOT NULL)",
        f"INSERT OR REPLACE INTO main.{LIST} VALUES ('{name}', '{own}')",  # noqa: S608
    ]


def load(handle: Any, memory: Any) -> dict[str, PooledTable]:
    """Return the shared tables by name in lower case, each of which an engine in memory can have too.

    Raises:
        ProviderError: ``failed_precondition`` naming what makes a table unfit to be shared.
    """
    return {name.lower(): _fit(handle, memory, name, column) for name, column in _listed(handle)}


def problems(handle: Any, memory: Any) -> list[str]:
    """Return what makes each listed table unfit to be shared."""
    found: list[str] = []
    try:
        listed = _listed(handle)
    except ProviderError as error:
        return [error.message]
    for name, column in listed:
        try:
            _fit(handle, memory, name, column)
        except ProviderError as error:
            found.append(error.message)
    return found


def _listed(handle: Any) -> list[tuple[str, str]]:
    import duckdb

    try:
        listed = handle.execute(f"SELECT table_name, tenant_column FROM main.{LIST} ORDER BY 1").fetchall()  # noqa: S608
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        why = "the file has no such table; it lists table_name and tenant_column of each shared table"
        raise _unfit(LIST, why) from error
    return [(str(name), str(column)) for name, column in listed]


def _fit(handle: Any, memory: Any, name: str, column: str) -> PooledTable:
    import duckdb

    table = _table(handle, name, column)
    try:
        memory.execute(table.target())
    except duckdb.Error as error:
        raise _unfit(name, "needs more of its file than its columns, such as a type or a macro") from error
    memory.execute(f"DROP TABLE temp.main.{quoted(name)}")
    return table


def _table(handle: Any, name: str, column: str) -> PooledTable:
    own = "database_name = current_database() AND schema_name = 'main' AND table_name = ?"
    found = handle.execute(f"SELECT sql FROM duckdb_tables() WHERE {own} AND NOT temporary", [name]).fetchone()  # noqa: S608
    if found is None or name.lower().startswith("erp_") or not found[0].startswith(_CREATE):
        raise _unfit(name, "is not an ordinary table of this file, written as there")
    _check_words(name, found[0])
    _check_triggers(handle, name)
    about = f"SELECT column_name, data_type, is_generated FROM duckdb_columns() WHERE {own} ORDER BY column_index"  # noqa: S608
    columns = {str(row[0]): row[1:] for row in handle.execute(about, [name]).fetchall()}
    _check_columns(name, column, columns)
    key = _key(handle, name, column)
    types = {one: str(kind) for one, (kind, _) in columns.items()}
    return PooledTable(name, column, tuple(one for one in columns if one != column), key, types, found[0])


def _check_words(name: str, definition: str) -> None:
    """Refuse what makes two tenants' names equal, or tells how many rows others have made."""
    words = {token.folded for token in DUCKDB.tokens(definition) if token.kind is Kind.WORD}
    if "collate" in words:
        raise _unfit(name, "has a collation, by which names of two tenants can be equal")
    if "nextval" in words:
        raise _unfit(name, "draws from a sequence, whose numbers tell what other tenants do")


def _check_triggers(handle: Any, name: str) -> None:
    every = "SELECT count(*) FROM duckdb_triggers() WHERE database_name = current_database() AND table_name = ?"
    if handle.execute(every, [name]).fetchone()[0]:
        raise _unfit(name, "has a trigger, which would act beyond the tenant")


def _check_columns(name: str, column: str, columns: dict[str, Any]) -> None:
    if column not in columns or columns[column][0] != "VARCHAR":
        raise _unfit(name, f"has no column {column!r} of the type varchar")
    for each, (kind, is_generated) in columns.items():
        if is_generated:
            raise _unfit(name, f"has the generated column {each!r}")
        if not _CARRIED.fullmatch(kind):
            raise _unfit(name, f"has the column {each!r} of the type {kind[:40]}, which cannot be shared")
        if each.lower().startswith("erp_"):
            raise _unfit(name, f"has the column {each!r}; names beginning with erp_ belong to the layer")


def _key(handle: Any, name: str, column: str) -> tuple[str, ...]:
    """Return the primary key without the tenant's column, which is in whatever is unique."""
    about = (
        "SELECT constraint_type, constraint_column_names, table_name FROM duckdb_constraints()"
        " WHERE database_name = current_database() AND (table_name = ? OR referenced_table = ?)"
    )
    rows = handle.execute(about, [name, name]).fetchall()
    if any(kind == "FOREIGN KEY" for kind, _, _ in rows):
        raise _unfit(name, "has a foreign key, or is named by one")
    keys = [list(names) for kind, names, _ in rows if kind == "PRIMARY KEY"]
    if not keys or column not in keys[0] or len(keys[0]) == 1:
        raise _unfit(name, f"has no primary key of {column!r} and another column")
    unique = [(f"unique constraint on {', '.join(names)}", names) for kind, names, _ in rows if kind == "UNIQUE"]
    for what, names in [*unique, *_unique_indexes(handle, name)]:
        if column not in names:
            raise _unfit(name, f"has the {what}, which does not contain {column!r}")
    return tuple(one for one in keys[0] if one != column)


def _unique_indexes(handle: Any, name: str) -> list[tuple[str, list[str]]]:
    about = (
        "SELECT index_name, expressions FROM duckdb_indexes()"
        " WHERE database_name = current_database() AND table_name = ? AND is_unique"
    )
    found = handle.execute(about, [name]).fetchall()
    return [(f"index {index!r}", [part.strip(" '\"") for part in text.strip("[]").split(",")]) for index, text in found]


def _unfit(name: str, why: str) -> ProviderError:
    """Return the error for a file that cannot be shared."""
    message = f"The file cannot be shared between tenants: {name[:100]!r} {why}."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message)
