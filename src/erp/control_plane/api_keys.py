"""Credentials: which key belongs to which tenant, with which role and scopes."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypedDict, Unpack

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, key_text, moments
from erp.control_plane.database import Database
from erp.control_plane.expected import expect
from erp.control_plane.key_facts import ROLES, check_facts, rate_text
from erp.control_plane.people_tables import service_accounts
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.service_accounts import ServiceAccount
from erp.control_plane.service_accounts import found as account_found
from erp.control_plane.tables import api_keys
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError
from erp.runtime.call_policy import Rate


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts about a key; never the key."""

    id: str
    tenant: str
    revision: str
    """Changes with every change of what the key may do, until when and how it is called."""
    name: str | None = None
    role: str
    scopes: list[str] = []
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    rate: Rate | None = None
    service_account: str | None = None
    replaces: str | None = None
    """The key in whose place it was put."""
    last_used_at: str | None = None
    """Up to a minute before the last use."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What authentication needs to know of a key."""

    tenant: str
    role: str
    scopes: frozenset[str]
    digest: bytes
    expires_at: int | None
    """A moment (``erp.control_plane.moments``)."""
    is_revoked: bool
    """Or the service account that it belongs to is disabled."""
    rate: Rate | None = None
    service_account: str | None = None
    last_used_at: int | None = None


class KeyChanges(TypedDict, total=False):
    """What can be changed of a key."""

    name: str | None
    role: str
    scopes: Sequence[str]
    expires_at: datetime.datetime | None
    rate: Mapping[str, Any] | None


