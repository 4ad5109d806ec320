"""A tenant's audit log as it leaves the machine: one OCSF event a line, at the end a signed checkpoint over all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane, moments
from erp.errors import ProviderError
from erp.security import ocsf
from erp.security.checkpoints import Checkpoints

PAGE = 500

_encode = msgspec.json.Encoder().encode


async def lines(control: ControlPlane, checkpoints: Checkpoints, tenant: str) -> AsyncIterator[bytes]:
    """Return the lines of an export, a page at a time; each page is a new checkpoint or some whole lines.

    Raises:
        ProviderError: ``not_found`` when there are no records, ``failed_precondition`` when the log was tampered with.
    """
    checkpoint = await checkpoints.make(tenant)
    if checkpoint is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"{tenant} has no audit records.")
    seq = 0
    while seq < checkpoint.size:
        page = await control.audit.chain(tenant, after=seq, limit=min(PAGE, checkpoint.size - seq))
        if not page:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"Audit record {seq + 1} of {tenant} is missing.")
        events = [ocsf.event(tenant, link.seq, link.record, link.prev_hash, link.hash) for link in page]
        yield b"".join(_encode(event) + b"\n" for event in events)
        seq = page[-1].seq
    made_at = moments.parsed(checkpoint.made_at)
    yield _encode(ocsf.checkpoint_event(tenant, checkpoint.size, checkpoint.note, made_at)) + b"\n"
