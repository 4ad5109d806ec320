"""Where a connection's database is, and by which rules: a file of its own, or one that tenants share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erp.providers.db.sqlite.catalogue import Catalogue
from erp.providers.db.sqlite.functions import HARMLESS
from erp.providers.db.sqlite.guards import ROW_SOURCES, OwnFile
from erp.providers.db.sqlite.pooled import SharedFile
from erp.providers.db.sqlite.wording import AsWritten, Rewritten, Wording
from erp.runtime.spi import Config, ErrorCode, OpenContext, ProviderError

FILE = "database.sqlite3"
SHARED_FOLDER = "db-sqlite"
SHARED_SECONDS = 5.0
"""The longest transaction where tenants share a file, in which only one of them can write."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database file and what holds there."""

    path: Path
    rules: OwnFile | SharedFile
    tenant: str
    config: Config

    def require(self) -> None:
        """Refuse a shared file that is not there.

        Raises:
            ProviderError: ``failed_precondition``.
        """
        if isinstance(self.rules, SharedFile) and not self.path.is_file():
            message = f"There is no shared file {self.path.stem!r}. The operator makes it, with its tables and the list of them."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)

    def bounded(self, seconds: float) -> float:
        """Return how long a transaction may last that is configured to last ``seconds``."""
        return min(seconds, SHARED_SECONDS) if isinstance(self.rules, SharedFile) else seconds

    def wording(self) -> Wording:
        """Return what statements become; to be asked once the file is open."""
        if isinstance(self.rules, SharedFile):
            return Rewritten(self.rules.isolation(), self.tenant, self.rules)
        tables = self.config.get("tables")
        if tables is None:
            return AsWritten()
        from erp.vendor_clients.safe_sql.isolation import Isolation
        from erp.vendor_clients.safe_sql.relations import Relation, folded

        relations = {folded(name): Relation(name=name, columns=()) for name in tables}
        functions = {name.lower() for name in self.config.get("functions", HARMLESS)}
        return Rewritten(Isolation("sqlite", relations, HARMLESS & functions, ROW_SOURCES), self.tenant)

    def catalogue(self) -> Catalogue:
        """Return what describes the tables that statements may name; to be asked once the file is open."""
        if isinstance(self.rules, SharedFile):
            return Catalogue({name: table.tenant_column for name, table in self.rules.tables.items()}, self.tenant)
        tables = self.config.get("tables")
        return Catalogue(None if tables is None else dict.fromkeys(map(str.lower, tables)), self.tenant)


def placed(config: Config, context: OpenContext) -> Place:
    """Return the place that ``config`` names.

    Raises:
        ProviderError: ``failed_precondition`` when the configuration contradicts itself.
    """
    name = config.get("file")
    if config.get("mode", "siloed") == "siloed":
        if name is not None:
            raise _contradiction("file is only possible with mode pooled; a siloed connection has a file of its own")
        rules = OwnFile(config.get("tables"), config.get("functions"))
        return Place(context.data_dir / FILE, rules, context.tenant, config)
    if name is None or config.get("tables") is not None or config.get("functions") is not None:
        raise _contradiction("mode pooled needs file, and takes its tables from the file")
    path = context.shared_dir / SHARED_FOLDER / f"{name}.sqlite3"
    return Place(path, SharedFile(context.tenant), context.tenant, config)


def _contradiction(why: str) -> ProviderError:
    return ProviderError(ErrorCode.FAILED_PRECONDITION, f"The configuration cannot work: {why}.")