class ApiKeys:
    """The keys of all tenants."""

    def __init__(self, database: Database, revisions: Revisions, *, pepper: bytes) -> None:
        self._database = database
        self._pepper = pepper
        self.revisions = revisions

    async def create(
        self,
        tenant: str,
        *,
        role: str,
        name: str | None = None,
        scopes: Sequence[str] = (),
        expires_at: datetime.datetime | None = None,
        rate: Mapping[str, Any] | None = None,
        service_account: str | None = None,
        revision: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key; return its facts and its text, which cannot be read again.

        Args:
            tenant: whose key it is.
            role: one of ``ROLES``.
            name: what people call it; several keys may have one name.
            scopes: what it is narrowed to; none: not at all.
            expires_at: when it ends; None: never.
            rate: how many calls it may make (``Rate``); None: as many as the tenant.
            service_account: whose key it is; its role is the account's, and so are its scopes unless it is narrowed further.
            revision: that of the newest valid key with this name; empty: there must be none; None: any or none.

        Raises:
            ProviderError: ``invalid_argument`` for an unknown role, a malformed scope, a time that has passed, a malformed
                rate, or more than the service account may do; ``not_found`` when the tenant or the account does not
                exist; ``conflict``.
        """
        check_facts(role, scopes, expires_at)
        minted = key_text.mint()
        row = {
            "id": minted.id,
            "tenant": tenant,
            "name": name,
            "role": role,
            "scopes": msgspec.json.encode(sorted(set(scopes))).decode(),
            "digest": key_text.digest(self._pepper, minted.text),
            "created_at": moments.now(),
            "expires_at": None if expires_at is None else moments.of(expires_at),
            "rate": rate_text(rate),
            "service_account": service_account,
            **dict.fromkeys(("revoked_at", "replaces", "last_used_at")),
        }

        def insert(connection: sa.Connection) -> None:
            require(connection, tenant, alone=revision is not None)
            if service_account is not None:
                account = account_found(tenant, service_account, connection, lock=True)
                row["scopes"] = msgspec.json.encode(_within(account, role, scopes)).decode()
            if revision is not None:
                expect("API key", revision, _newest(tenant, name, connection))
            connection.execute(sa.insert(api_keys).values(row))

        await self._database.transact(insert)
        return _key(row), minted.text

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[ApiKey], str | None]:
        """Return up to ``limit`` keys of ``tenant``, oldest first, and the cursor of the next page, if any."""
        order = (api_keys.c.created_at, api_keys.c.id)
        statement = sa.select(api_keys).where(api_keys.c.tenant == tenant).order_by(*order).limit(limit + 1)
        after = cursors.read(cursor, tuple[int, str])
        if after is not None:
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*after))
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        last = rows[limit - 1] if len(rows) > limit else None
        more = None if last is None else cursors.written((last["created_at"], last["id"]))
        return [_key(row) for row in rows[:limit]], more

    async def find(self, id: str) -> KeyRecord | None:  # noqa: A002
        """Return what authentication needs to know of the key with this id."""
        return await self._database.run(partial(_find, id))

    async def get(self, tenant: str, id: str) -> ApiKey:  # noqa: A002
        """Return the facts of a key that is not revoked.

        Raises:
            ProviderError: ``not_found``.
        """
        return await self._database.run(partial(_valid, tenant, id))

    async def update(
        self,
        tenant: str,
        id: str,  # noqa: A002
        *,
        revision: str | None = None,
        **changes: Unpack[KeyChanges],
    ) -> ApiKey:
        """Change what is given and nothing else, here at once and in other processes within a second.

        Raises:
            ProviderError: ``invalid_argument`` as for ``create``; ``not_found`` when there is no such key or it is
                revoked; ``conflict`` when a ``revision`` is given and the key has another.
        """
        check_facts(changes.get("role", ROLES[0]), changes.get("scopes", ()), changes.get("expires_at"))
        values = _columns(changes)

        def change(connection: sa.Connection) -> ApiKey:
            present = _valid(tenant, id, connection, lock=True)
            expect("API key", revision, present.revision)
            if present.service_account is not None and ("role" in changes or "scopes" in changes):
                account = account_found(tenant, present.service_account, connection)
                scopes = _within(account, changes.get("role", present.role), changes.get("scopes", present.scopes))
                values["scopes"] = msgspec.json.encode(scopes).decode()
            connection.execute(sa.update(api_keys).where(api_keys.c.id == id).values(values))
            return _valid(tenant, id, connection)

        changed = await self._database.transact(counted(change, Topic.API_KEYS))
        self.revisions.announce(Topic.API_KEYS)
        return changed

    async def rotate(
        self,
        tenant: str,
        id: str,  # noqa: A002
        *,
        overlap_seconds: float,
        expires_at: datetime.datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Put a new key in the place of one that is valid; return its facts and its text, which cannot be read again.

        Args:
            tenant: whose key it is.
            id: the old key. It stays valid for ``overlap_seconds`` more, but never longer than it was to be.
            overlap_seconds: 0 ends it at once.
            expires_at: when the new key ends; None: when the old one was to end.

        Raises:
            ProviderError: ``not_found`` when there is no such key or it is revoked or has ended, ``invalid_argument``.
        """
        minted = key_text.mint()

        def replace(connection: sa.Connection) -> ApiKey:
            old = connection.execute(_unrevoked(tenant, id).with_for_update()).mappings().first()
            now = moments.now()
            if old is None or (old["expires_at"] is not None and old["expires_at"] <= now):
                raise _unknown(id)
            check_facts(old["role"], (), expires_at)
            row = {
                **old,
                "id": minted.id,
                "digest": key_text.digest(self._pepper, minted.text),
                "created_at": max(now, old["created_at"] + 1),  # the newest of its name
                "expires_at": old["expires_at"] if expires_at is None else moments.of(expires_at),
                "replaces": id,
                "last_used_at": None,
            }
            connection.execute(sa.insert(api_keys).values(row))
            connection.execute(sa.update(api_keys).where(api_keys.c.id == id).values(_ended(old, now, overlap_seconds)))
            return _key(row)

        made = await self._database.transact(counted(replace, Topic.API_KEYS))
        self.revisions.announce(Topic.API_KEYS)
        return made, minted.text

    async def revoke(self, tenant: str, id: str, *, revision: str | None = None) -> bool:  # noqa: A002
        """Make a key invalid, here at once and in other processes within a second; False when there is none.

        Raises:
            ProviderError: ``conflict`` when a ``revision`` is given and the key has another.
        """

        def revoke(connection: sa.Connection) -> bool:
            found = connection.execute(_unrevoked(tenant, id).with_for_update()).mappings().first()
            if found is None:
                return False
            expect("API key", revision, _key(found).revision)
            values = {"revoked_at": moments.now()}
            connection.execute(sa.update(api_keys).where(api_keys.c.id == id).values(values))
            return True

        is_revoked = await self._database.transact(counted(revoke, Topic.API_KEYS))
        self.revisions.announce(Topic.API_KEYS)
        return is_revoked


def _find(id_: str, connection: sa.Connection) -> KeyRecord | None:
    account = service_accounts.c
    is_its = sa.and_(account.tenant == api_keys.c.tenant, account.name == api_keys.c.service_account)
    joined = api_keys.outerjoin(service_accounts, is_its)
    columns = (api_keys, account.name.label("account"), account.disabled_at)
    row = connection.execute(sa.select(*columns).select_from(joined).where(api_keys.c.id == id_)).first()
    if row is None:
        return None
    is_disabled = row.service_account is not None and (row.account is None or row.disabled_at is not None)
    return KeyRecord(
        tenant=row.tenant,
        role=row.role,
        scopes=msgspec.json.decode(row.scopes, type=frozenset[str]),
        digest=bytes(row.digest),
        expires_at=row.expires_at,
        is_revoked=row.revoked_at is not None or is_disabled,
        rate=_rate(row.rate),
        service_account=row.service_account,
        last_used_at=row.last_used_at,
    )


def _newest(tenant: str, name: str | None, connection: sa.Connection) -> str | None:
    """Return the revision of the newest valid key with a name."""
    table = api_keys.c
    is_valid = sa.and_(table.revoked_at.is_(None), sa.or_(table.expires_at.is_(None), table.expires_at > moments.now()))
    named = sa.select(api_keys).where(table.tenant == tenant, table.name == name, is_valid)
    row = connection.execute(named.order_by(table.created_at.desc()).limit(1)).mappings().first()
    return None if row is None else _revision(row)


def _unrevoked(tenant: str, id_: str) -> sa.Select[Any]:
    table = api_keys.c
    return sa.select(api_keys).where(table.tenant == tenant, table.id == id_, table.revoked_at.is_(None))


def _valid(tenant: str, id_: str, connection: sa.Connection, *, lock: bool = False) -> ApiKey:
    statement = _unrevoked(tenant, id_)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().first()
    if row is None:
        raise _unknown(id_)
    return _key(row)


def _unknown(id_: str) -> ProviderError:
    return ProviderError(ErrorCode.NOT_FOUND, f"There is no API key {id_[:100]!r}.")


def _ended(old: Mapping[Any, Any], now: int, overlap_seconds: float) -> dict[str, int]:
    """Return the columns of a key that has been replaced."""
    if overlap_seconds <= 0:
        return {"revoked_at": now}
    ends = now + int(overlap_seconds * moments.MICROSECONDS)
    return {"expires_at": ends if old["expires_at"] is None else min(ends, old["expires_at"])}


def _within(account: ServiceAccount, role: str, scopes: Sequence[str]) -> Sequence[str]:
    """Return the scopes of a key of ``account``: those given, or all that the account has.

    Raises:
        ProviderError: ``invalid_argument`` for more than the account may do.
    """
    wrong = []
    if role != account.role:
        wrong.append(FieldError("/role", f"Use {account.role}, the role of the service account."))
    if account.scopes and not set(scopes) <= set(account.scopes):
        wrong.append(FieldError("/scopes", f"Use some of the service account's: {', '.join(account.scopes)}."))
    if wrong:
        message = "A key cannot do more than the service account that it belongs to."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=wrong)
    return sorted(set(scopes)) or account.scopes


