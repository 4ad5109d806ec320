"""Identity providers that tenants trust by SAML, and which of their assertions were used."""

from __future__ import annotations

import hashlib
import secrets
from functools import partial
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.people_tables import saml_assertions, saml_providers
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.statements import insert_new
from erp.control_plane.tenants import require
from erp.errors import ProviderError


class SamlSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an identity provider."""

    entity_id: str
    sso_url: str
    """Where browsers are sent (HTTP-Redirect binding)."""
    certificates: list[str]
    """With which it signs; PEM. Several while it changes them."""
    roles_attribute: str | None = None
    """Attribute whose values ``role_map`` turns into roles."""
    role_map: dict[str, str] = {}
    default_role: str | None = None
    """Of whoever has none by ``role_map``; None: they are refused."""
    subject_attribute: str | None = None
    """Attribute that names the person; None: the NameID does."""
    slo_url: str | None = None
    """Where the answers to its logout requests go (HTTP-Redirect binding); None: there is no single logout."""
    encryption: Literal["none", "accepted", "required"] = "none"
    """Of assertions, for the tenant's key."""


class SamlProvider(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's trust in one identity provider."""

    tenant: str
    name: str
    revision: str
    settings: SamlSettings


class SamlProviders:
    """The identity providers of all tenants."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions

    async def put(self, tenant: str, name: str, settings: SamlSettings) -> SamlProvider:
        """Set what is known of a provider; sessions that came from it as it was before are over.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist.
        """
        key, revision = {"tenant": tenant, "name": name}, secrets.token_hex(8)
        values = {
            "revision": revision,
            "settings": msgspec.json.encode(settings).decode(),
            "updated_at": moments.now(),
        }

        def put(connection: sa.Connection) -> None:
            require(connection, tenant)
            if not connection.execute(insert_new(connection.dialect, saml_providers), {**key, **values}).rowcount:
                connection.execute(sa.update(saml_providers).where(_is(tenant, name)).values(values))

        await self._database.transact(counted(put, Topic.CONFIGURATION))
        self._revisions.announce(Topic.CONFIGURATION)
        return SamlProvider(tenant=tenant, name=name, revision=revision, settings=settings)

    async def find(self, tenant: str, name: str) -> SamlProvider | None:
        """Return a provider, if there is one."""
        statement = sa.select(saml_providers).where(_is(tenant, name))
        row = await self._database.run(lambda connection: connection.execute(statement).first())
        return None if row is None else _provider(row)

    async def list(self, tenant: str) -> list[SamlProvider]:
        """Return the providers of a tenant by name."""
        statement = sa.select(saml_providers).where(saml_providers.c.tenant == tenant).order_by(saml_providers.c.name)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return [_provider(row) for row in rows]

    async def delete(self, tenant: str, name: str) -> None:
        """Trust a provider no more; sessions that came from it are over.

        Raises:
            ProviderError: ``not_found``.
        """

        def remove(connection: sa.Connection) -> None:
            if not connection.execute(sa.delete(saml_providers).where(_is(tenant, name))).rowcount:
                raise ProviderError(ErrorCode.NOT_FOUND, f"There is no SAML provider {name[:64]!r}.")

        await self._database.transact(counted(remove, Topic.CONFIGURATION))
        self._revisions.announce(Topic.CONFIGURATION)

    async def use(self, tenant: str, entity_id: str, assertion: str, expires_at: int) -> bool:
        """Note in all processes that an assertion was used; False when it was used before.

        Args:
            tenant: whose provider made it.
            entity_id: the provider.
            assertion: its id.
            expires_at: the moment from which it is refused by its age.
        """
        digest = hashlib.sha256(msgspec.json.encode([entity_id, assertion])).digest()
        return await self._database.transact(partial(_use, tenant, digest, expires_at))


def _use(tenant: str, digest: bytes, expires_at: int, connection: sa.Connection) -> bool:
    connection.execute(sa.delete(saml_assertions).where(saml_assertions.c.expires_at < moments.now()))
    row = {"tenant": tenant, "digest": digest, "expires_at": expires_at}
    return connection.execute(insert_new(connection.dialect, saml_assertions), row).rowcount > 0


def _is(tenant: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(saml_providers.c.tenant == tenant, saml_providers.c.name == name)


def _provider(row: Any) -> SamlProvider:
    settings = msgspec.json.decode(row.settings, type=SamlSettings)
    return SamlProvider(tenant=row.tenant, name=row.name, revision=row.revision, settings=settings)
