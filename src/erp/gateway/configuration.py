"""``/providers/{domain}/{name}/configure``: a tenant's connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors
from erp.control_plane.expected import expect
from erp.errors import FieldError, ProviderError
from erp.gateway import accepted
from erp.gateway.acting import tenant_of
from erp.gateway.audit_trail import record
from erp.runtime import call_policy
from erp.runtime.action import field_errors, validator
from erp.runtime.configuring import Wish
from erp.runtime.operation import Operation, Order
from erp.runtime.operations import subject_of
from erp.runtime.plan import implicit
from erp.runtime.ports import Connection
from erp.runtime.secret_references import SECRET_SCHEME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.configuring import Configuring
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.operations import OperationRunner
    from erp.runtime.plan import PlanBook
    from erp.runtime.pool import ProviderPool
    from erp.runtime.ports import SecretVault

AREA = "connections"
LONGEST_WAIT_SECONDS = 25.0
"""How long a change may take to be answered as such; what takes longer is answered with its operation."""


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
        configuring: Configuring,
        operations: OperationRunner,
        credentials: Credentials,
    ) -> None:
        self._catalog = catalog
        self._control = control
        self._vault = vault
        self._pool = pool
        self._plans = plans
        self._configuring = configuring
        self._operations = operations
        self._credentials = credentials

    async def configure(self, visit: Visit) -> tuple[int, Any]:
        """Create or change a connection, after the provider was opened with the new configuration and found healthy.

        A configuration that is not valid, does not open or is down changes nothing. It is an operation: what takes
        long is answered with that, and a second change of the connection meanwhile with ``conflict``.
        """
        manifest = self._manifest(visit)
        await self._credentials.authorise(visit.actor, AREA, manifest.ref, "configure", "write")
        self._catalog.check_reach(manifest)
        body = await visit.body("configureProvider")
        tenant = await tenant_of(visit, self._control.tenants)
        name = body.get("connection", visit.inbound.connection or "default")
        config, secrets = split_secrets(manifest, body.get("config", {}))
        plain = await self._plain(tenant, manifest.domain, secrets)
        self._check(manifest, {**body, "config": {**body.get("config", {}), **plain}})
        candidate = Connection(
            tenant=tenant,
            domain=manifest.domain,
            provider=manifest.name,
            name=name,
            revision="candidate",
            config=config,
            secrets={},
            policy=body.get("policy", {}),
            region=body.get("region", ""),
        )
        expected = await self._expected(candidate, body.get("revision"))
        wish = await self._staged(candidate, secrets)
        wish = msgspec.structs.replace(
            wish, expected=expected, default=body.get("default"), may_be_down=body.get("may_be_down", False)
        )
        return await self._answer(visit, wish, await self._accepted(visit, wish))

    async def _expected(self, candidate: Connection, revision: str | None) -> str:
        """Return the revision that is changed; refuse another one before anything is opened or stored."""
        place = (candidate.tenant, candidate.domain, candidate.provider, candidate.name)
        found = await self._control.connections.find(*place)
        if revision is not None and revision != (found.revision if found else ""):
            found = await self._reread(candidate)  # what is remembered may be older than what the caller has seen
            expect("connection", revision, found.revision if found else None)
        return found.revision if found else ""

    async def _reread(self, wanted: Connection) -> Connection | None:
        stored = await self._control.connections.list(wanted.tenant, domain=wanted.domain, provider=wanted.provider)
        return next((item for item in stored if item.name == wanted.name), None)

    async def _staged(self, candidate: Connection, secrets: Mapping[str, str]) -> Wish:
        """Put the secrets of a wish into the vault; it carries references alone."""
        staged: list[tuple[str, int]] = []
        references: dict[str, str] = {}
        for field, value in secrets.items():
            references[field] = value
            if not value.startswith(SECRET_SCHEME):
                path = f"{secret_prefix(candidate)}{field}"
                staged.append((path, await self._vault.put(candidate.tenant, path, value)))
                references[field] = f"{SECRET_SCHEME}{path}#{staged[-1][1]}"
        return Wish(connection=msgspec.structs.replace(candidate, secrets=references), staged=staged)

    async def _accepted(self, visit: Visit, wish: Wish) -> Operation:
        wanted = wish.connection
        order = Order(
            area="connections",
            group=wanted.domain,
            name="configure",
            provider=wanted.provider,
            connection=wanted.name,
            actor=visit.actor,
            body="",
            request_id=visit.inbound.request_id,
            traceparent=visit.inbound.traceparent,
            user=visit.inbound.user,
        )
        try:
            return await self._operations.accept_wish(wish, order)
        except BaseException:
            await asyncio.shield(self._configuring.withdraw(wish))
            raise

    async def _answer(self, visit: Visit, wish: Wish, operation: Operation) -> tuple[int, Any]:
        """Answer with the connection when it was stored soon enough, else with the operation."""
        inbound = visit.inbound
        longest = LONGEST_WAIT_SECONDS if inbound.wait_seconds is None else inbound.wait_seconds
        wait = (inbound.wait_seconds or 0.0) if inbound.respond_async else longest
        ended = await self._operations.wait(visit.tenant, operation.id, min(wait, LONGEST_WAIT_SECONDS)) or operation
        if ended.outcome is not None and ended.outcome.problem is not None:
            raise accepted.failure(ended.outcome.problem)
        if ended.state != "succeeded":
            return 202, accepted.response(inbound, ended)
        wanted = wish.connection
        stored = await self._control.connections.find(wanted.tenant, wanted.domain, wanted.provider, wanted.name)
        return 200, await self._shown(stored or wanted)

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

    async def _plain(self, tenant: str, domain: str, secrets: Mapping[str, str]) -> dict[str, str]:
        """Return what the references among ``secrets`` stand for: the schema is about values."""
        found: dict[str, str] = {}
        wrong = []
        for name, value in secrets.items():
            if not value.startswith(SECRET_SCHEME):
                continue
            path, _, version = value.removeprefix(SECRET_SCHEME).partition("#")
            try:
                number = int(version) if version else None
                found[name] = await self._pool.secrets.read(tenant, path, number, domain=domain)
            except ProviderError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
                wrong.append(
                    FieldError(
                        f"/config/{name}",
                        f"{error.message} Store it with put of secrets/local, which answers its reference.",
                    )
                )
            except ValueError:
                wrong.append(
                    FieldError(f"/config/{name}", "Use secret://PATH#VERSION, with a number, or secret://PATH.")
                )
        if wrong:
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A secret cannot be found.", errors=wrong)
        return found

    async def connections(self, visit: Visit) -> tuple[int, Any]:
        """List the tenant's connections of a provider."""
        manifest = self._manifest(visit)
        await self._credentials.authorise(visit.actor, AREA, manifest.ref, "list", "read")
        tenant = await tenant_of(visit, self._control.tenants)
        found = await self._control.connections.list(tenant, domain=manifest.domain, provider=manifest.name)
        if not manifest.needs_configuration and all(item.name != "default" for item in found):
            found.insert(0, implicit(tenant, manifest.domain, manifest.name))
        latest = await self._control.operations.latest([subject_of(item) for item in found])
        items = [{**await self._shown(item), **_last_operation(latest.get(subject_of(item)))} for item in found]
        return 200, {"items": items}

    async def all_connections(self, visit: Visit) -> tuple[int, Any]:
        """List what was configured of all providers, a page at a time."""
        await self._credentials.authorise(visit.actor, AREA, "*", "list", "read")
        tenant = await tenant_of(visit, self._control.tenants)
        found = await self._control.connections.list(
            tenant,
            domain=visit.query("domain"),
            after=cursors.read(visit.query("cursor"), tuple[str, str, str]),
            limit=visit.limit() + 1,
        )
        answer: dict[str, Any] = {"items": [await self._shown(item) for item in found[: visit.limit()]]}
        if len(found) > visit.limit():
            last = found[visit.limit() - 1]
            answer["next_cursor"] = cursors.written((last.domain, last.provider, last.name))
        return 200, answer

    async def _shown(self, connection: Connection) -> dict[str, Any]:
        """Return what answers show of a connection: references instead of secrets."""
        chosen = await self._control.connections.domain_default(connection.tenant, connection.domain)
        return {
            "provider": f"{connection.domain}/{connection.provider}",
            "connection": connection.name,
            "revision": connection.revision,
            "config": {**connection.config, **connection.secrets},
            **_versions(connection),
            "policy": dict(connection.policy),
            **({"region": connection.region} if connection.region else {}),
            "default": chosen == (connection.provider, connection.name),
        }

    async def remove(self, visit: Visit) -> tuple[int, Any]:
        """Remove a connection, its secrets and its open provider (after the calls inside have ended)."""
        manifest = self._manifest(visit)
        await self._credentials.authorise(visit.actor, AREA, manifest.ref, "remove", "destructive")
        tenant = await tenant_of(visit, self._control.tenants)
        name = visit.query("connection") or visit.inbound.connection or "default"
        place = (tenant, manifest.domain, manifest.name, name)
        found = await self._control.connections.find(*place)
        if found is None:
            message = f"{manifest.ref} has no connection named {name[:100]!r}."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        await self._check_unused(found)
        await self._control.connections.delete(*place, revision=visit.query("revision"))
        journal, target = self._control.journal, f"{manifest.ref}#{name}"
        await record(journal, visit, tenant=tenant, action=f"{AREA}.remove", target=target, effect="destructive")
        self._plans.forget(tenant)
        self._pool.discard(*place)
        for path in await self._vault.list(tenant, secret_prefix(found)):
            await self._vault.delete(tenant, path)
        return 204, None

    async def _check_unused(self, connection: Connection) -> None:
        """Refuse to take away what a route leads to."""
        place = (connection.provider, connection.name)
        leading = [
            route.name
            for route in await self._control.routes.list(connection.tenant)
            if route.domain == connection.domain
            and any((one.provider, one.connection) == place for one in route.targets)
        ]
        if leading:
            message = f"The connection is a target of the route {', '.join(leading)}. Change or remove that first."
            raise ProviderError(ErrorCode.CONFLICT, message)


def _versions(connection: Connection) -> dict[str, Any]:
    """Return which version is used of each secret that is named without one."""
    used = {
        name: connection.versions[reference]
        for name, reference in connection.secrets.items()
        if reference in connection.versions
    }
    return {"secret_versions": used} if used else {}


def _last_operation(operation: Operation | None) -> dict[str, Any]:
    """Return what the latest change of a connection has come to."""
    if operation is None:
        return {}
    problem = operation.outcome.problem if operation.outcome else None
    described = {} if problem is None else {"description": str(accepted.failure(problem))}
    return {"last_operation": {"id": operation.id, "state": operation.state, **described}}


def split_secrets(manifest: ProviderManifest, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Separate the secret properties of a configuration from the plain ones."""
    secrets = {name: str(config[name]) for name in manifest.secret_fields if config.get(name) is not None}
    return {name: value for name, value in config.items() if name not in manifest.secret_fields}, secrets


def secret_prefix(connection: Connection) -> str:
    """Return where the secrets of a connection live in the vault."""
    return f"connections/{connection.domain}/{connection.provider}/{connection.name}/"
