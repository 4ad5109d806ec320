"""``/providers/{domain}/{name}/configure``: a tenant's connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway.audit_trail import entry
from erp.runtime import call_policy
from erp.runtime.action import field_errors, validator
from erp.runtime.plan import implicit
from erp.runtime.pool import SECRET_SCHEME
from erp.runtime.ports import Completion, Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.plan import PlanBook
    from erp.runtime.pool import ProviderPool
    from erp.runtime.ports import SecretVault

AREA = "connections"


class Configuration:
    """Creates, shows and removes connections. Secrets go to the vault; answers show references only."""

    def __init__(
        self,
        *,
        catalog: ProviderCatalog,
        control: ControlPlane,
        vault: SecretVault,
        pool: ProviderPool,
        plans: PlanBook,
        credentials: Credentials,
    ) -> None:
        self._catalog = catalog
        self._control = control
        self._vault = vault
        self._pool = pool
        self._plans = plans
        self._credentials = credentials

    async def configure(self, visit: Visit) -> tuple[int, Any]:
        """Create or change a connection, after opening the provider with the new configuration once.

        A configuration that is not valid or does not open changes nothing.
        """
        manifest = self._manifest(visit)
        self._credentials.authorise(visit.actor, AREA, manifest.ref, "configure", "write")
        body = await visit.body("configureProvider")
        name = body.get("connection", visit.inbound.connection or "default")
        self._check(manifest, body)
        config, secrets = split_secrets(manifest, body.get("config", {}))
        candidate = Connection(
            tenant=visit.tenant,
            domain=manifest.domain,
            provider=manifest.name,
            name=name,
            revision="candidate",
            config=config,
            secrets={},
            policy=body.get("policy", {}),
        )
        await self._try(candidate, secrets)
        stored = await self._store(visit, candidate, secrets, is_default=body.get("default"))
        return 200, shown(stored)

    def _manifest(self, visit: Visit) -> ProviderManifest:
        return self._catalog.provider(visit.path("domain"), visit.path("name"))

    def _check(self, manifest: ProviderManifest, body: Mapping[str, Any]) -> None:
        wrong = [
            FieldError(f"/config{error.pointer}", error.message)
            for error in field_errors(validator(manifest.config), body.get("config", {}))
        ]
        try:
            call_policy.resolve("", manifest.limits, body.get("policy", {}))
        except msgspec.ValidationError as error:
            wrong.append(FieldError("/policy", str(error)))
        if wrong:
            message = f"The configuration of {manifest.ref} has {len(wrong)} error{'s' * (len(wrong) > 1)}."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=wrong)

    async def _try(self, candidate: Connection, secrets: Mapping[str, str]) -> None:
        """Open the provider with the new configuration and close it again; raises what ``open`` raised."""
        plain = {name: await self._revealed(candidate.tenant, value) for name, value in secrets.items()}
        trial = msgspec.structs.replace(candidate, config={**candidate.config, **plain})
        opened = await self._pool.open_unpooled(trial)
        await opened.provider.close()

    async def _revealed(self, tenant: str, value: str) -> str:
        if not value.startswith(SECRET_SCHEME):
            return value
        path, _, version = value.removeprefix(SECRET_SCHEME).partition("#")
        return await self._vault.get(tenant, path, int(version) if version else None)

    async def _store(
        self, visit: Visit, candidate: Connection, secrets: Mapping[str, str], *, is_default: bool | None
    ) -> Connection:
        references = {name: await self._put_secret(candidate, name, value) for name, value in secrets.items()}
        stored = await self._control.connections.put(msgspec.structs.replace(candidate, secrets=references))
        if is_default:
            await self._control.connections.set_domain_default(
                stored.tenant, stored.domain, stored.provider, stored.name
            )
        audit = entry(visit, f"{AREA}.configure", f"{stored.domain}/{stored.provider}#{stored.name}", "write")
        await self._control.journal.complete(Completion(audit=audit))
        self._plans.forget(stored.tenant)
        return stored

    async def _put_secret(self, target: Connection, field: str, value: str) -> str:
        if value.startswith(SECRET_SCHEME):
            return value
        path = f"{secret_prefix(target)}{field}"
        version = await self._vault.put(target.tenant, path, value)
        return f"{SECRET_SCHEME}{path}#{version}"

    async def connections(self, visit: Visit) -> tuple[int, Any]:
        """List the tenant's connections of a provider."""
        manifest = self._manifest(visit)
        self._credentials.authorise(visit.actor, AREA, manifest.ref, "list", "read")
        found = await self._control.connections.list(visit.tenant, domain=manifest.domain, provider=manifest.name)
        items = [shown(item) for item in found]
        if not manifest.needs_configuration and all(item["connection"] != "default" for item in items):
            items.insert(0, shown(implicit(visit.tenant, manifest.domain, manifest.name)))
        return 200, {"items": items}

    async def remove(self, visit: Visit) -> tuple[int, Any]:
        """Remove a connection, its secrets and its open provider (after the calls inside have ended)."""
        manifest = self._manifest(visit)
        self._credentials.authorise(visit.actor, AREA, manifest.ref, "remove", "destructive")
        name = visit.query("connection") or visit.inbound.connection or "default"
        found = await self._control.connections.find(visit.tenant, manifest.domain, manifest.name, name)
        if found is None:
            message = f"{manifest.ref} has no connection named {name[:100]!r}."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        audit = entry(visit, f"{AREA}.remove", f"{manifest.ref}#{name}", "destructive")
        await self._control.connections.delete(visit.tenant, manifest.domain, manifest.name, name)
        await self._control.journal.complete(Completion(audit=audit))
        self._plans.forget(visit.tenant)
        self._pool.discard(visit.tenant, manifest.domain, manifest.name, name)
        for path in await self._vault.list(visit.tenant, secret_prefix(found)):
            await self._vault.delete(visit.tenant, path)
        return 204, None


def split_secrets(manifest: ProviderManifest, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Separate the secret properties of a configuration from the plain ones."""
    secrets = {name: str(config[name]) for name in manifest.secret_fields if config.get(name) is not None}
    return {name: value for name, value in config.items() if name not in manifest.secret_fields}, secrets


def secret_prefix(connection: Connection) -> str:
    """Return where the secrets of a connection live in the vault."""
    return f"connections/{connection.domain}/{connection.provider}/{connection.name}/"


def shown(connection: Connection) -> dict[str, Any]:
    """Return what answers show of a connection: references instead of secrets."""
    return {
        "provider": f"{connection.domain}/{connection.provider}",
        "connection": connection.name,
        "revision": connection.revision,
        "config": {**connection.config, **connection.secrets},
        "policy": dict(connection.policy),
    }
