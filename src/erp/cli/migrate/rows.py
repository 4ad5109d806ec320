# ruff: noqa: S608  (names are quoted, and values are parameters)
"""Rows of one table at one side: read in the order of their key, found by it, written and removed in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from erp.cli.migrate.schema import Table, identifier
from erp.cli.migrate.side import Side
from erp.cli.migrate.values import Kind, parameter

PARAMETERS = 1000
"""Of one statement: less than the least that an engine takes (2,100 of Microsoft SQL Server)."""
STATEMENTS = 200
ALTERNATIVES = 90
"""Of composite keys in one statement: SQLite takes expressions 200 deep in the layer."""
BATCH_BYTES = 2 * 1024 * 1024

Statement = dict[str, Any]


class Rows:
    """The rows of a table as one side reads and writes them. Values are in the form in which they are compared."""

    def __init__(self, side: Side, table: Table, kinds: Sequence[Kind]) -> None:
        self._side = side
        self._table = table
        self._kinds = dict(zip(table.columns, kinds, strict=True))
        self._name = identifier(table.name, table.dialect)
        schema = table.facts.get("schema")
        if schema:
            self._name = f"{identifier(schema, table.dialect)}.{self._name}"

    def count(self) -> int:
        """How many there are."""
        found: int = self._query(f"SELECT count(*) FROM {self._name}", [], 1)["rows"][0][0]
        return found

    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._query(self._limited(f"SELECT 1 FROM {self._name}", 1), [], 1)["rows"])

    def highest(self, column: str) -> int:
        """The largest value of a column; 0 when there is no row."""
        return int(self._query(f"SELECT max({self._quoted(column)}) FROM {self._name}", [], 1)["rows"][0][0] or 0)

    def has_null_in_key(self) -> bool:
        """Whether a row cannot be told by its key, which SQLite allows."""
        condition = " OR ".join(f"{self._quoted(name)} IS NULL" for name in self._table.key)
        return bool(self._query(f"SELECT count(*) FROM {self._name} WHERE {condition}", [], 1)["rows"][0][0])

    def after(self, key: Sequence[Any] | None, limit: int, columns: Sequence[str]) -> list[list[Any]]:
        """Return the next rows by key; fewer than ``limit`` when they are large, none at the end."""
        condition, parameters = self._beyond(key)
        order = ", ".join(map(self._quoted, self._table.key))
        text = f"SELECT {self._names(columns)} FROM {self._name}{condition} ORDER BY {order}"
        found: list[list[Any]] = self._query(self._limited(text, limit), parameters, limit)["rows"]
        return found

    def _beyond(self, key: Sequence[Any] | None) -> tuple[str, list[Any]]:
        """``(a, b) > (?, ?)`` spelled out: not every engine compares rows."""
        if key is None:
            return "", []
        names, choices, parameters = self._table.key, [], list[Any]()
        for index, name in enumerate(names):
            equal = [f"{self._quoted(before)} = ?" for before in names[:index]]
            choices.append(f"({' AND '.join([*equal, f'{self._quoted(name)} > ?'])})")
            parameters += [self._parameter(names[at], key[at]) for at in range(index + 1)]
        return f" WHERE {' OR '.join(choices)}", parameters

    @property
    def _most_keys(self) -> int:
        return PARAMETERS if len(self._table.key) == 1 else ALTERNATIVES

    def with_keys(self, keys: Sequence[Sequence[Any]], columns: Sequence[str]) -> list[list[Any]]:
        """Return the rows that have one of these keys."""
        most = self._most_keys
        return [row for at in range(0, len(keys), most) for row in self._with(keys[at : at + most], columns)]

    def _with(self, keys: Sequence[Sequence[Any]], columns: Sequence[str]) -> list[list[Any]]:
        condition, parameters = self._among(keys)
        text = f"SELECT {self._names(columns)} FROM {self._name} WHERE {condition}"
        found = self._query(text, parameters, max(len(keys), 1))
        if not found["truncated"] or len(keys) == 1:
            rows: list[list[Any]] = found["rows"]
            return rows
        half = len(keys) // 2
        return self._with(keys[:half], columns) + self._with(keys[half:], columns)

    def _among(self, keys: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
        names = self._table.key
        parameters = [self._parameter(name, value) for key in keys for name, value in zip(names, key, strict=True)]
        if len(names) == 1:
            return f"{self._quoted(names[0])} IN ({', '.join('?' * len(keys))})", parameters
        one = f"({' AND '.join(f'{self._quoted(name)} = ?' for name in names)})"
        return " OR ".join([one] * len(keys)), parameters

    def stream(self) -> Iterator[list[Any]]:
        """Yield all rows in no order."""
        text = f"SELECT {self._names(self._table.columns)} FROM {self._name}"
        for item in self._side.items("stream", {"sql": text}):
            yield from item.get("rows", [])

    # -- writing ---------------------------------------------------------------------------------

    def inserts(self, rows: Sequence[Sequence[Any]]) -> list[Statement]:
        """Return statements that add rows."""
        columns = self._table.columns
        most = max(PARAMETERS // len(columns), 1)
        return [self._insert(columns, rows[at : at + most]) for at in range(0, len(rows), most)]

    def _insert(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Statement:
        one = f"({', '.join('?' * len(columns))})"
        text = f"INSERT INTO {self._name} ({self._names(columns)}) VALUES {', '.join([one] * len(rows))}"
        parameters = [self._parameter(name, value) for row in rows for name, value in zip(columns, row, strict=True)]
        return {"sql": text, "parameters": parameters, "expect_rows": len(rows)}

    def update(self, row: Sequence[Any]) -> Statement:
        """Return the statement that makes the row with this key this row."""
        values = dict(zip(self._table.columns, row, strict=True))
        others = [name for name in self._table.columns if name not in self._table.key]
        sets = ", ".join(f"{self._quoted(name)} = ?" for name in others)
        condition, keys = self._among([[values[name] for name in self._table.key]])
        parameters = [*(self._parameter(name, values[name]) for name in others), *keys]
        return {"sql": f"UPDATE {self._name} SET {sets} WHERE {condition}", "parameters": parameters}

    def removals(self, keys: Sequence[Sequence[Any]]) -> list[Statement]:
        """Return statements that remove the rows with these keys."""
        most = self._most_keys
        found = [self._among(keys[at : at + most]) for at in range(0, len(keys), most)]
        return [{"sql": f"DELETE FROM {self._name} WHERE {text}", "parameters": values} for text, values in found]

    def clear(self) -> Statement:
        """Return the statement that removes all rows."""
        return {"sql": f"DELETE FROM {self._name} WHERE 1 = 1", "parameters": []}

    def run(self, statements: Sequence[Statement]) -> None:
        """Run statements in as few batches as their size allows; each batch takes effect whole or not at all."""
        batch, size = list[Statement](), 0
        for one in statements:
            weight = len(json.dumps(one))
            if batch and (len(batch) == STATEMENTS or size + weight > BATCH_BYTES):
                self._side.call("execute_batch", {"statements": batch})
                batch, size = [], 0
            batch.append(one)
            size += weight
        if batch:
            self._side.call("execute_batch", {"statements": batch})

    # --------------------------------------------------------------------------------------------

    def _query(self, text: str, parameters: list[Any], most: int) -> dict[str, Any]:
        found: dict[str, Any] = self._side.call("query", {"sql": text, "parameters": parameters, "max_rows": most})
        return found

    def _limited(self, text: str, limit: int) -> str:
        if self._table.dialect == "tsql":
            return text.replace("SELECT ", f"SELECT TOP {limit} ", 1)
        return f"{text} LIMIT {limit}"

    def _parameter(self, column: str, value: Any) -> Any:
        return parameter(value, self._kinds[column])

    def _quoted(self, name: str) -> str:
        return identifier(name, self._table.dialect)

    def _names(self, names: Sequence[str]) -> str:
        return ", ".join(map(self._quoted, names))