def _rate(text: str | None) -> Rate | None:
    return None if text is None else msgspec.json.decode(text, type=Rate)


def _columns(changes: KeyChanges) -> dict[str, Any]:
    values: dict[str, Any] = dict(changes)
    if "scopes" in changes:
        values["scopes"] = msgspec.json.encode(sorted(set(changes["scopes"]))).decode()
    if (ends := changes.get("expires_at")) is not None:
        values["expires_at"] = moments.of(ends)
    if "rate" in changes:
        values["rate"] = rate_text(changes["rate"])
    return values


def _revision(row: Mapping[Any, Any]) -> str:
    facts = [row[name] for name in ("name", "role", "scopes", "expires_at")]
    if row["rate"] is not None:
        facts.append(row["rate"])
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:16]


def _key(row: Mapping[Any, Any]) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant=row["tenant"],
        revision=_revision(row),
        name=row["name"],
        role=row["role"],
        scopes=msgspec.json.decode(row["scopes"], type=list[str]),
        created_at=moments.text(row["created_at"]),
        expires_at=moments.optional_text(row["expires_at"]),
        revoked_at=moments.optional_text(row["revoked_at"]),
        rate=_rate(row["rate"]),
        service_account=row["service_account"],
        replaces=row["replaces"],
        last_used_at=moments.optional_text(row["last_used_at"]),
    )
