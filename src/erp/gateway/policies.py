"""``/policies``, ``/consents``, ``/me`` and ``/access/v1``: what may be done, why, and by whose word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway.acting import platform_only, tenant_of
from erp.gateway.audit_trail import record
from erp.runtime.context import Actor
from erp.runtime.question import Question
from erp.security.policy.document import EXAMPLE

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.control_plane.policies import PolicyRevision
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.ports import Identity
    from erp.runtime.question import Decision
    from erp.security.policy.decisions import DecisionPoint

AREA = "policies"


class Policies:
    """Shows, changes, tries and explains policies. Every change is audited before its answer leaves."""

    def __init__(
        self, control: ControlPlane, point: DecisionPoint, catalog: ProviderCatalog, credentials: Credentials
    ) -> None:
        self._control = control
        self._point = point
        self._catalog = catalog
        self._credentials = credentials

    async def _authorise(self, visit: Visit, action: str, effect: str, area: str = AREA) -> None:
        await self._credentials.authorise(visit.actor, area, "*", action, effect)

    async def _audited(self, visit: Visit, tenant: str, action: str, target: str, **detail: Any) -> None:
        await record(self._control.journal, visit, tenant=tenant, action=action, target=target, detail=detail or None)

    # -- revisions -------------------------------------------------------------------------------

    async def revisions(self, visit: Visit) -> tuple[int, Any]:
        """List the revisions of the tenant's policy, newest first; the first one is in force."""
        await self._authorise(visit, "list", "read")
        tenant = await tenant_of(visit, self._control.tenants)
        items, cursor = await self._control.policies.history(tenant, limit=visit.limit(), cursor=visit.query("cursor"))
        return 200, _page([_revision(item) for item in items], cursor)

    async def put(self, visit: Visit) -> tuple[int, Any]:
        """Put a policy in force."""
        await self._authorise(visit, "put", "write")
        body = await visit.body("putPolicy")
        tenant = await tenant_of(visit, self._control.tenants)
        await self._require_sound(tenant, body["source"], "/source")
        return await self._stored(visit, tenant, body["source"], body, "put")

    async def roll_back(self, visit: Visit) -> tuple[int, Any]:
        """Put an older revision in force again, as a new one."""
        await self._authorise(visit, "roll_back", "write")
        body = await visit.body("rollBackPolicy")
        tenant = await tenant_of(visit, self._control.tenants)
        older = await self._control.policies.get(tenant, body["number"])
        note = {"note": f"back to {older.number}", **body}
        return await self._stored(visit, tenant, older.source, note, "roll_back")

    async def _stored(
        self, visit: Visit, tenant: str, source: str, body: dict[str, Any], action: str
    ) -> tuple[int, Any]:
        stored = await self._control.policies.put(
            tenant, source, by=visit.actor.id, note=body.get("note", ""), revision=body.get("revision")
        )
        await self._audited(visit, tenant, f"{AREA}.{action}", str(stored.number), note=stored.note)
        return 200, _revision(stored)

    async def _require_sound(self, tenant: str, source: str, pointer: str) -> None:
        if not source:
            return
        example = msgspec.structs.replace(EXAMPLE, actor=msgspec.structs.replace(EXAMPLE.actor, tenant=tenant))
        findings = await self._point.lint(source, example)
        if findings:
            errors = [FieldError(pointer, finding) for finding in findings]
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The policy cannot be put in force.", errors=errors)

    # -- trying ----------------------------------------------------------------------------------

    async def test(self, visit: Visit) -> tuple[int, Any]:
        """Decide without doing, and say everything that speaks for and against it."""
        await self._authorise(visit, "test", "read")
        body = await visit.body("testPolicy")
        tenant = await tenant_of(visit, self._control.tenants)
        source = body.get("source")
        if source:
            await self._require_sound(tenant, source, "/source")
        made = await self._point.explain(self._question(tenant, visit, body), source=source)
        return 200, _explained(made)

    def _question(self, tenant: str, visit: Visit, body: dict[str, Any]) -> Question:
        who = body.get("actor")
        actor = visit.actor if who is None else _actor(tenant, who)
        target = dict(body["target"])
        if "effect" not in target:
            target["effect"] = self._effect(target)
        return Question(actor=actor, **target, **body.get("call", {}))

    def _effect(self, target: dict[str, Any]) -> str:
        if target["area"] == "admin":
            error = FieldError("/target/effect", "Say read, write or destructive.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The effect is missing.", errors=[error])
        return self._catalog.action(target["area"], target["domain"], target["action"]).effect

    async def shadow(self, visit: Visit) -> tuple[int, Any]:
        """Report where the second engine decides otherwise (administrators of the platform)."""
        await self._authorise(visit, "shadow", "read")
        platform_only(visit)
        if self._point.shadow is None:
            message = "No second engine is asked. Set ERP_POLICY_SHADOW."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return 200, self._point.shadow.report()

    # -- consent ---------------------------------------------------------------------------------

    async def consents(self, visit: Visit) -> tuple[int, Any]:
        """List what subjects have said."""
        await self._authorise(visit, "list", "read", "consents")
        tenant = await tenant_of(visit, self._control.tenants)
        items, cursor = await self._control.policies.consents(
            tenant, subject=visit.query("subject"), limit=visit.limit(), cursor=visit.query("cursor")
        )
        return 200, _page([msgspec.to_builtins(item) for item in items], cursor)

    async def record_consent(self, visit: Visit) -> tuple[int, Any]:
        """Keep what a subject has said about a purpose."""
        await self._authorise(visit, "record", "write", "consents")
        body = await visit.body("recordConsent")
        tenant = await tenant_of(visit, self._control.tenants)
        stored = await self._control.policies.record_consent(
            tenant,
            visit.path("subject"),
            visit.path("purpose"),
            body["state"],
            by=visit.actor.id,
            evidence=body.get("evidence", ""),
        )
        await self._audited(visit, tenant, "consents.record", stored.purpose, state=stored.state)
        return 200, msgspec.to_builtins(stored)


