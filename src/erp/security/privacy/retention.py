"""Deletes what tenants have kept long enough: rows of the layer by class, rows of their databases by rule.

One process at a time applies the policy of a tenant. Rows of databases are deleted by calls like everybody's, authorised
and audited; what was deleted of which class is one audit record more.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models import db
from erp.contracts.models.errors import ErrorCode
from erp.control_plane.retention import Grounds
from erp.errors import ProviderError
from erp.runtime.effects import now
from erp.runtime.ports import AuditEntry, Completion
from erp.security.privacy.retention_policy import AUDIT, ROWS, RetentionPolicy, RowRule, checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from erp.control_plane import ControlPlane
    from erp.control_plane.retention_policies import Lease
    from erp.runtime.context import CallContext

_log = logging.getLogger(__name__)

SERVICE = "privacy"
LOOK_SECONDS = 60.0
SECONDS = 120.0
"""For one batch of rows; less than a lease lasts."""
ROWS_AT_ONCE = 500
MOST_BATCHES = 200
"""A rule deletes at most so many batches in one run; what is left is deleted by the next."""


class RowsFound(msgspec.Struct, kw_only=True):
    """What became of one rule for rows."""

    place: str
    rows: int = 0
    more: bool | msgspec.UnsetType = msgspec.UNSET
    """True: there may be more."""
    failure: str | msgspec.UnsetType = msgspec.UNSET


class Applied(msgspec.Struct, kw_only=True):
    """What a policy has deleted, or would delete."""

    dry_run: bool
    hold: str | msgspec.UnsetType = msgspec.UNSET
    """Why nothing is deleted."""
    classes: dict[str, int] = {}
    rows: list[RowsFound] = []

    @property
    def detail(self) -> dict[str, Any] | None:
        """What the audit trail keeps; None: nothing happened."""
        deleted = {name: count for name, count in self.classes.items() if count}
        deleted |= {one.place: one.rows for one in self.rows if one.rows}
        failed = [one.place for one in self.rows if one.failure]
        found = {"deleted": deleted} if deleted else {}
        return (found | ({"failed": failed} if failed else {})) or None


class RetentionKeeper:
    """Applies the policies of all tenants."""

    def __init__(self, control: ControlPlane, context: Callable[[str, str, float], CallContext]) -> None:
        """``context``: makes the context of a service's work: its name, the tenant, how many seconds it may take."""
        self._control = control
        self._context = context

    async def policy(self, tenant: str) -> tuple[RetentionPolicy, int]:
        """Return what ``tenant`` has said, with its rules for audit records, and the revision of that."""
        text, revision = await self._control.retention_policies.get(tenant)
        try:
            said = msgspec.json.decode(text, type=RetentionPolicy)
        except msgspec.ValidationError as error:  # written by another version of the layer
            message = f"The retention policy of {tenant} cannot be read: {error}. Put it again."
            raise ProviderError(ErrorCode.INTERNAL, message) from error
        kept = {rule.name: rule.days for rule in await self._control.retention.rules(tenant)}
        audit = {name: days for name, record in AUDIT.items() if (days := kept[record]) is not None}
        return msgspec.structs.replace(said, days={**said.days, **audit}), revision

    async def put(self, tenant: str, policy: RetentionPolicy, *, revision: str | None) -> None:
        """Store what ``tenant`` says in the place of what it said before.

        Raises:
            ProviderError: ``invalid_argument`` for a time that is not allowed, ``conflict``, ``not_found``.
        """
        days = checked(policy).days
        audit: dict[str, int] = {record: kept for name, record in AUDIT.items() if (kept := days.get(name)) is not None}
        rest = {name: kept for name, kept in days.items() if name not in AUDIT}
        text = msgspec.json.encode(msgspec.structs.replace(policy, days=rest)).decode()
        await self._control.retention_policies.put(tenant, text, audit, revision=revision)

    async def run(self) -> None:
        """Apply what is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                for tenant in await self._control.retention_policies.due():
                    await self._apply_due(tenant)
            except ProviderError:
                _log.warning("what was kept long enough could not be deleted", exc_info=True)

    async def _apply_due(self, tenant: str) -> None:
        try:
            await self.apply(tenant, actor=f"service:{SERVICE}", request_id="retention")
        except ProviderError as error:
            if error.code is not ErrorCode.CONFLICT:
                _log.warning("retention of %s: %s", tenant, error.message)

    async def would(self, tenant: str) -> Applied:
        """Count what would be deleted now, and delete nothing."""
        control, (policy, _) = self._control, await self.policy(tenant)
        audit = {f"audit_{name}": count for name, count in (await control.retention.count(tenant)).items()}
        rows: dict[str, int] = {
            name: await control.expired_rows.count(tenant, row, days)
            for name, row in ROWS.items()
            if (days := policy.days_of(name)) is not None
        }
        found = [await self._counted(tenant, rule) for rule in policy.rows]
        return Applied(dry_run=True, hold=_reason(policy), classes={**audit, **rows}, rows=found)

    async def apply(self, tenant: str, *, actor: str, request_id: str) -> Applied:
        """Delete what was kept long enough, unless there is a legal hold.

        Raises:
            ProviderError: ``conflict`` when another process is doing it.
        """
        lease = await self._control.retention_policies.lease(tenant)
        if lease is None:
            message = "What was kept long enough is being deleted right now."
            raise ProviderError(ErrorCode.CONFLICT, message, retry_after_seconds=5.0)
        try:
            done = await self._applied(tenant, Grounds(actor, "the time to keep it is over", request_id), lease)
        finally:
            await asyncio.shield(lease.end())
        return done

    async def _applied(self, tenant: str, grounds: Grounds, lease: Lease) -> Applied:
        policy, _ = await self.policy(tenant)
        done = Applied(dry_run=False, hold=_reason(policy))
        if policy.hold is not None:
            return done
        try:
            if any(policy.days_of(name) is not None for name in AUDIT):
                audit = await self._control.retention.apply(tenant, grounds, lease.renew)
                done.classes |= {f"audit_{name}": count for name, count in audit.items()}
            for name, row in ROWS.items():
                days = policy.days_of(name)
                if days is not None and await lease.renew():
                    done.classes[name] = await self._control.expired_rows.delete(tenant, row, days, lease.renew)
            for rule in policy.rows:
                if await lease.renew():
                    done.rows.append(await self._deleted(tenant, rule, lease))
        finally:
            await self._record(tenant, grounds, done)
        return done

    # -- rows of the tenant's databases ----------------------------------------------------------

    async def _counted(self, tenant: str, rule: RowRule) -> RowsFound:
        sql = f"SELECT COUNT(*) FROM {rule.table} WHERE {_old(rule)}"  # noqa: S608  (names by pattern, the rest is ours)
        try:
            page = await self._call(tenant, rule, "query", db.QueryRequest(sql=sql))
        except ProviderError as error:
            return RowsFound(place=rule.place, failure=error.message)
        return RowsFound(place=rule.place, rows=int(page.rows[0][0]))

    async def _deleted(self, tenant: str, rule: RowRule, lease: Lease) -> RowsFound:
        found = RowsFound(place=rule.place)
        try:
            for _ in range(MOST_BATCHES):
                count = await self._delete_some(tenant, rule)
                found.rows += count
                if count < ROWS_AT_ONCE:
                    return found
                if not await lease.renew():
                    break
        except ProviderError as error:
            found.failure = error.message
        found.more = True
        return found

    async def _delete_some(self, tenant: str, rule: RowRule) -> int:
        where = _old(rule)
        sql = f"SELECT {rule.key} FROM {rule.table} WHERE {where}"  # noqa: S608  (names by pattern, the rest is ours)
        page = await self._call(tenant, rule, "query", db.QueryRequest(sql=sql, max_rows=ROWS_AT_ONCE))
        keys = [row[0] for row in page.rows]
        if not keys:
            return 0
        these = ", ".join("?" * len(keys))
        sql = f"DELETE FROM {rule.table} WHERE {rule.key} IN ({these}) AND {where}"  # noqa: S608  (as above)
        done = await self._call(tenant, rule, "execute", db.ExecuteRequest(sql=sql, parameters=keys))
        return int(done.rows_affected)

    async def _call(self, tenant: str, rule: RowRule, action: str, request: msgspec.Struct) -> Any:
        context = self._context(SERVICE, tenant, SECONDS)
        return await context.invoke("db", action, request, provider=rule.provider, connection=rule.connection)

    async def _record(self, tenant: str, grounds: Grounds, done: Applied) -> None:
        if done.detail is None:
            return
        audit = AuditEntry(
            tenant=tenant,
            actor=grounds.actor,
            action=f"{SERVICE}.retention",
            target="retention",
            outcome="ok",
            reason=grounds.reason,
            request_id=grounds.request_id,
            time=now(),
            effect="destructive",
            detail=done.detail,
        )
        await self._control.journal.complete(Completion(audit=audit))


def _reason(policy: RetentionPolicy) -> str | msgspec.UnsetType:
    return msgspec.UNSET if policy.hold is None else policy.hold.reason


def _old(rule: RowRule) -> str:
    """Return the condition. A day without time is less than each of its moments, as a date and as text (ISO 8601)."""
    day = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=rule.days)
    if rule.unit == "date":
        return f"{rule.column} < '{day.isoformat()}'"
    moment = int(datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp())
    return f"{rule.column} < {moment if rule.unit == 'epoch_seconds' else moment * 1000}"
