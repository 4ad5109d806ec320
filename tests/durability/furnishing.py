"""A data directory with the tenants, keys, tables and secrets that the callers use."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.durability.effects import KINDS, LIMITED, TABLES, TENANT, caller_of, rotated_path

if TYPE_CHECKING:
    from erp.main import Layer

CALLERS = tuple(f"c{number}" for number in range(4))
IMPATIENT = {"breaker": {"open_seconds": 0.2}, "retry": {"max_attempts": 1}}
"""A call policy under which a broken disk is told at once, and one that works again is noticed soon."""
PERIOD = "month"
AMPLE_UNITS, LIMITED_UNITS = 1_000_000, 400
WARM = "warm.0.0"


async def furnish(layer: Layer) -> dict[str, str]:
    """Make everything, and each kind of effect once (its mark is ``WARM``); return the keys by tenant."""
    keys = {}
    for tenant, units in ((TENANT, AMPLE_UNITS), (LIMITED, LIMITED_UNITS)):
        await layer.control.tenants.create(tenant, policy=IMPATIENT)
        await layer.control.quotas.set(tenant, PERIOD, units)
        _, keys[tenant] = await layer.control.api_keys.create(tenant, role="developer")
    for table in TABLES:
        await call(layer, "/providers/db/sqlite/execute", {"sql": table})
    for caller in (*CALLERS, caller_of(WARM)):
        await call(layer, "/providers/secrets/local/put", {"path": rotated_path(caller), "value": "first"})
    for kind in KINDS.values():
        await call(layer, kind.path, kind.params(WARM))
    return keys


async def call(layer: Layer, path: str, params: dict[str, Any]) -> None:
    """Call as a developer of the tenant."""
    from erp.runtime.call import Call
    from erp.runtime.context import Actor
    from erp.telemetry.ids import new_request_id

    area, *names = path.strip("/").split("/")
    action = layer.catalog.action(area, names[0], names[-1])
    provider = names[1] if area == "providers" else names[0]
    actor = Actor(id="furnisher", tenant=TENANT, roles=frozenset({"developer"}))
    body = json.dumps({"params": params}).encode()
    await layer.calls.invoke(
        Call(action=action, actor=actor, provider=provider, body=body, request_id=new_request_id())
    )


def furnished(data_dir: Path) -> dict[str, str]:
    """Make a furnished data directory; return the keys by tenant."""
    from erp.main import Settings, running

    async def make() -> dict[str, str]:
        async with running(Settings(data_dir=data_dir, database_url=None, log_level="error")) as layer:
            layer.application()
            keys = {"platform": await layer.first_key() or ""}
            return keys | await furnish(layer)

    return asyncio.run(make())
