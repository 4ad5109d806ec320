"""Runs one change and tells what it changed and returned."""

from __future__ import annotations

from typing import Any

import msgspec

from erp.contracts.models.db import Effect, ExecuteResult
from erp.providers.db.duckdb.sessions import columns, fetched
from erp.providers.db.duckdb.statements import CHANGING, only
from erp.runtime.spi import ErrorCode, FieldError, ProviderError, UnsetType
from erp.vendor_clients.sql.lexis import Kind
from erp.vendor_clients.sql.pages import CHUNK
from erp.vendor_clients.sql.placeholders import Placed
from erp.vendor_clients.sql.values import fitted, shown

MAX_RETURNED_ROWS = 100_000
_COUNTING = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE_INTO"})


class Change(msgspec.Struct, frozen=True):
    """A change as it runs."""

    placed: Placed
    parameters: Any
    """Values in their order, or what a shared file needs besides (``pooled.Own``)."""

    @property
    def returns(self) -> bool:
        """Whether it has a RETURNING clause; the word is reserved, so it is nothing else."""
        return any(token.kind is Kind.WORD and token.folded == "returning" for token in self.placed.tokens)


def made(handle: Any, change: Change, max_bytes: int) -> ExecuteResult:
    """Run one change.

    Raises:
        ProviderError: ``failed_precondition`` when it returns more than an answer may have.
    """
    statement = only(handle, change.placed.sql, CHANGING)
    handle.execute(statement, change.parameters)
    kind = statement.type.name
    if kind != "SELECT" and not (kind in _COUNTING and change.returns):
        return ExecuteResult(rows_affected=_count(handle) if kind in _COUNTING else 0)
    rows: list[Any] = []
    while more := fetched(handle, CHUNK):
        rows += more
        if len(rows) > MAX_RETURNED_ROWS or fitted(rows, MAX_RETURNED_ROWS, max_bytes) < len(rows):
            message = (
                f"The rows to be returned exceed {max_bytes} bytes or {MAX_RETURNED_ROWS} rows; nothing was changed."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    affected = len(rows) if kind in _COUNTING else 0
    return ExecuteResult(rows_affected=affected, columns=columns(handle), rows=[shown(row) for row in rows])


def _count(handle: Any) -> int:
    row = handle.fetchone()
    return int(row[0]) if row else 0


def of_batch(handle: Any, number: int, change: Change, expected: int | UnsetType, max_bytes: int) -> Effect:
    """Run statement ``number`` of a batch.

    Raises:
        ProviderError: ``failed_precondition`` when it affects other rows than expected.
    """
    affected = made(handle, change, max_bytes).rows_affected
    if not isinstance(expected, UnsetType) and expected != affected:
        wrong = FieldError(f"/params/statements/{number}", f"affects {affected} rows instead of {expected}")
        message = "A statement of the batch did not affect the expected rows; nothing was changed."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])
    return Effect(rows_affected=affected)
