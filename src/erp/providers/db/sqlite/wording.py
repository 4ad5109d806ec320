"""What a caller's statement is turned into before SQLite sees it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import UnsetType

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.sql import values

if TYPE_CHECKING:
    from erp.providers.db.sqlite.pooled import SharedFile
    from erp.vendor_clients.safe_sql.isolation import Confined, Isolation

Given = Sequence[Any] | UnsetType


class Prepared(msgspec.Struct, frozen=True):
    """A statement as it runs."""

    sql: str
    parameters: Sequence[Any] | Mapping[str, Any]
    proof: tuple[SharedFile, Confined] | None = None
    writes: bool = False

    def execute(self, connection: sqlite3.Connection) -> sqlite3.Cursor:
        """Run it as a query, once its plan is proven where that is needed.

        Raises:
            ProviderError: ``invalid_argument`` for a statement without columns: whatever it is, it is no query.
        """
        self.prove(connection)
        cursor = connection.execute(self.sql, self.parameters)
        if cursor.description is None:
            cursor.close()
            raise ProviderError(
                ErrorCode.INVALID_ARGUMENT, "The statement is not a query. Use execute to change something."
            )
        return cursor

    def prove(self, connection: sqlite3.Connection) -> None:
        """Prove the plan, where tenants share the file."""
        if self.proof is not None and isinstance(self.parameters, Mapping):
            rules, confined = self.proof
            rules.enter(connection, confined, self.parameters, writes=self.writes)


class Wording(Protocol):
    """Turns statements into what may run."""

    def prepared(
        self, sql: str, given: Given, *, writes: bool = False, where: str = "/params/parameters"
    ) -> Prepared: ...


class AsWritten:
    """Leaves statements as they are: the authorizer alone decides."""

    def prepared(self, sql: str, given: Given, *, writes: bool = False, where: str = "/params/parameters") -> Prepared:
        return Prepared(sql, values.bound(given, values.TEXTS, where), writes=writes)


class Rewritten:
    """Writes statements anew, naming only the allowed tables, and where the file is shared, only the tenant's rows."""

    def __init__(self, isolation: Isolation, tenant: str, rules: SharedFile | None = None) -> None:
        self._isolation = isolation
        self._tenant = tenant
        self._rules = rules

    def prepared(self, sql: str, given: Given, *, writes: bool = False, where: str = "/params/parameters") -> Prepared:
        confined = self._isolation.confined(sql, writes=writes)
        bound = confined.bind(values.bound(given, values.TEXTS, where), self._tenant)
        proof = None if self._rules is None else (self._rules, confined)
        return Prepared(confined.sql, bound, proof, writes)
