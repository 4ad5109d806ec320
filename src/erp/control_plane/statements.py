"""Statements compiled once and run with plain tuples, for the paths where SQLAlchemy's work per row counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


class Statement:
    """One statement for one dialect. Its columns need no conversion, so rows go to the driver as they are."""

    def __init__(self, dialect: sa.Dialect, element: sa.ClauseElement, *names: str) -> None:
        """``names``: the parameters in the order in which rows give them."""
        compiled = element.compile(dialect=dialect)
        self._text = str(compiled)
        order = tuple(getattr(compiled, "positiontup", None) or ())
        if order != names:
            message = f"The statement takes {order}, not {names}."
            raise ValueError(message)

    def run(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run the statement once per row; return how many rows it changed, or -1 where the driver does not tell."""
        return connection.exec_driver_sql(self._text, list(rows)).rowcount if rows else 0

    def run_one(self, connection: sa.Connection, row: tuple[Any, ...]) -> int:
        """Run the statement once; return how many rows it changed."""
        return connection.exec_driver_sql(self._text, row).rowcount


class Lookup:
    """``SELECT ... WHERE key IN (...)``, compiled for key counts that are powers of two, so that few texts exist."""

    def __init__(self, dialect: sa.Dialect, select: Callable[[list[Any]], sa.Select[*tuple[Any, ...]]]) -> None:
        """``select`` returns the statement for a list of keys (plain values or tuples)."""
        self._dialect = dialect
        self._select = select
        self._texts: dict[int, str] = {}

    def rows(self, connection: sa.Connection, keys: Sequence[Any]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
        """Return the rows of ``keys``, which must not be empty."""
        padded = [*keys, *[keys[-1]] * ((1 << (len(keys) - 1).bit_length()) - len(keys))]
        text = self._texts.get(len(padded)) or self._compile(padded)
        flat = tuple(part for key in padded for part in key) if isinstance(keys[0], tuple) else tuple(padded)
        return connection.exec_driver_sql(text, flat).all()

    def _compile(self, keys: list[Any]) -> str:
        compiled = self._select(keys).compile(dialect=self._dialect, compile_kwargs={"render_postcompile": True})
        text = self._texts[len(keys)] = str(compiled)
        return text


def insert_new(dialect: sa.Dialect, table: sa.Table) -> sa.Insert:
    """Return an insert that leaves rows alone that are there already."""
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
