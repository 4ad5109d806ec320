"""Fulfils the rights of persons over all places that a tenant has named: access and portability, erasure (GDPR 15, 17, 20).

Runs as an operation. After a crash it begins again, and every change has an idempotency key of the operation: what was
done is not done twice, and its count is the one of the first time.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.effects import now
from erp.runtime.ports import AuditEntry, Completion
from erp.runtime.service_calls import service_context
from erp.security.privacy import places
from erp.security.privacy.places import Finding
from erp.security.privacy.receipts import subject_digest

if TYPE_CHECKING:
    from erp.control_plane.policies import StoredPolicies
    from erp.runtime.calls import Calls
    from erp.runtime.operation import Operation
    from erp.runtime.operations import Report
    from erp.runtime.ports import Journal
    from erp.security.privacy.guard import PrivacyGuard
    from erp.security.privacy.receipts import Receipts
    from erp.security.privacy.retention import RetentionKeeper
    from erp.security.privacy.settings import Place

SERVICE = "privacy"
LONGEST_SECONDS = 3600.0
AUDIT_WHY = "the audit trail has to be whole; it holds who did what, no content, and goes with its own retention"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants, as an operation keeps it."""

    right: str
    """``export`` or ``erasure``."""
    subject: str


class SubjectRights:
    """Fans out over the providers of a tenant."""

    def __init__(
        self,
        calls: Calls,
        journal: Journal,
        guard: PrivacyGuard,
        policies: StoredPolicies,
        receipts: Receipts,
        retention: RetentionKeeper,
    ) -> None:
        self._calls = calls
        self._journal = journal
        self._guard = guard
        self._policies = policies
        self._receipts = receipts
        self._retention = retention

    async def run(self, operation: Operation, report: Report) -> dict[str, Any]:
        """Return the receipt, and with an export the data.

        Raises:
            ProviderError: ``failed_precondition`` for an erasure under a legal hold (GDPR 17(3)(e)), ``unavailable`` and
                the like when a place could not be asked; nothing of it is lost when the request is made again.
        """
        wish = msgspec.json.decode(operation.order.body, type=Wish)
        hold = (await self._retention.policy(operation.tenant))[0].hold
        if wish.right == "erasure" and hold is not None:
            message = f"Nothing is erased while there is a legal hold: {hold.reason}."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        kept = (await self._guard.settings(operation.tenant)).places
        found = []
        for number, place in enumerate(kept):
            report(number / (len(kept) + 1), places.name_of(place))
            found.append(await self._at(place, wish, operation))
        found.append(await self._consents(wish, operation.tenant))
        if wish.right == "erasure":
            found.append(Finding(place="audit", why=AUDIT_WHY))
        receipt = self._receipt(wish, operation, found)
        await self._record(wish, operation, found)
        if wish.right == "erasure":
            return {"receipt": receipt}
        return {"receipt": receipt, "data": {one.place: one.data for one in found if one.data is not None}}

    async def _at(self, place: Place, wish: Wish, operation: Operation) -> Finding:
        async def call(place: Place, action: str, request: Any, part: int | str) -> Any:
            context = service_context(
                self._calls, self._journal, service=SERVICE, tenant=operation.tenant, seconds=LONGEST_SECONDS
            )
            name = hashlib.sha256(f"{places.name_of(place)} {action} {part}".encode()).hexdigest()[:32]
            return await context.invoke(
                type(place).__struct_config__.tag,
                action,
                request,
                idempotency_key=f"{operation.id}:{name}",
                provider=place.provider,
                connection=place.connection,
            )

        do = places.erased if wish.right == "erasure" else places.exported
        try:
            return await do(place, wish.subject, call)
        except ProviderError as error:
            message = f"{places.name_of(place)}: {error.message} Make the request again when that is mended."
            raise ProviderError(error.code, message, detail=error.detail) from error

    async def _consents(self, wish: Wish, tenant: str) -> Finding:
        if wish.right == "erasure":
            count = await self._policies.erase_consents(tenant, wish.subject)
            return Finding(place="consents", found=count, erased=count)
        items, cursor = [], None
        while True:
            page, cursor = await self._policies.consents(tenant, subject=wish.subject, cursor=cursor)
            items += [msgspec.to_builtins(one) for one in page]
            if cursor is None:
                return Finding(place="consents", found=len(items), data=items)

    def _receipt(self, wish: Wish, operation: Operation, found: list[Finding]) -> dict[str, Any]:
        facts = [msgspec.structs.replace(one, data=None) for one in found]
        return self._receipts.signed(
            {
                "right": wish.right,
                "tenant": operation.tenant,
                "subject_sha256": subject_digest(wish.subject),
                "operation": operation.id,
                "asked_at": operation.created_at,
                "fulfilled_at": now(),
                "places": [msgspec.to_builtins(one) for one in facts],
            }
        )

    async def _record(self, wish: Wish, operation: Operation, found: list[Finding]) -> None:
        counts = {"erased": sum(one.erased for one in found), "kept": sum(one.kept for one in found)}
        order = operation.order
        audit = AuditEntry(
            tenant=operation.tenant,
            actor=order.actor.id,
            action=f"{SERVICE}.{wish.right}",
            target=f"subject:{subject_digest(wish.subject)[:16]}",
            outcome="ok",
            reason="fulfilled",
            request_id=order.request_id,
            time=now(),
            effect="destructive" if wish.right == "erasure" else "read",
            traceparent=order.traceparent or None,
            detail={"operation": operation.id, **counts},
        )
        await self._journal.complete(Completion(audit=audit))
