"""A look at a shared file of SQLite as a tenant who has no rows in it: whatever it sees or changes is another's.

The provider itself is asked, as the layer asks it. What it changes is undone, should it really be able to.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.runtime import loader
from erp.runtime.context import Actor, CallContext
from erp.runtime.spi import OpenContext
from erp.vendor_clients.row_security.names import quoted

if TYPE_CHECKING:
    from erp.runtime.manifest import ProviderManifest

FOLDER = "db-sqlite"
FILE = "shared"
LOOK_SECONDS = 60.0
_COLLATED = "has an index of it another collation for the tenant's column? then make it with the column's"
_REFERRED = "has a table that is not listed a foreign key to it? then list that too"

Load = Callable[["ProviderManifest"], Callable[..., Any]]


async def met(path: Path, tables: Iterable[str], load: Load = loader.load) -> list[str]:
    """Return what a stranger could see or change of ``tables``, or why no tenant could use them.

    Args:
        path: the shared file.
        tables: its shared tables, as written there.
        load: finds the class of the provider.
    """
    tenant = f"erp-check-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="erp-isolate-") as folder:
        config = {"mode": "pooled", "file": FILE, "readers": 1}
        provider = load(_manifest())(config, _place(tenant, path, Path(folder)))
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


def _manifest() -> ProviderManifest:
    from erp.runtime.catalog import ProviderCatalog

    return ProviderCatalog.load(None).provider("db", "sqlite")


def _place(tenant: str, path: Path, folder: Path) -> OpenContext:
    """Return where the provider finds ``path`` as the shared file; SQLite follows the link."""
    shared = folder / FOLDER
    shared.mkdir()
    (shared / f"{FILE}.sqlite3").symlink_to(path.absolute())
    # The layer's ports are for providers with secrets, links and reminders; a file has none of them.
    nothing = cast("Any", None)
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    return OpenContext(
        tenant=tenant,
        connection="default",
        data_dir=data_dir,
        shared_dir=folder,
        vault=nothing,
        identity=nothing,
        links=nothing,
        remind=nothing,
        overlaps=nothing,
    )


def _call(tenant: str) -> CallContext:
    actor = Actor(id="erp-db-isolate", tenant=tenant, roles=frozenset({"developer"}))
    return CallContext(tenant=tenant, actor=actor, request_id="req_isolate", deadline=time.monotonic() + LOOK_SECONDS)
