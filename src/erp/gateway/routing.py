"""``/routes``: a tenant's own names for connections."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors
from erp.errors import FieldError, ProviderError
from erp.gateway.acting import tenant_of
from erp.gateway.audit_trail import record
from erp.runtime.catalog import unknown
from erp.runtime.ports import Route, RouteTarget

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.plan import PlanBook
    from erp.runtime.routes import LiveRoute, RouteBook

AREA = "routes"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+\Z")
LONGEST_NAME = 64


class Routing:
    """Makes, shows and removes routes."""

    def __init__(self, control: ControlPlane, book: RouteBook, plans: PlanBook, credentials: Credentials) -> None:
        self._control = control
        self._book = book
        self._plans = plans
        self._credentials = credentials

    async def _authorise(self, visit: Visit, target: str, action: str, effect: str) -> None:
        await self._credentials.authorise(visit.actor, AREA, target, action, effect)

    async def routes(self, visit: Visit) -> tuple[int, Any]:
        """List the tenant's routes, a page at a time."""
        await self._authorise(visit, "*", "list", "read")
        tenant = await tenant_of(visit, self._control.tenants)
        after = cursors.read(visit.query("cursor"), tuple[str, str]) or ("", "")
        found = await self._control.routes.list(tenant, after=after, limit=visit.limit() + 1)
        answer: dict[str, Any] = {"items": [await self._shown(route) for route in found[: visit.limit()]]}
        if len(found) > visit.limit():
            last = found[visit.limit() - 1]
            answer["next_cursor"] = cursors.written((last.domain, last.name))
        return 200, answer

    async def get(self, visit: Visit) -> tuple[int, Any]:
        """Show a route with the state of its targets."""
        domain, name = visit.path("domain"), visit.path("name")
        await self._authorise(visit, f"{domain}/{name}", "get", "read")
        tenant = await tenant_of(visit, self._control.tenants)
        live = await self._book.find(tenant, domain, name)
        if live is None:
            raise _missing(domain, name)
        return 200, {**await self._shown(live.route), "state": state(live)}

    async def put(self, visit: Visit) -> tuple[int, Any]:
        """Make or change a route, when everything it names is there."""
        domain, name = visit.path("domain"), visit.path("name")
        await self._authorise(visit, f"{domain}/{name}", "put", "write")
        body = await visit.body("putRoute")
        tenant = await tenant_of(visit, self._control.tenants)
        is_default, revision = body.pop("default", None), body.pop("revision", None)
        route = msgspec.convert({**body, "tenant": tenant, "domain": domain, "name": name, "revision": ""}, Route)
        await self._check(route)
        stored = await self._control.routes.put(route, revision=revision)
        await self._choose(stored, is_default=is_default)
        detail = {"kind": route.kind, "targets": [f"{one.provider}#{one.connection}" for one in route.targets]}
        journal, target = self._control.journal, f"{domain}/{name}"
        await record(journal, visit, tenant=tenant, action=f"{AREA}.put", target=target, detail=detail)
        return 200, await self._shown(stored)

    async def _choose(self, stored: Route, *, is_default: bool | None) -> None:
        """Make the route the default of its domain, or no longer; None leaves that as it is."""
        if is_default is None:
            return
        connections = self._control.connections
        change = connections.set_domain_default if is_default else connections.clear_domain_default
        await change(stored.tenant, stored.domain, stored.name, "default")

    async def _shown(self, route: Route) -> dict[str, Any]:
        """Return what answers show of a route."""
        facts: dict[str, Any] = msgspec.to_builtins(route)
        chosen = await self._control.connections.domain_default(facts.pop("tenant"), route.domain)
        return {**facts, "default": chosen == (route.name, "default")}

    async def delete(self, visit: Visit) -> tuple[int, Any]:
        """Remove a route."""
        domain, name = visit.path("domain"), visit.path("name")
        await self._authorise(visit, f"{domain}/{name}", "delete", "destructive")
        tenant = await tenant_of(visit, self._control.tenants)
        if not await self._control.routes.delete(tenant, domain, name, revision=visit.query("revision")):
            raise _missing(domain, name)
        journal, target = self._control.journal, f"{domain}/{name}"
        await record(journal, visit, tenant=tenant, action=f"{AREA}.delete", target=target, effect="destructive")
        return 204, None

    # -- what makes a route valid ----------------------------------------------------------------

    async def _check(self, route: Route) -> None:
        domains = self._plans.catalog.domains
        if route.domain not in domains:
            raise unknown("domain", route.domain, domains)
        errors = [*_name_errors(route.name), *shape_errors(route)]
        for index, target in enumerate(route.targets):
            errors += await self._target_errors(route, target, f"/targets/{index}")
        if errors:
            plural = "s" * (len(errors) > 1)
            message = f"The route {route.name[:100]!r} has {len(errors)} error{plural}."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=errors)

    async def _target_errors(self, route: Route, target: RouteTarget, pointer: str) -> list[FieldError]:
        try:
            await self._plans.connection(route.tenant, route.domain, target.provider, target.connection)
        except ProviderError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return [FieldError(pointer, error.message)]
        return []


def _name_errors(name: str) -> list[FieldError]:
    if _NAME.match(name) and len(name) <= LONGEST_NAME:
        return []
    message = "Use small letters and digits with at least one dash between them, as in main-cache: providers have none."
    return [FieldError("/name", message)]


def shape_errors(route: Route) -> list[FieldError]:
    """Return what is wrong with the kind, number and weights of a route's targets, whatever they are."""
    places = [(target.provider, target.connection) for target in route.targets]
    errors = []
    if route.kind == "single" and len(places) > 1:
        errors.append(FieldError("/targets", "A single route has one target."))
    if route.kind != "single" and len(places) == 1:
        errors.append(FieldError("/targets", f"A {route.kind} route has two targets or more."))
    if len(set(places)) < len(places):
        errors.append(FieldError("/targets", "Name every target once."))
    if route.kind == "weighted" and not any(target.weight for target in route.targets):
        errors.append(FieldError("/targets/0/weight", "Give at least one target a weight above 0."))
    return errors


def _missing(domain: str, name: str) -> ProviderError:
    message = f"There is no route {name[:100]!r} in the domain {domain[:100]!r}. GET /routes lists yours."
    return ProviderError(ErrorCode.NOT_FOUND, message)


def state(live: LiveRoute) -> dict[str, Any]:
    """Return what this process knows of a route's targets."""
    targets = [
        {
            "provider": target.provider,
            "connection": target.connection,
            "down": target.is_down,
            "served": target.served,
            "failed": target.failed,
        }
        for target in live.targets
    ]
    if live.route.kind != "shadow":
        return {"targets": targets}
    shadow = {**msgspec.structs.asdict(live.shadow), "differences": list(live.shadow.differences)}
    return {"targets": targets, "shadow": msgspec.to_builtins(shadow)}
