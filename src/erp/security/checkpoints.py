"""Signs how far every tenant's audit log has come, from time to time and on demand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.audit_proofs import AuditProofs
from erp.control_plane.checkpoints import StoredCheckpoint, StoredCheckpoints
from erp.errors import ProviderError
from erp.runtime.ports import SecretVault
from erp.security.signed_note import Checkpoint, InvalidNoteError, PublicKey, opened, signed

_log = logging.getLogger(__name__)

SIGNING_KEY = "audit/checkpoint-key"
OWNER = "platform"
"""The tenant whose secret the key is."""
EVERY_SECONDS = 300.0
ARCHIVIST = "service:audit"
"""Who writes checkpoints into the archive: a log that grows by that alone would never come to rest."""


def origin_of(tenant: str) -> str:
    """Return the name of a tenant's log in its checkpoints."""
    return f"erp-audit/{tenant}"


def seconds_from_environment() -> float:
    """Return ``ERP_AUDIT_CHECKPOINT_SECONDS``.

    Raises:
        ProviderError: ``failed_precondition`` when it is no number above 0.
    """
    text = os.environ.get("ERP_AUDIT_CHECKPOINT_SECONDS", "")
    try:
        seconds = float(text) if text else EVERY_SECONDS
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        message = f"ERP_AUDIT_CHECKPOINT_SECONDS is {text[:20]!r}. Set it to a number of seconds above 0."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return seconds


class Checkpoints:
    """One signing key per installation, kept as a secret of the platform; older versions still verify."""

    def __init__(self, stored: StoredCheckpoints, proofs: AuditProofs, vault: SecretVault) -> None:
        self.stored = stored
        self._proofs = proofs
        self._vault = vault
        self._making = asyncio.Lock()

    async def public_keys(self) -> list[PublicKey]:
        """Return the keys that checkpoints may be signed by, the present one last; none was made yet: none."""
        versions = await self._versions()
        return [_public(await self._vault.get(OWNER, SIGNING_KEY, version)) for version in versions]

    async def public_key(self) -> PublicKey:
        """Return the key that signs now, making it at first use."""
        return _public(await self._key())

    async def make(self, tenant: str) -> StoredCheckpoint | None:
        """Sign how far the log of ``tenant`` has come; None when it has no records.

        Raises:
            ProviderError: ``failed_precondition`` when the log is not what the checkpoint before it covers.
        """
        tree = await self._proofs.tree(tenant)
        if tree.size == 0:
            return None
        before = await self.stored.newest(tenant)
        if before is not None:
            await self._check(tenant, before, tree.size)
            if before.size == tree.size:
                return before
        text = await self._key()
        checkpoint = Checkpoint(origin_of(tenant), tree.size, tree.root())
        return await self.stored.add(tenant, tree.size, signed(checkpoint, _public(text).name, _private(text)))

    async def _check(self, tenant: str, before: StoredCheckpoint, size: int) -> None:
        """Refuse to sign a log that does not begin with what was signed before: that would bless a forgery."""
        try:
            known = opened(before.note, await self.public_keys())
        except InvalidNoteError as error:
            raise _forged(tenant, str(error)) from error
        if known.origin != origin_of(tenant) or known.size > size:
            raise _forged(tenant, f"a checkpoint covers {known.size} records, there are {size}")
        if await self._proofs.root(tenant, known.size) != known.root:
            raise _forged(tenant, f"the first {known.size} records are not those of the checkpoint")

    async def make_all(self) -> list[StoredCheckpoint]:
        """Sign the log of everybody that has grown; one that cannot be signed is told of and holds up no other."""
        made = []
        for tenant in await self.stored.grown(without_actor=ARCHIVIST):
            try:
                checkpoint = await self.make(tenant)
            except ProviderError as error:
                _log.error("no checkpoint of the audit log of %s: %s", tenant, error.message)
                continue
            if checkpoint is not None:
                made.append(checkpoint)
        return made

    async def _versions(self) -> list[int]:
        versions = await self._vault.versions(OWNER, SIGNING_KEY)
        return sorted(one.version for one in versions if one.state != "destroyed")

    async def _key(self) -> str:
        versions = await self._versions()
        if not versions:
            async with self._making:
                versions = await self._versions() or [await self._make_key()]
        return await self._vault.get(OWNER, SIGNING_KEY, versions[-1])

    async def _make_key(self) -> int:
        raw = Ed25519PrivateKey.generate().private_bytes_raw()
        return await self._vault.put(OWNER, SIGNING_KEY, base64.b64encode(raw).decode())


def _private(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text))


def _public(text: str) -> PublicKey:
    raw = _private(text).public_key().public_bytes_raw()
    return PublicKey(f"erp-audit-{hashlib.sha256(raw).hexdigest()[:8]}", raw)


def _forged(tenant: str, reason: str) -> ProviderError:
    message = f"The audit log of {tenant} is not what was signed before: {reason}. Run `erp audit verify`."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message)
