"""Looks after the audit logs in the background: signs checkpoints, deletes what has been kept long enough."""

from __future__ import annotations

import asyncio
import logging

from erp.control_plane import ControlPlane
from erp.control_plane.retention import Grounds
from erp.errors import ProviderError
from erp.runtime.ports import SecretVault
from erp.security.checkpoints import Checkpoints, seconds_from_environment

_log = logging.getLogger(__name__)

RETENTION_SECONDS = 3600.0


class AuditKeeper:
    """Of several processes each does it; whoever comes second finds nothing to do."""

    def __init__(self, control: ControlPlane, vault: SecretVault) -> None:
        self.checkpoints = Checkpoints(control.checkpoints, control.audit_proofs, vault)
        self._control = control
        self._checkpoint_seconds = seconds_from_environment()

    async def run(self) -> None:
        """Work until cancelled."""
        await asyncio.gather(self.checkpoints.run(self._checkpoint_seconds), self._delete_in_time())

    async def _delete_in_time(self) -> None:
        while True:
            await asyncio.sleep(RETENTION_SECONDS)
            try:
                await self.apply_rules()
            except ProviderError:
                _log.warning("audit records could not be deleted in time", exc_info=True)

    async def apply_rules(self) -> None:
        """Delete what every tenant has kept as long as its rules say."""
        for tenant in await self._control.retention.tenants():
            grounds = Grounds(actor="layer", reason="the time to keep it is over", request_id="retention")
            await self._control.retention.apply(tenant, grounds)
