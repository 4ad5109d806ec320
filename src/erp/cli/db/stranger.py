"""A look at a shared file as a tenant who has no rows in it: whatever it sees or changes is another's.

The provider itself is asked, as the layer asks it. What it changes is undone, should it really be able to.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.runtime import loader
from erp.runtime.context import Actor, CallContext
from erp.runtime.spi import OpenContext
from erp.runtime.standalone import place
from erp.vendor_clients.row_security.names import quoted

if TYPE_CHECKING:
    from erp.runtime.manifest import ProviderManifest

FILE = "shared"
LOOK_SECONDS = 60.0
_COLLATED = "has an index of it another collation for the tenant's column? then make it with the column's"
_REFERRED = "has a table that is not listed a foreign key to it? then list that too"

Load = Callable[["ProviderManifest"], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Engine:
    """A provider that lets tenants share a file."""

    name: str
    ending: str
    """Of the names of its files."""


SQLITE = Engine("sqlite", "sqlite3")
DUCKDB = Engine("duckdb", "duckdb")


async def met(path: Path, tables: Iterable[str], engine: Engine, load: Load = loader.load) -> list[str]:
    """Return what a stranger could see or change of ``tables``, or why no tenant could use them.

    Args:
        path: the shared file.
        tables: its shared tables, as written there.
        engine: whose file it is.
        load: finds the class of the provider.
    """
    tenant = f"erp-check-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="erp-isolate-") as folder:
        manifest = _manifest(engine)
        config = {**manifest.defaults, "mode": "pooled", "file": FILE}
        provider = load(manifest)(config, _place(tenant, path, Path(folder), engine))
        try:
            await provider.open()
            found = [await _table(provider, table, _call(tenant)) for table in tables]
        except ProviderError as error:
            return [error.message]
        finally:
            await provider.close()
    return [problem for problems in found for problem in problems]


async def _table(provider: Any, table: str, context: CallContext) -> list[str]:
    done = {"sees": _seen, "can change": _changed}
    try:
        counts = {what: await ask(provider, table, context) for what, ask in done.items()}
    except ProviderError as error:
        hint = f" ({_COLLATED})" if "SCAN" in (error.detail or "") else ""
        hint = f" ({_REFERRED})" if error.detail and error.detail.startswith("SQLITE_AUTH") else hint
        return [f"tenants cannot use {table!r}: {error.message}{hint}"]
    return [f"a tenant without rows {what} {count} rows of {table!r}" for what, count in counts.items() if count]


async def _seen(provider: Any, table: str, context: CallContext) -> int:
    # All columns, for an index that holds what is counted would be searched where rows themselves are not.
    reading = api.QueryRequest(sql=f"select * from {quoted(table)}", max_rows=1)  # noqa: S608  (quoted)
    await provider.query(reading, context)
    counting = api.QueryRequest(sql=f"select count(*) from {quoted(table)}")  # noqa: S608  (quoted)
    count: int = (await provider.query(counting, context)).rows[0][0]
    return count


async def _changed(provider: Any, table: str, context: CallContext) -> int:
    """Delete, and undo it."""
    begun = (await provider.begin(api.BeginRequest(), context)).transaction
    try:
        request = api.ExecuteRequest(sql=f"delete from {quoted(table)}", transaction=begun)  # noqa: S608  (quoted)
        count: int = (await provider.execute(request, context)).rows_affected
    finally:
        await provider.rollback(api.RollbackRequest(transaction=begun), context)
    return count


def _manifest(engine: Engine) -> ProviderManifest:
    from erp.runtime.catalog import ProviderCatalog

    return ProviderCatalog.load(None).provider("db", engine.name)


def _place(tenant: str, path: Path, folder: Path, engine: Engine) -> OpenContext:
    """Return where the provider finds ``path`` as the shared file; the engines follow the link."""
    shared = folder / f"db-{engine.name}"
    shared.mkdir()
    (shared / f"{FILE}.{engine.ending}").symlink_to(path.absolute())
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    return place(data_dir, shared_dir=folder, tenant=tenant)


def _call(tenant: str) -> CallContext:
    actor = Actor(id="erp-db-isolate", tenant=tenant, roles=frozenset({"developer"}))
    return CallContext(tenant=tenant, actor=actor, request_id="req_isolate", deadline=time.monotonic() + LOOK_SECONDS)