class Permissions:
    """What the caller may do."""

    def __init__(self, catalog: ProviderCatalog, point: DecisionPoint) -> None:
        self._catalog = catalog
        self._point = point

    async def me(self, visit: Visit) -> tuple[int, Any]:
        """Say who the caller is."""
        actor = visit.actor
        return 200, {
            "id": actor.id,
            "tenant": actor.tenant,
            "kind": actor.kind,
            "roles": sorted(actor.roles),
            "scopes": sorted(actor.scopes),
        }

    async def permissions(self, visit: Visit) -> tuple[int, Any]:
        """Say of every action of providers and services whether the caller may do it, and why."""
        items = []
        for question in self._questions(visit.actor, visit.query("domain")):
            decision = self._point.known(question) or await self._point.decide(question)
            target = question.domain if question.area == "services" else f"{question.domain}/{question.name}"
            allow, reason = decision.allow, decision.reason
            items.append({"action": f"{question.area}/{target}/{question.action}", "allow": allow, "reason": reason})
        return 200, {"items": items}

    def _questions(self, actor: Actor, domain: str | None) -> list[Question]:
        found = [
            Question(
                actor=actor,
                area="providers",
                domain=manifest.domain,
                name=manifest.name,
                action=action.name,
                effect=action.effect,
            )
            for manifest in sorted(self._catalog.providers.values(), key=lambda one: one.ref)
            for action in self._catalog.actions_of(manifest)
            if not action.internal and domain in {None, manifest.domain}
        ]
        for service, contract in self._catalog.services.items() if domain is None else ():
            for name in contract["actions"]:
                action = self._catalog.action("services", service, name)
                if not action.internal:
                    found.append(
                        Question(
                            actor=actor,
                            area="services",
                            domain=service,
                            name=service,
                            action=name,
                            effect=action.effect,
                        )
                    )
        return found


class AccessEvaluation:
    """OpenID AuthZEN Authorization API 1.0, sections 6 and 7, over the same decision point."""

    def __init__(self, identity: Identity, credentials: Credentials) -> None:
        self._identity = identity
        self._credentials = credentials

    async def evaluate(self, visit: Visit) -> tuple[int, Any]:
        """Answer one evaluation."""
        await self._credentials.authorise(visit.actor, AREA, "*", "test", "read")
        return 200, await self._answer(visit, await visit.body("evaluateAccess"))

    async def evaluate_all(self, visit: Visit) -> tuple[int, Any]:
        """Answer several evaluations; what one does not say is taken from the request itself."""
        await self._credentials.authorise(visit.actor, AREA, "*", "test", "read")
        body = await visit.body("evaluateAccessInBulk")
        common = {name: value for name, value in body.items() if name != "evaluations"}
        found = []
        for index, one in enumerate(body["evaluations"]):
            asked = {**common, **one}
            if missing := [name for name in ("subject", "action", "resource") if name not in asked]:
                error = FieldError(f"/evaluations/{index}/{missing[0]}", "Say it here or for all of them.")
                raise ProviderError(ErrorCode.INVALID_ARGUMENT, "An evaluation is incomplete.", errors=[error])
            found.append(await self._answer(visit, asked))
        return 200, {"evaluations": found}

    async def _answer(self, visit: Visit, asked: dict[str, Any]) -> dict[str, Any]:
        subject, resource = asked["subject"], asked["resource"]
        decision = await self._identity.evaluate(
            visit.tenant,
            (subject["type"], subject["id"]),
            asked["action"]["name"],
            (resource["type"], resource["id"]),
        )
        return {"decision": decision.allow, "context": {"reason": decision.reason}}


def _actor(tenant: str, who: dict[str, Any]) -> Actor:
    return Actor(
        id=who.get("id", "key_example"),
        tenant=tenant,
        kind=who.get("kind", "key"),
        roles=frozenset(who.get("roles", ())),
        scopes=frozenset(who.get("scopes", ())),
    )


def _explained(made: Decision) -> dict[str, Any]:
    return {"allow": made.allow, "reason": made.reason, "grants": list(made.grants), "denials": list(made.denials)}


def _revision(item: PolicyRevision) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(item)
    return found


def _page(items: list[Any], cursor: str | None) -> dict[str, Any]:
    return {"items": items} if cursor is None else {"items": items, "next_cursor": cursor}
