"""Which client certificate means which service account."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, moments
from erp.control_plane.database import Database, Work
from erp.control_plane.people_tables import client_certificates, service_accounts
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.service_accounts import found as account_found
from erp.control_plane.statements import insert_new
from erp.errors import FieldError, ProviderError

T = TypeVar("T")

Kind: TypeAlias = Literal["fingerprint", "uri", "dns"]

_SHAPES: dict[str, tuple[str, str]] = {
    "fingerprint": (
        r"[0-9a-f]{64}",
        "Use the SHA-256 of the certificate: 64 hexadecimal digits, with or without colons.",
    ),
    "uri": (r"[a-z][a-z0-9+.-]{0,30}:[\x21-\x7e]{1,500}", "Use a URI, for example spiffe://example.com/shop."),
    "dns": (
        r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
        "Use a host name without a wildcard, for example shop.example.com.",
    ),
}


class ClientCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping: whoever proves to have a certificate with this value is the service account."""

    id: str
    tenant: str
    service_account: str
    kind: str
    """``fingerprint`` (SHA-256 of the whole certificate), or ``uri`` or ``dns`` (a name that a trusted CA has confirmed)."""
    value: str
    created_at: str
    created_by: str


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A service account that is not disabled."""

    tenant: str
    service_account: str
    role: str
    scopes: frozenset[str]


class ClientCertificates:
    """The mappings of all tenants. A value means one account of one tenant, whoever was first."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self.revisions = revisions

    async def register(
        self, tenant: str, *, service_account: str, kind: Kind, value: str, created_by: str
    ) -> ClientCertificate:
        """Let a certificate stand for an account.

        Raises:
            ProviderError: ``invalid_argument`` for a malformed value, ``not_found`` for an unknown account,
                ``already_exists`` when the value is registered, be it by another tenant.
        """
        row = {
            "id": f"crt_{secrets.token_hex(8)}",
            "tenant": tenant,
            "service_account": service_account,
            "kind": kind,
            "value": _normal(kind, value),
            "created_at": moments.now(),
            "created_by": created_by,
        }

        def insert(connection: sa.Connection) -> None:
            account_found(tenant, service_account, connection, lock=True)
            if not connection.execute(insert_new(connection.dialect, client_certificates), row).rowcount:
                message = f"This {kind} is registered already. Remove it where it is, or use another."
                raise ProviderError(ErrorCode.ALREADY_EXISTS, message)

        await self._counted(insert)
        return _certificate(row)

    async def holders(self, names: Sequence[tuple[Kind, str]]) -> list[Holder]:
        """Return the accounts that any of ``names`` (kind and value) stand for, without those that are disabled."""
        return await self._database.run(partial(_holders, names))

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[ClientCertificate], str | None]:
        """Return up to ``limit`` mappings of ``tenant`` by id and the cursor of the next page, if any."""
        table, after = client_certificates.c, cursors.read(cursor, str) or ""
        mine = sa.select(client_certificates).where(table.tenant == tenant, table.id > after)
        statement = mine.order_by(table.id).limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        items = [_certificate(row) for row in rows[:limit]]
        return items, cursors.written(items[-1].id) if len(rows) > limit else None

    async def remove(self, tenant: str, id: str) -> None:  # noqa: A002
        """Forget a mapping: the certificate is refused here at once and in other processes within a second.

        Raises:
            ProviderError: ``not_found``.
        """

        def remove(connection: sa.Connection) -> None:
            if not connection.execute(sa.delete(client_certificates).where(_is(tenant, id))).rowcount:
                raise _unknown(id)

        await self._counted(remove)

    async def _counted(self, work: Work[T]) -> T:
        result = await self._database.transact(counted(work, Topic.API_KEYS))
        self.revisions.announce(Topic.API_KEYS)
        return result


def _holders(names: Sequence[tuple[Kind, str]], connection: sa.Connection) -> list[Holder]:
    table, account = client_certificates.c, service_accounts.c
    is_its = sa.and_(account.tenant == table.tenant, account.name == table.service_account)
    joined = client_certificates.join(service_accounts, is_its)
    named = sa.or_(*(sa.and_(table.kind == kind, table.value == value) for kind, value in names))
    columns = (account.tenant, account.name, account.role, account.scopes)
    statement = sa.select(*columns).distinct().select_from(joined).where(named, account.disabled_at.is_(None))
    return [
        Holder(
            tenant=row.tenant,
            service_account=row.name,
            role=row.role,
            scopes=msgspec.json.decode(row.scopes, type=frozenset[str]),
        )
        for row in connection.execute(statement)
    ]


def _normal(kind: Kind, value: str) -> str:
    normal = value if kind == "uri" else value.lower()
    if kind == "fingerprint":
        normal = normal.replace(":", "")
    shape, hint = _SHAPES[kind]
    if re.fullmatch(shape, normal) is None:
        raise ProviderError(
            ErrorCode.INVALID_ARGUMENT, f"The {kind} is not valid.", errors=[FieldError(f"/{kind}", hint)]
        )
    return normal


def _is(tenant: str, id_: str) -> sa.ColumnElement[bool]:
    return sa.and_(client_certificates.c.tenant == tenant, client_certificates.c.id == id_)


def _unknown(id_: str) -> ProviderError:
    return ProviderError(ErrorCode.NOT_FOUND, f"There is no certificate {id_[:100]!r}.")


def _certificate(row: Mapping[Any, Any]) -> ClientCertificate:
    return ClientCertificate(**{**row, "created_at": moments.text(row["created_at"])})
