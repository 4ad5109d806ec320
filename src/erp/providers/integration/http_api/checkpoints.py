"""Where a reading of changes stands, as the opaque text a caller keeps."""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from erp.providers.integration.http_api.specification import ObjectSpecification
from erp.runtime.spi import ErrorCode, FieldError, ProviderError

MAX_SEEN = 10
"""Records remembered to find the place again in a list that changed meanwhile."""


class Checkpoint(msgspec.Struct, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The place of one reading; times are seconds since the epoch by the peer's clock."""

    target: str
    """Which object of which peer it belongs to."""
    since: float | None
    """Changes from then on are read; None reads everything."""
    begun_at: float | None = None
    """When this pass over the list began; None before its first page."""
    position: str = ""
    """Cursor, link or number of records read; empty at the first page."""
    seen: list[str] = []
    """The last records read, oldest first."""
    is_partial: bool = False
    """True when only a part of the page at ``position`` was read."""
    is_snapshot: bool = False
    """True while a start from the beginning is still listing."""


def target_of(base_url: str, name: str, specification: ObjectSpecification) -> str:
    """What a checkpoint belongs to: another description of the object may count records differently."""
    facts = msgspec.json.encode([base_url, name, specification.listing, specification.key])
    return hashlib.sha256(facts).hexdigest()[:16]


def written(checkpoint: Checkpoint) -> str:
    """The checkpoint as text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(checkpoint)).rstrip(b"=").decode()


def read(text: str, target: str) -> Checkpoint:
    """The checkpoint a caller kept.

    Raises:
        ProviderError: ``invalid_argument`` when it is none; ``failed_precondition`` when it belongs to something else.
    """
    try:
        found = msgspec.json.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True), type=Checkpoint
        )
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        message = "The checkpoint is not one this provider gave."
        problem = FieldError("/params/checkpoint", "Use a checkpoint unchanged.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[problem]) from error
    if found.target != target:
        message = "The checkpoint belongs to another object or configuration. Start again from the beginning."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return found
