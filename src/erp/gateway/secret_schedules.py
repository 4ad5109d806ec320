"""Endpoints for operators: secrets that are rotated by themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.secret_schedules import SchedulePlan, SecretSchedule
from erp.errors import FieldError, ProviderError
from erp.gateway.acting import tenant_of
from erp.gateway.audit_trail import record
from erp.runtime.question import Question
from erp.security.secret_schedules import check

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.ports import Policy

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")


class SecretSchedulePages:
    """Every change is audited before its answer leaves."""

    def __init__(
        self, control: ControlPlane, catalog: ProviderCatalog, policy: Policy, credentials: Credentials
    ) -> None:
        self._control = control
        self._schedules = control.secret_schedules
        self._catalog = catalog
        self._policy = policy
        self._credentials = credentials

    async def _tenant(self, visit: Visit, action: str, effect: str) -> str:
        await self._credentials.authorise(visit.actor, "secret_schedules", "*", action, effect)
        return await tenant_of(visit, self._control.tenants)

    async def _audited(self, visit: Visit, action: str, schedule: SecretSchedule, effect: str = "write") -> None:
        target = f"{schedule.name} {schedule.plan.provider} {schedule.plan.path}"
        journal, tenant = self._control.journal, schedule.tenant
        await record(journal, visit, tenant=tenant, action=f"secrets.{action}", target=target, effect=effect)

    async def schedules(self, visit: Visit) -> tuple[int, Any]:
        """List what is planned."""
        tenant = await self._tenant(visit, "list", "read")
        items, cursor = await self._schedules.list(tenant, limit=visit.limit(), cursor=visit.query("cursor"))
        shown = [_shown(one) for one in items]
        return 200, {"items": shown} if cursor is None else {"items": shown, "next_cursor": cursor}

    async def get(self, visit: Visit) -> tuple[int, Any]:
        """Show one."""
        tenant = await self._tenant(visit, "get", "read")
        return 200, _shown(await self._schedules.get(tenant, visit.path("schedule")))

    async def put(self, visit: Visit) -> tuple[int, Any]:
        """Plan a rotation, or change the plan."""
        tenant = await self._tenant(visit, "put", "write")
        name, body = visit.path("schedule"), await visit.body("putSecretSchedule")
        if _NAME.match(name) is None:
            error = FieldError(
                "/path/schedule", "Use 1 to 63 lower-case letters, digits and dashes; begin with a letter."
            )
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The name is not valid.", errors=[error])
        revision = body.pop("revision", None)
        plan = msgspec.convert(body, SchedulePlan)
        await self._may(visit, tenant, plan)
        made = await self._schedules.put(tenant, name, plan, by=visit.actor.id, revision=revision)
        await self._audited(visit, "schedule", made)
        return 200, _shown(made)

    async def _may(self, visit: Visit, tenant: str, plan: SchedulePlan) -> None:
        """Refuse whoever could not do by a call what the plan will do for them."""
        for action, provider, connection in check(plan, self._catalog):
            question = Question(
                actor=visit.actor,
                area="providers",
                domain=action.group,
                name=provider,
                action=action.name,
                effect=action.effect,
                tenant="" if tenant == visit.tenant else tenant,
                connection=connection,
            )
            decision = await self._policy.decide(question)
            if not decision.allow:
                message = f"{action.ref} is not allowed: {decision.reason}."
                raise ProviderError(ErrorCode.PERMISSION_DENIED, message, detail="secrets.schedule")

    async def run(self, visit: Visit) -> tuple[int, Any]:
        """Have one rotated at once."""
        tenant = await self._tenant(visit, "run", "write")
        found = await self._schedules.run_now(tenant, visit.path("schedule"))
        await self._audited(visit, "rotate_now", found)
        return 200, _shown(found)

    async def delete(self, visit: Visit) -> tuple[int, Any]:
        """Forget a plan."""
        tenant = await self._tenant(visit, "delete", "destructive")
        found = await self._schedules.get(tenant, visit.path("schedule"))
        await self._schedules.delete(tenant, found.name, revision=visit.query("revision"))
        await self._audited(visit, "unschedule", found, "destructive")
        return 204, None


def _shown(schedule: SecretSchedule) -> dict[str, Any]:
    plan = schedule.plan
    shown: dict[str, Any] = {
        "name": schedule.name,
        "tenant": schedule.tenant,
        "revision": schedule.revision,
        "created_by": schedule.created_by,
        **{name: getattr(plan, name) for name in plan.__struct_fields__},
        "due_at": moments.text(schedule.due_at),
        "failures": schedule.failures,
    }
    if schedule.rotated_at is not None:
        shown |= {"last_rotated_at": moments.text(schedule.rotated_at), "reference": schedule.reference}
    if schedule.failure is not None and schedule.failed_at is not None:
        shown["failure"] = {"reason": schedule.failure, "at": moments.text(schedule.failed_at)}
        if plan.enabled:
            shown["failure"]["retry_at"] = moments.text(schedule.runs_at)
    return shown
