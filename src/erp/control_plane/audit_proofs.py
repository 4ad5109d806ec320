"""Proofs from the tree over a tenant's audit records: that one is in it, and that it only grew.

Leaf ``seq - 1`` is the hash of record ``seq``, which covers the record and all before it: a record that is
lawfully deleted leaves its hash, and every proof about it and about the others stays what it was.
"""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.database import Database
from erp.control_plane.merkle import (
    TILE_LEVELS,
    CompactRange,
    Subtree,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    proof,
    root_of,
)
from erp.control_plane.tables import audit, audit_heads, audit_nodes
from erp.errors import FieldError, ProviderError

_DAMAGED = "The audit log is damaged: no proof can be made. Run `erp audit verify` to see where."


class AuditProofs:
    """The trees of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tree(self, tenant: str) -> CompactRange:
        """Return the tree over the records of ``tenant`` as it is now."""
        return await self._database.run(partial(_tree, tenant))

    async def inclusion(self, tenant: str, seq: int, size: int) -> list[bytes]:
        """Return the path that proves record ``seq`` to be among the first ``size`` (RFC 9162, section 2.1.3).

        Raises:
            ProviderError: ``not_found`` when there is no such record among them.
        """
        await self._check_size(tenant, size)
        if not 1 <= seq <= size:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no record {seq} among the first {size}.")
        return await self._proof(tenant, inclusion_ranges(seq - 1, size))

    async def consistency(self, tenant: str, first: int, second: int) -> list[bytes]:
        """Return the path that proves the first ``first`` records to begin the first ``second`` (section 2.1.4).

        Raises:
            ProviderError: ``invalid_argument`` when ``first`` is not between 1 and ``second``.
        """
        await self._check_size(tenant, second)
        if not 1 <= first <= second:
            error = FieldError("/query/from", f"Use a size from 1 to {second}.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There is no such proof.", errors=[error])
        return await self._proof(tenant, consistency_ranges(first, second))

    async def root(self, tenant: str, size: int) -> bytes:
        """Return the root of the tree over the first ``size`` records.

        Raises:
            ProviderError: ``invalid_argument`` when there are fewer.
        """
        await self._check_size(tenant, size)
        return (await self._proof(tenant, [(0, size)]))[0] if size else CompactRange().root()

    async def _check_size(self, tenant: str, size: int) -> None:
        tree = await self.tree(tenant)
        if size > tree.size:
            error = FieldError("/query/size", f"There are {tree.size} records.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There are not that many records.", errors=[error])

    async def _proof(self, tenant: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        def read(connection: sa.Connection) -> list[bytes]:
            return proof(ranges, partial(_subtree, connection, tenant))

        return await self._database.run(read)


def _tree(tenant: str, connection: sa.Connection) -> CompactRange:
    heads = audit_heads.c
    row = connection.execute(sa.select(heads.seq, heads.subtrees).where(heads.tenant == tenant)).first()
    try:
        return CompactRange() if row is None else CompactRange(row.seq, bytes(row.subtrees or b""))
    except ValueError as error:
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"{_DAMAGED} {error}") from error


def _subtree(connection: sa.Connection, tenant: str, subtree: Subtree) -> bytes:
    """Return the root of a full subtree, from the records or from the kept roots closest under it."""
    level, index = subtree
    kept = level - level % TILE_LEVELS
    begin, end = index << level - kept, index + 1 << level - kept
    hashes = _leaves(connection, tenant, begin, end) if kept == 0 else _nodes(connection, tenant, kept, begin, end)
    if len(hashes) != end - begin:
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"{_DAMAGED} Records are missing.")
    return root_of(hashes)


def _leaves(connection: sa.Connection, tenant: str, begin: int, end: int) -> list[bytes]:
    table = audit.c
    statement = sa.select(table.hash).where(table.tenant == tenant, table.seq > begin, table.seq <= end)
    return [leaf_hash(bytes(digest)) for digest in connection.execute(statement.order_by(table.seq)).scalars()]


def _nodes(connection: sa.Connection, tenant: str, level: int, begin: int, end: int) -> list[bytes]:
    table = audit_nodes.c
    statement = sa.select(table.hash).where(
        table.tenant == tenant, table.level == level, table.index >= begin, table.index < end
    )
    return [bytes(digest) for digest in connection.execute(statement.order_by(table.index)).scalars()]
