"""Rows of SQL Server's catalogue views, as Microsoft describes them: no server was at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erp.vendor_clients.row_security import mssql

READ_WRITE = (1, 1, 1, 1, 0, 0, 0)
OWN = "[erp_isolation].[is_own]([tenant])"
PREDICATES = [
    ("FILTER", None, OWN),
    *(("BLOCK", when, OWN) for when in ("AFTER INSERT", "AFTER UPDATE", "BEFORE UPDATE", "BEFORE DELETE")),
]
DEFAULT = "(CONVERT([nvarchar](128),session_context(N'erp_tenant')))"
TENANT = ("sales", "orders", "tenant", "nvarchar", False, DEFAULT)
PRIMARY = [("sales", "orders", "PK", column, None) for column in ("tenant", "id")]


class MssqlCatalogue:
    """Answers the questions of ``look`` with rows."""

    def __init__(self, **answers: Sequence[Any]) -> None:
        kept: dict[str, Sequence[Any]] = {
            "held": [(0,) * len(mssql.TOO_MUCH)],
            "reached": [("sales", "orders", "U", *READ_WRITE)],
            "policies": [("sales", "orders", True, *each) for each in PREDICATES],
            "columns": [TENANT],
            "keys": PRIMARY,
            "parallel": [(1,)],
        }
        kept.update(answers)
        self._answers = {
            mssql.as_user("erp_app", mssql.HELD): kept["held"],
            mssql.as_user("erp_app", mssql.REACHED): kept["reached"],
            mssql.POLICIES: kept["policies"],
            mssql.COLUMNS: kept["columns"],
            mssql.KEYS: kept["keys"],
            mssql.PARALLEL: kept["parallel"],
        }
        self._found: Sequence[Any] = ()

    def cursor(self) -> MssqlCatalogue:
        return self

    def execute(self, sql: str) -> MssqlCatalogue:
        self._found = self._answers[sql]
        return self

    def fetchall(self) -> Sequence[Any]:
        return self._found
