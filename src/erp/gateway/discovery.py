"""``GET /providers``: what there is, what it can do and how that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.responses import Response

from erp.control_plane import cursors
from erp.runtime.catalog import unknown
from erp.runtime.spi import Dependency, Health
from erp.telemetry.call_metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from erp.gateway.endpoint import Visit
    from erp.gateway.standing import Standings
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.plan import PlanBook
    from erp.runtime.pool import ProviderPool
    from erp.runtime.routes import RouteBook
    from erp.telemetry.call_metrics import CallMetrics


class Discovery:
    """Read-only endpoints about providers."""

    def __init__(
        self,
        catalog: ProviderCatalog,
        plans: PlanBook,
        pool: ProviderPool,
        routes: RouteBook,
        metrics: CallMetrics,
        standings: Standings,
    ) -> None:
        self._catalog = catalog
        self._standings = standings
        self._plans = plans
        self._pool = pool
        self._routes = routes
        self._metrics = metrics

    async def providers(self, visit: Visit) -> tuple[int, Any]:
        """List providers, filtered by domain, capability and text, a page at a time."""
        domain = visit.query("domain")
        if domain is not None and domain not in self._catalog.domains:
            raise unknown("domain", domain, self._catalog.domains)
        wanted = self._wanted(domain, visit.query("capability"), visit.query("text"))
        start = cursors.read(visit.query("cursor"), str) or ""
        page = [item for item in wanted if item.ref > start][: visit.limit() + 1]
        items = [self._summary(item) for item in page[: visit.limit()]]
        answer: dict[str, Any] = {"items": items}
        if len(page) > visit.limit():
            answer["next_cursor"] = cursors.written(items[-1]["ref"])
        return 200, answer

    def _wanted(self, domain: str | None, capability: str | None, text: str | None) -> list[ProviderManifest]:
        found = sorted(self._catalog.providers.values(), key=lambda item: item.ref)
        needle = (text or "").lower()
        return [
            item
            for item in found
            if domain in {None, item.domain}
            and (capability is None or capability in item.capabilities)
            and needle in f"{item.ref} {item.title} {item.summary}".lower()
        ]

    async def domain(self, visit: Visit) -> tuple[int, Any]:
        """Describe a domain: its contract and its providers."""
        name = visit.path("domain")
        if name not in self._catalog.domains:
            raise unknown("domain", name, self._catalog.domains)
        contract = self._catalog.domains[name]
        return 200, {
            "domain": name,
            "version": contract["version"],
            "title": contract["title"],
            "summary": contract["summary"],
            "capabilities": contract.get("capabilities", {}),
            "actions": [action_summary(key, value) for key, value in contract["actions"].items()],
            "providers": [self._summary(item) for item in self._catalog.of_domain(name)],
        }

    async def provider(self, visit: Visit) -> tuple[int, Any]:
        """Describe a provider: manifest, configuration schema, actions with schemas, how each is proven."""
        manifest = self._manifest(visit)
        standing = self._standings.of(manifest)
        return 200, {
            **self._summary(manifest),
            "homepage": manifest.homepage,
            "extra": manifest.extra,
            "config_schema": manifest.config,
            "authentication": manifest.authentication,
            "limits": manifest.limits,
            "proof": {name: standing.proof.get(name, "declared") for name in manifest.capabilities},
            "proven": {"server": standing.server, "date": standing.date} if standing.proof else None,
            "evidence": standing.evidence,
            "actions": [
                {
                    **action_summary(action.name, action.contract),
                    "params": action.contract["params"],
                    "result": action.contract["result"],
                    "errors": action.contract.get("errors", []),
                }
                for action in self._catalog.actions_of(manifest)
                if not action.internal
            ],
        }

    async def health(self, visit: Visit) -> tuple[int, Any]:
        """Ask the tenant's connection now, or every target of a route; 503 when it is down."""
        if "-" in visit.path("name"):
            return await self._route_health(visit)
        manifest = self._manifest(visit)
        name = visit.inbound.connection or "default"
        connection = await self._plans.connection(visit.tenant, manifest.domain, manifest.name, name)
        health = await self._pool.health(connection)
        answer = msgspec.to_builtins(health)
        answer["connection"] = name
        answer["breaker"] = self._plans.breaker_state(connection)
        return (503 if health.status == "down" else 200), answer

    async def _route_health(self, visit: Visit) -> tuple[int, Any]:
        """A route works when one of its targets does, and is degraded when another does not."""
        domain, name = visit.path("domain"), visit.path("name")
        live = await self._routes.find(visit.tenant, domain, name)
        if live is None:
            raise unknown(f"route of domain {domain}", name, ())
        places = [(target.provider, target.connection) for target in live.targets]
        asked = [self._plans.connection(visit.tenant, domain, *place) for place in places]
        found = [await self._pool.health(await connection) for connection in asked]
        dependencies = [
            Dependency(name="#".join(place), status=one.status, latency_ms=one.latency_ms, message=one.message)
            for place, one in zip(places, found, strict=True)
        ]
        statuses = {one.status for one in found}
        status: Literal["ok", "degraded", "down"]
        status = "down" if statuses == {"down"} else "ok" if statuses == {"ok"} else "degraded"
        latency = sum(one.latency_ms for one in found)
        health = Health(status=status, latency_ms=latency, dependencies=dependencies)
        return (503 if status == "down" else 200), msgspec.to_builtins(health)

    async def metrics(self, visit: Visit) -> tuple[int, Any]:
        """Return OpenMetrics of this provider and the caller's tenant alone."""
        manifest = self._manifest(visit)
        text = self._metrics.exposition(tenant=visit.tenant, target=manifest.ref)
        return 200, Response(text, media_type=CONTENT_TYPE)

    def _summary(self, manifest: ProviderManifest) -> dict[str, Any]:
        return {**summary(manifest), "quality": self._standings.of(manifest).level}

    def _manifest(self, visit: Visit) -> ProviderManifest:
        return self._catalog.provider(visit.path("domain"), visit.path("name"))


def summary(manifest: ProviderManifest) -> dict[str, Any]:
    """Return what lists show of a provider."""
    return {
        "ref": manifest.ref,
        "domain": manifest.domain,
        "name": manifest.name,
        "title": manifest.title,
        "summary": manifest.summary,
        "version": manifest.version,
        "contract": manifest.contract,
        "stability": manifest.stability,
        "scope": manifest.scope,
        "embedded": manifest.embedded,
        "needs_configuration": manifest.needs_configuration,
        "capabilities": manifest.capabilities,
    }


def action_summary(name: str, contract: dict[str, Any]) -> dict[str, Any]:
    """Return what lists show of an action."""
    shown = ("summary", "effect", "idempotent", "capability", "streaming", "deprecated")
    return {"name": name, **{key: contract[key] for key in shown if key in contract}}
