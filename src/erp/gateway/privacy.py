"""``/privacy``: how personal data is treated, what tokens stand for, and the rights of persons."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway import accepted
from erp.gateway.acting import tenant_of
from erp.gateway.audit_trail import record
from erp.runtime.operation import Order
from erp.security.privacy.rights import Wish
from erp.security.privacy.settings import PrivacySettings

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.operations import OperationRunner
    from erp.security.privacy.receipts import Receipts
    from erp.security.privacy.treatment import Treatments

AREA = "privacy"
LONGEST_WAIT_SECONDS = 25.0


class PrivacyPages:
    """Every use is audited before its answer leaves; no audit record names a person."""

    def __init__(
        self,
        control: ControlPlane,
        treatments: Treatments,
        receipts: Receipts,
        operations: OperationRunner,
        credentials: Credentials,
    ) -> None:
        self._control = control
        self._treatments = treatments
        self._receipts = receipts
        self._operations = operations
        self._credentials = credentials

    async def _tenant(self, visit: Visit, action: str, effect: str) -> str:
        await self._credentials.authorise(visit.actor, AREA, "*", action, effect)
        return await tenant_of(visit, self._control.tenants)

    async def settings(self, visit: Visit) -> tuple[int, Any]:
        """Show how personal data is treated and where it is kept."""
        tenant = await self._tenant(visit, "get", "read")
        return 200, _shown(*await self._control.privacy.get(tenant))

    async def put_settings(self, visit: Visit) -> tuple[int, Any]:
        """Say how personal data is treated and where it is kept."""
        body = dict(await visit.body("putPrivacySettings"))
        tenant = await self._tenant(visit, "put", "write")
        revision = body.pop("revision", None)
        try:
            settings = msgspec.convert(body, PrivacySettings)
        except msgspec.ValidationError as error:
            message = "The settings cannot be used."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError("", str(error))]) from error
        text = msgspec.json.encode(settings).decode()
        stored = await self._control.privacy.put(tenant, text, revision=revision)
        await record(self._control.journal, visit, tenant=tenant, action=f"{AREA}.put", target="settings")
        return 200, _shown(*stored)

    async def reveal(self, visit: Visit) -> tuple[int, Any]:
        """Turn tokens back into what they stand for."""
        tenant = await self._tenant(visit, "reveal", "write")  # reading it is no less than changing something
        body = await visit.body("revealTokens")
        found = [(token, *self._treatments.revealed(tenant, token)) for token in body["tokens"]]
        digest = hashlib.sha256("\n".join(body["tokens"]).encode()).hexdigest()[:16]
        detail = {"tokens": len(found), "kinds": sorted({kind for _, kind, _ in found}), "reason": body["reason"]}
        await record(
            self._control.journal,
            visit,
            tenant=tenant,
            action=f"{AREA}.reveal",
            target=f"tokens:{digest}",
            detail=detail,
        )
        return 200, {"items": [{"token": token, "kind": kind, "value": value} for token, kind, value in found]}

    async def key(self, visit: Visit) -> tuple[int, Any]:
        """Show the public key that receipts are verified with."""
        await self._tenant(visit, "get", "read")
        return 200, {"algorithm": "Ed25519", "key": self._receipts.public_key}

    async def export(self, visit: Visit) -> tuple[int, Any]:
        """Hand out what is kept about a person."""
        return await self._fulfilled(visit, "export", "exportSubject", "write")

    async def erase(self, visit: Visit) -> tuple[int, Any]:
        """Erase what is kept about a person."""
        return await self._fulfilled(visit, "erasure", "eraseSubject", "destructive")

    async def _fulfilled(self, visit: Visit, right: str, operation: str, effect: str) -> tuple[int, Any]:
        await self._credentials.authorise(visit.actor, AREA, "*", right, effect)
        body, inbound = await visit.body(operation), visit.inbound
        wish = msgspec.json.encode(Wish(right=right, subject=body["subject"])).decode()
        order = Order(
            area="privacy",
            group=AREA,
            name=right,
            provider=AREA,
            connection="default",
            actor=visit.actor,
            body=wish,
            request_id=inbound.request_id,
            traceparent=inbound.traceparent,
            idempotency_key=inbound.idempotency_key,
            user=inbound.user,
            subject=f"{AREA}/{visit.tenant}/{hashlib.sha256(body['subject'].encode()).hexdigest()}",
        )
        found = await self._operations.accept_right(order)
        wait = LONGEST_WAIT_SECONDS if inbound.wait_seconds is None else inbound.wait_seconds
        wait = (inbound.wait_seconds or 0.0) if inbound.respond_async else min(wait, LONGEST_WAIT_SECONDS)
        ended = await self._operations.wait(visit.tenant, found.id, wait) or found
        if ended.outcome is not None and ended.outcome.problem is not None:
            raise accepted.failure(ended.outcome.problem)
        if ended.outcome is None or ended.outcome.result is None:
            return 202, accepted.response(inbound, ended)
        return 200, msgspec.json.decode(ended.outcome.result)["data"]


def _shown(text: str, revision: int) -> dict[str, Any]:
    return {"treatment": {}, "places": [], **msgspec.json.decode(text), "revision": str(revision)}
