"""Where a connection's database is: a file of its own, or one that tenants share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erp.providers.db.duckdb.catalogue import Shared
from erp.providers.db.duckdb.pooled import Pool
from erp.providers.db.duckdb.sessions import Limits, opened
from erp.providers.db.duckdb.wording import AsWritten, Rewritten, Wording
from erp.runtime.spi import Config, ErrorCode, OpenContext, ProviderError

FILE = "database.duckdb"
SHARED_FOLDER = "db-duckdb"


@dataclass(frozen=True, slots=True)
class Place:
    """A database file and whose it is."""

    path: Path
    is_shared: bool
    tenant: str

    def opened(self, limits: Limits) -> Any:
        """Open the file; returns what gives out connections.

        Raises:
            ProviderError: ``failed_precondition`` for a shared file that is not there or keeps no tenants apart;
                ``unavailable`` when another process has it.
        """
        if not self.is_shared:
            return opened(self.path, limits)
        if not self.path.is_file():
            message = f"There is no shared file {self.path.stem!r}. The operator makes it, with its tables and the list of them."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return Pool(self.path, limits, self.tenant)

    def wording(self, root: Any) -> Wording:
        """Return what statements become, where ``root`` is what ``opened`` has returned."""
        return Rewritten(root.tables, self.tenant) if isinstance(root, Pool) else AsWritten()

    def shared(self, root: Any) -> Shared:
        """Return the tenants' columns by the tables that are seen; None when all of the file is the tenant's."""
        if not isinstance(root, Pool):
            return None
        return {table.name: table.tenant_column for table in root.tables.values()}


def placed(config: Config, context: OpenContext) -> Place:
    """Return the place that ``config`` names.

    Raises:
        ProviderError: ``failed_precondition`` when the configuration contradicts itself.
    """
    name = config.get("file")
    if config.get("mode", "siloed") == "siloed":
        if name is not None:
            raise _contradiction("file is only possible with mode pooled; a siloed connection has a file of its own")
        return Place(context.data_dir / FILE, is_shared=False, tenant=context.tenant)
    if name is None:
        raise _contradiction("mode pooled needs file")
    return Place(context.shared_dir / SHARED_FOLDER / f"{name}.duckdb", is_shared=True, tenant=context.tenant)


def _contradiction(why: str) -> ProviderError:
    return ProviderError(ErrorCode.FAILED_PRECONDITION, f"The configuration cannot work: {why}.")
