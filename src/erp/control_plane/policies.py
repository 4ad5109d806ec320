"""Tenants' own policies, in revisions, and what people have consented to."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, moments
from erp.control_plane.database import Database
from erp.control_plane.expected import expect
from erp.control_plane.remembered import Remembered
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tables import consents, policies, tenants
from erp.control_plane.tenants import require
from erp.errors import ProviderError

ConsentState = Literal["granted", "withdrawn"]


class PolicyRevision(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of a tenant's policy; the newest is in force. Empty source: none."""

    tenant: str
    number: int
    source: str
    note: str
    created_at: str
    created_by: str


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """What a subject has said about one purpose, last."""

    tenant: str
    subject: str
    purpose: str
    state: ConsentState
    evidence: str
    """Where it can be seen: a document, a form, a recording."""
    recorded_at: str
    recorded_by: str


class StoredPolicies:
    """The policies and consents of all tenants."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions
        self._active = Remembered[str, PolicyRevision | None](revisions, Topic.POLICIES)
        self._regions = Remembered[str, str](revisions, Topic.CONFIGURATION)

    async def policy(self, tenant: str) -> PolicyRevision | None:
        """Return the policy in force; None when the tenant has never had one."""
        return await self._active.get(tenant, lambda: self._database.run(partial(_newest, tenant)))

    async def region(self, tenant: str) -> str:
        """Return where the tenant's data may be; empty: anywhere."""
        return await self._regions.get(tenant, lambda: self._database.run(partial(_region, tenant)))

    async def put(
        self, tenant: str, source: str, *, by: str, note: str = "", revision: str | None = None
    ) -> PolicyRevision:
        """Put a policy in force as a new revision.

        Args:
            tenant: whose policy it is.
            source: Rego; empty: none any more.
            by: the actor.
            note: why.
            revision: the number that must be in force now; empty: there must be none yet; None: any or none.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist, ``conflict``.
        """

        def insert(connection: sa.Connection) -> PolicyRevision:
            require(connection, tenant, alone=True)
            known = _newest(tenant, connection)
            expect("policy", revision, None if known is None else str(known.number))
            row = {
                "tenant": tenant,
                "number": 1 if known is None else known.number + 1,
                "source": source,
                "note": note,
                "created_at": moments.now(),
                "created_by": by,
            }
            connection.execute(sa.insert(policies).values(row))
            return _revision(row)

        made = await self._database.transact(counted(insert, Topic.POLICIES))
        self._revisions.announce(Topic.POLICIES)
        return made

    async def get(self, tenant: str, number: int) -> PolicyRevision:
        """Return a revision.

        Raises:
            ProviderError: ``not_found``.
        """
        statement = sa.select(policies).where(policies.c.tenant == tenant, policies.c.number == number)
        row = await self._database.run(lambda connection: connection.execute(statement).mappings().first())
        if row is None:
            message = f"There is no revision {number} of the policy. GET /policies lists them."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return _revision(row)

    async def history(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[PolicyRevision], str | None]:
        """Return revisions, newest first, and the cursor of the next page, if any."""
        statement = sa.select(policies).where(policies.c.tenant == tenant).order_by(policies.c.number.desc())
        before = cursors.read(cursor, int)
        if before is not None:
            statement = statement.where(policies.c.number < before)
        statement = statement.limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        found = [_revision(row) for row in rows[:limit]]
        return found, cursors.written(found[-1].number) if len(rows) > limit else None

    # -- consent ---------------------------------------------------------------------------------

    async def consent(self, tenant: str, subject: str, purpose: str) -> str:
        """Return ``granted``, ``withdrawn``, or nothing when the subject was never asked."""
        table = consents.c
        statement = sa.select(table.state).where(
            table.tenant == tenant, table.subject == subject, table.purpose == purpose
        )
        return await self._database.run(lambda connection: connection.execute(statement).scalar()) or ""

    async def record_consent(
        self, tenant: str, subject: str, purpose: str, state: ConsentState, *, by: str, evidence: str = ""
    ) -> Consent:
        """Keep what a subject has said; it counts from the next call on."""
        row = {
            "tenant": tenant,
            "subject": subject,
            "purpose": purpose,
            "state": state,
            "evidence": evidence,
            "recorded_at": moments.now(),
            "recorded_by": by,
        }

        def write(connection: sa.Connection) -> None:
            require(connection, tenant, alone=True)
            place = sa.tuple_(*consents.primary_key) == sa.tuple_(tenant, subject, purpose)
            connection.execute(sa.delete(consents).where(place))
            connection.execute(sa.insert(consents).values(row))

        await self._database.transact(write)
        return _consent(row)

    async def erase_consents(self, tenant: str, subject: str) -> int:
        """Forget what a subject has said; return about how many purposes. Nothing said counts as no consent."""
        mine = sa.and_(consents.c.tenant == tenant, consents.c.subject == subject)
        return await self._database.transact(
            lambda connection: connection.execute(sa.delete(consents).where(mine)).rowcount
        )

    async def consents(
        self, tenant: str, *, subject: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Consent], str | None]:
        """Return consents by subject and purpose, and the cursor of the next page, if any."""
        place = (consents.c.subject, consents.c.purpose)
        statement = sa.select(consents).where(consents.c.tenant == tenant).order_by(*place).limit(limit + 1)
        if subject is not None:
            statement = statement.where(consents.c.subject == subject)
        after = cursors.read(cursor, tuple[str, str])
        if after is not None:
            statement = statement.where(sa.tuple_(*place) > sa.tuple_(*after))
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        found = [_consent(row) for row in rows[:limit]]
        more = cursors.written((found[-1].subject, found[-1].purpose)) if len(rows) > limit else None
        return found, more


def _newest(tenant: str, connection: sa.Connection) -> PolicyRevision | None:
    statement = sa.select(policies).where(policies.c.tenant == tenant).order_by(policies.c.number.desc()).limit(1)
    row = connection.execute(statement).mappings().first()
    return None if row is None else _revision(row)


def _region(tenant: str, connection: sa.Connection) -> str:
    return connection.execute(sa.select(tenants.c.region).where(tenants.c.id == tenant)).scalar() or ""


def _revision(row: sa.RowMapping | dict[str, Any]) -> PolicyRevision:
    return PolicyRevision(**_plain(row, "created_at"))


def _consent(row: sa.RowMapping | dict[str, Any]) -> Consent:
    return Consent(**_plain(row, "recorded_at"))


def _plain(row: sa.RowMapping | dict[str, Any], moment: str) -> dict[str, Any]:
    return {**{str(name): value for name, value in row.items()}, moment: moments.text(row[moment])}
