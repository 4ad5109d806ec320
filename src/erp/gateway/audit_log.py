"""Endpoints that prove, export and lawfully delete a tenant's audit records."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.responses import StreamingResponse

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.merkle import leaf_hash
from erp.control_plane.retention import CLASSES, Grounds
from erp.errors import FieldError, ProviderError
from erp.gateway import answers
from erp.gateway.acting import tenant_of
from erp.gateway.audit_trail import record
from erp.security import audit_export

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.security.checkpoints import Checkpoints

AREA = "audit"
_MOST_DIGITS = 15


class AuditLog:
    """Reads are for whoever may read administration; what changes something is for administrators."""

    def __init__(self, control: ControlPlane, checkpoints: Checkpoints, credentials: Credentials) -> None:
        self._control = control
        self._checkpoints = checkpoints
        self._credentials = credentials

    async def _authorise(self, visit: Visit, action: str, effect: str) -> None:
        await self._credentials.authorise(visit.actor, AREA, "*", action, effect)

    # -- proofs ----------------------------------------------------------------------------------

    async def keys(self, visit: Visit) -> tuple[int, Any]:
        """Show the public keys."""
        await self._authorise(visit, "key", "read")
        await self._checkpoints.public_key()
        return 200, {"keys": [str(key) for key in await self._checkpoints.public_keys()]}

    async def checkpoints(self, visit: Visit) -> tuple[int, Any]:
        """List the signed checkpoints, newest first."""
        await self._authorise(visit, "checkpoints", "read")
        page = self._control.checkpoints.page
        items, cursor = await page(visit.tenant, limit=visit.limit(), cursor=visit.query("cursor"))
        return 200, {"items": items} if cursor is None else {"items": items, "next_cursor": cursor}

    async def make_checkpoint(self, visit: Visit) -> tuple[int, Any]:
        """Sign now how far the log has come."""
        await self._authorise(visit, "checkpoint", "write")
        await visit.body("makeCheckpoint")
        made = await self._checkpoints.make(visit.tenant)
        if made is None:
            raise ProviderError(ErrorCode.NOT_FOUND, "There are no audit records yet.")
        return 200, made

    async def inclusion(self, visit: Visit) -> tuple[int, Any]:
        """Prove that a record is in the log."""
        await self._authorise(visit, "prove", "read")
        seq = _number(visit.path("seq"), "/path/seq")
        size, note = await self._size_for(visit, seq)
        proofs = self._control.audit_proofs
        path, root = await proofs.inclusion(visit.tenant, seq, size), await proofs.root(visit.tenant, size)
        (link,) = await self._control.audit.chain(visit.tenant, after=seq - 1, limit=1)
        return 200, {
            "seq": seq,
            "leaf": _text(leaf_hash(link.hash)),
            "size": size,
            "path": [_text(one) for one in path],
            "root": _text(root),
            "checkpoint": note,
        }

    async def _size_for(self, visit: Visit, seq: int) -> tuple[int, str | None]:
        """Return among how many records ``seq`` is proved to be, and the checkpoint over them."""
        wanted = visit.query("size")
        newest = await self._control.checkpoints.newest(
            visit.tenant, until=None if wanted is None else _number(wanted, "/query/size")
        )
        if wanted is not None:
            size = _number(wanted, "/query/size")
            return size, newest.note if newest is not None and newest.size == size else None
        if newest is not None and newest.size >= seq:
            return newest.size, newest.note
        return (await self._control.audit_proofs.tree(visit.tenant)).size, None

    async def consistency(self, visit: Visit) -> tuple[int, Any]:
        """Prove that the log only grew."""
        await self._authorise(visit, "prove", "read")
        proofs = self._control.audit_proofs
        first = _number(visit.query("from") or "", "/query/from")
        named = visit.query("to")
        second = (await proofs.tree(visit.tenant)).size if named is None else _number(named, "/query/to")
        path = await proofs.consistency(visit.tenant, first, second)
        roots = [_text(await proofs.root(visit.tenant, size)) for size in (first, second)]
        made = {"from": first, "to": second, "path": [_text(one) for one in path]}
        return 200, made | {"from_root": roots[0], "to_root": roots[1]}

    async def export(self, visit: Visit) -> tuple[int, Any]:
        """Stream the whole log."""
        await self._authorise(visit, "export", "read")
        pages = audit_export.lines(self._control, self._checkpoints, visit.tenant)
        first = await anext(pages)  # what is refused is refused before anything is sent
        headers = {name.decode(): value.decode() for name, value in answers.common_headers(visit.inbound)}
        return 200, StreamingResponse(_all(first, pages), headers=headers, media_type="application/x-ndjson")

    # -- retention -------------------------------------------------------------------------------

    async def retention(self, visit: Visit) -> tuple[int, Any]:
        """Show how long records are kept."""
        await self._authorise(visit, "retention", "read")
        return 200, {"items": await self._control.retention.rules(visit.tenant)}

    async def set_retention(self, visit: Visit) -> tuple[int, Any]:
        """Set how long the records of a class are kept."""
        await self._authorise(visit, "set_retention", "write")
        name, body = visit.path("class"), await visit.body("setRetention")
        found = next((known for known in CLASSES if known == name), None)
        if found is None:
            message = f"There is no class {name[:50]!r} of records. There are: {', '.join(CLASSES)}."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        await self._control.retention.set(visit.tenant, found, body["days"])
        detail = {"days": body["days"]}
        await self._audited(visit, visit.tenant, "set_retention", found, detail)
        return 200, next(rule for rule in await self._control.retention.rules(visit.tenant) if rule.name == found)

    async def erase(self, visit: Visit) -> tuple[int, Any]:
        """Delete records of a tenant, whatever their age."""
        await self._authorise(visit, "erase", "destructive")
        body = await visit.body("eraseAudit")
        tenant = await tenant_of(visit, self._control.tenants)
        grounds = Grounds(actor=visit.actor.id, reason=body["reason"], request_id=visit.inbound.request_id)
        count = await self._control.retention.erase(tenant, body["first"], body["last"], grounds)
        detail = {"first": body["first"], "last": body["last"], "deleted": count, "reason": body["reason"]}
        await self._audited(visit, visit.tenant, "erase", tenant, detail)
        return 200, {"deleted": {"all": count}}

    async def _audited(self, visit: Visit, tenant: str, action: str, target: str, detail: dict[str, Any]) -> None:
        journal = self._control.journal
        await record(journal, visit, tenant=tenant, action=f"{AREA}.{action}", target=target, detail=detail)


async def _all(first: bytes, pages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for page in pages:
        yield page


def _number(text: str, pointer: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text):
        return int(text)
    error = FieldError(pointer, "Use a number from 1 on.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A number is malformed.", errors=[error])


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
