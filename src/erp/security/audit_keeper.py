"""Looks after the audit logs in the background: signs checkpoints, and copies them into the archive."""

from __future__ import annotations

import asyncio
import logging

from erp.control_plane import ControlPlane
from erp.errors import ProviderError
from erp.runtime.ports import SecretVault
from erp.security.checkpoint_archive import CheckpointArchive
from erp.security.checkpoints import Checkpoints, seconds_from_environment

_log = logging.getLogger(__name__)


class AuditKeeper:
    """Of several processes each does it; whoever comes second finds nothing to do."""

    def __init__(self, control: ControlPlane, vault: SecretVault) -> None:
        self.checkpoints = Checkpoints(control.checkpoints, control.audit_proofs, vault)
        self.archive: CheckpointArchive | None = None
        """Where checkpoints are copied to; None: nowhere."""
        self._stored = control.checkpoints
        self._seconds = seconds_from_environment()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.checkpoints.make_all()
                if self.archive is not None:
                    await self.archive.send(self._stored)
            except ProviderError:
                _log.warning("checkpoints of the audit logs could not be made", exc_info=True)
