"""Subjects of access evaluations -> actors: who somebody is whose credential is not at hand (OpenID AuthZEN, section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.context import Actor
from erp.security.identity import ACCOUNT_PREFIX, KEY_PREFIX, actor_of, is_good

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.security.sessions import Sessions
    from erp.security.sign_in_sources import SignInSources

USER_PREFIX = "user:"
TYPES = ("key", "service_account", "user")


class Subjects:
    """Finds keys, service accounts and people of a tenant by their type and id."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self.sessions: Sessions | None = None
        """Of people; None: only the directory knows them."""
        self.sources: SignInSources | None = None

    async def find(self, tenant: str, type_: str, id_: str) -> Actor | None:
        """Return who a subject is when it could call now; None: nobody of this tenant.

        Args:
            tenant: whose subject it has to be.
            type_: one of ``TYPES``.
            id_: of a key with or without ``key_``; of a service account its name, with or without ``account_``; of a
                person what ``GET /me`` says (``user:SOURCE:SUBJECT``), or the user name, external id or id in the directory.
        """
        if type_ == "user":
            return await self._person(tenant, id_)
        if type_ == "service_account" or (type_ == "key" and id_.startswith(ACCOUNT_PREFIX)):
            return await self._elevated(await self._account(tenant, id_.removeprefix(ACCOUNT_PREFIX)))
        if type_ == "key":
            return await self._elevated(await self._key(tenant, id_.removeprefix(KEY_PREFIX)))
        return None

    async def _key(self, tenant: str, id_: str) -> Actor | None:
        record = await self._control.api_keys.find(id_)
        return actor_of(id_, record) if record is not None and record.tenant == tenant and is_good(record) else None

    async def _account(self, tenant: str, name: str) -> Actor | None:
        try:
            found = await self._control.service_accounts.get(tenant, name)
        except ProviderError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return None
        if found.disabled_at is not None:
            return None
        roles, scopes = frozenset({found.role}), frozenset(found.scopes)
        return Actor(id=f"{ACCOUNT_PREFIX}{name}", tenant=tenant, roles=roles, scopes=scopes)

    async def _elevated(self, actor: Actor | None) -> Actor | None:
        if actor is None:
            return None
        found = await self._control.elevations.active(actor.tenant, actor.id)
        return actor if found is None else msgspec.structs.replace(actor, elevated=found.role, elevation=found.id)

    async def _person(self, tenant: str, id_: str) -> Actor | None:
        """A person with a session is who the session says; another one has the roles that the directory gives, and no more.

        Roles that are only in tokens of the person's issuer cannot be known without one.
        """
        if not id_.startswith(USER_PREFIX):
            return await self._listed(tenant, await self._user_name(tenant, id_), f"{USER_PREFIX}{id_}")
        source, _, subject = id_.removeprefix(USER_PREFIX).partition(":")
        if self.sources is None or await self.sources.named(tenant, source) is None:
            return None
        session = None if self.sessions is None else await self.sessions.newest(tenant, source, subject)
        return await self._listed(tenant, subject, id_) if session is None else session.actor

    async def _user_name(self, tenant: str, id_: str) -> str:
        try:
            return str((await self._control.directory.get(tenant, "User", id_)).facts["userName"])
        except ProviderError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return id_

    async def _listed(self, tenant: str, subject: str, id_: str) -> Actor | None:
        standing = await self._control.directory.standing(tenant, subject)
        if standing is None or not standing.is_active:
            return None
        return Actor(id=id_, tenant=tenant, roles=standing.roles, kind="user")
