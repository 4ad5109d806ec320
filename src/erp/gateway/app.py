"""The ASGI application: calls go straight to ``InvokeRoute``, everything else to Starlette's router."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.gateway.endpoint import Handler, endpoint, problem, unforeseen
from erp.gateway.inbound import Inbound

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from erp.control_plane.directory import Kind
    from erp.gateway.administration import Administration
    from erp.gateway.audit_log import AuditLog
    from erp.gateway.batch import Batch
    from erp.gateway.break_glass import BreakGlass
    from erp.gateway.browser import BrowserSessions, SignIns
    from erp.gateway.certificates import CertificatePages
    from erp.gateway.configuration import Configuration
    from erp.gateway.credentials import Credentials
    from erp.gateway.dead_events import DeadEvents
    from erp.gateway.discovery import Discovery
    from erp.gateway.events import ProviderEvents
    from erp.gateway.invoke import InvokeRoute
    from erp.gateway.links import LinkRoutes
    from erp.gateway.operations import OperationPages
    from erp.gateway.policies import AccessEvaluation, Permissions, Policies
    from erp.gateway.privacy import PrivacyPages
    from erp.gateway.reloading import Reloading
    from erp.gateway.retention import RetentionPages
    from erp.gateway.routing import Routing
    from erp.gateway.saml import SamlProviderPages, SamlRoutes
    from erp.gateway.scim import DirectoryRoles, Scim
    from erp.gateway.secret_schedules import SecretSchedulePages
    from erp.gateway.service_accounts import ServiceAccountPages
    from erp.gateway.status import Status

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]

_RESERVED = frozenset({"health", "configure", "metrics", "events"})


class Gateway:
    """What uvicorn serves."""

    def __init__(self, invoke: InvokeRoute, pages: Starlette) -> None:
        self._invoke = invoke
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] == "http" and scope["method"] == "POST":
            segments = scope["path"][1:].split("/")
            kind, count = segments[0], len(segments)
            if (kind == "providers" and count == 4 and segments[3] not in _RESERVED) or (  # noqa: PLR2004
                kind == "services" and count == 3  # noqa: PLR2004  (the URL's shape)
            ):
                await self._invoke(scope, receive, send, segments)
                return
        await self._pages(scope, receive, send)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What answers behind every URL that is not a call."""

    discovery: Discovery
    configuration: Configuration
    routing: Routing
    operations: OperationPages
    batch: Batch
    events: ProviderEvents
    dead_events: DeadEvents
    reloading: Reloading
    administration: Administration
    saml: SamlRoutes
    saml_providers: SamlProviderPages
    scim: Scim
    directory_roles: DirectoryRoles
    secret_schedules: SecretSchedulePages
    service_accounts: ServiceAccountPages
    certificates: CertificatePages
    policies: Policies
    permissions: Permissions
    audit_log: AuditLog
    break_glass: BreakGlass
    access: AccessEvaluation
    privacy: PrivacyPages
    retention: RetentionPages
    links: LinkRoutes
    sign_ins: SignIns
    sessions: BrowserSessions
    status: Status


def pages(credentials: Credentials, parts: Parts, lifespan: Lifespan | None = None) -> Starlette:
    """Return the application behind every URL that is not a call."""

    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        return Route(path, endpoint(credentials, handler), methods=[method])

    status, links = parts.status, parts.links
    routes = [
        Route("/healthz", status.alive),
        Route("/readyz", status.ready),
        Route("/objects/{token}", links.objects, methods=["GET", "PUT"]),
        Route("/webhooks/{token}", links.webhooks, methods=["GET", "POST", "PUT"]),
        route("/metrics", status.metrics),
        route("/openapi.json", status.openapi),
        route("/asyncapi.json", status.asyncapi),
        route("/providers:reload", parts.reloading.reload, "POST"),
        route("/providers/batch", parts.batch.run, "POST"),
        route("/providers/{domain}/{name}/events", parts.events.listen),
        route("/outbox/dead", parts.dead_events.dead),
        route("/outbox/dead/{event}:requeue", parts.dead_events.requeue, "POST"),
        route("/connections", parts.configuration.all_connections),
        *provider_routes(route, parts.discovery, parts.configuration),
        *routing_routes(route, parts.routing),
        *operation_routes(route, parts.operations),
        *access_routes(route, parts),
        *session_routes(route, parts.sign_ins, parts.sessions),
        *audit_routes(route, parts.audit_log),
        *break_glass_routes(route, parts.break_glass),
        *privacy_routes(route, parts.privacy, parts.retention),
        *administration_routes(route, parts.administration),
        *actor_routes(route, parts),
        *secret_schedule_routes(route, parts.secret_schedules),
        *directory_routes(route, parts.scim, parts.directory_roles),
        *saml_routes(route, parts.saml, parts.saml_providers),
    ]
    handlers = {HTTPException: _http_problem, Exception: _crash}
    made = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    # A slash too many is another place, which is not there: a redirect would be one more answer to document.
    made.router.redirect_slashes = False
    return made


def routing_routes(route: Callable[..., Route], routing: Routing) -> list[Route]:
    """Return the routes about tenants' own names for connections."""
    return [
        route("/routes", routing.routes),
        route("/routes/{domain}/{name}", routing.get),
        route("/routes/{domain}/{name}", routing.put, "PUT"),
        route("/routes/{domain}/{name}", routing.delete, "DELETE"),
    ]


def operation_routes(route: Callable[..., Route], operations: OperationPages) -> list[Route]:
    """Return the routes about calls that nobody waits for."""
    return [
        route("/operations", operations.operations),
        route("/operations/{operation}", operations.get),
        route("/operations/{operation}", operations.cancel, "DELETE"),
    ]


def provider_routes(route: Callable[..., Route], discovery: Discovery, configuration: Configuration) -> list[Route]:
    """Return the routes about providers and a tenant's connections to them."""
    one = "/providers/{domain}/{name}"
    return [
        route("/providers", discovery.providers),
        route("/providers/{domain}", discovery.domain),
        route(one, discovery.provider),
        route(f"{one}/health", discovery.health),
        route(f"{one}/metrics", discovery.metrics),
        route(f"{one}/configure", configuration.configure, "POST"),
        route(f"{one}/configure", configuration.connections),
        route(f"{one}/configure", configuration.remove, "DELETE"),
    ]


def access_routes(route: Callable[..., Route], parts: Parts) -> list[Route]:
    """Return the routes about who may do what."""
    policies, access = parts.policies, parts.access
    return [
        route("/me", parts.permissions.me),
        route("/me/permissions", parts.permissions.permissions),
        route("/policies", policies.revisions),
        route("/policies", policies.put, "PUT"),
        route("/policies:rollback", policies.roll_back, "POST"),
        route("/policies:test", policies.test, "POST"),
        route("/policies:shadow", policies.shadow),
        route("/consents", policies.consents),
        route("/consents/{subject}/{purpose}", policies.record_consent, "PUT"),
        route("/access/v1/evaluation", access.evaluate, "POST"),
        route("/access/v1/evaluations", access.evaluate_all, "POST"),
    ]


def session_routes(route: Callable[..., Route], sign_ins: SignIns, sessions: BrowserSessions) -> list[Route]:
    """Return the routes of people in browsers, and of tokens that end before their time."""
    return [
        Route("/auth/login", sign_ins.login),
        Route("/auth/callback", sign_ins.callback),
        route("/auth/logout", sessions.logout, "POST"),
        route("/auth/sessions", sessions.sessions),
        route("/auth/sessions/{session}", sessions.end, "DELETE"),
        route("/auth/revoke", sessions.revoke, "POST"),
    ]


def audit_routes(route: Callable[..., Route], log: AuditLog) -> list[Route]:
    """Return the routes about proofs of the audit records, and how long those are kept."""
    return [
        route("/audit:export", log.export),
        route("/audit:erase", log.erase, "POST"),
        route("/audit/key", log.keys),
        route("/audit/checkpoints", log.checkpoints),
        route("/audit/checkpoints", log.make_checkpoint, "POST"),
        route("/audit/consistency", log.consistency),
        route("/audit/retention", log.retention),
        route("/audit/retention/{class}", log.set_retention, "PUT"),
        route("/audit/proofs/{seq}", log.inclusion),
    ]


def break_glass_routes(route: Callable[..., Route], break_glass: BreakGlass) -> list[Route]:
    """Return the routes about roles taken on for a limited time."""
    return [
        route("/break-glass", break_glass.elevations),
        route("/break-glass", break_glass.request, "POST"),
        route("/break-glass/rules", break_glass.rules),
        route("/break-glass/rules", break_glass.set_rules, "PUT"),
        route("/break-glass/{elevation}:approve", break_glass.approve, "POST"),
        route("/break-glass/{elevation}:end", break_glass.end, "POST"),
        route("/break-glass/{elevation}", break_glass.report),
    ]


def privacy_routes(route: Callable[..., Route], privacy: PrivacyPages, retention: RetentionPages) -> list[Route]:
    """Return the routes about personal data."""
    return [
        route("/privacy/settings", privacy.settings),
        route("/privacy/settings", privacy.put_settings, "PUT"),
        route("/privacy/reveal", privacy.reveal, "POST"),
        route("/privacy/key", privacy.key),
        route("/privacy/export", privacy.export, "POST"),
        route("/privacy/erasure", privacy.erase, "POST"),
        route("/privacy/retention", retention.policy),
        route("/privacy/retention", retention.put, "PUT"),
        route("/privacy/retention:apply", retention.apply, "POST"),
    ]


def administration_routes(route: Callable[..., Route], administration: Administration) -> list[Route]:
    """Return the routes for administrators."""
    return [
        route("/tenants", administration.tenants),
        route("/tenants", administration.create_tenant, "POST"),
        route("/tenants/{tenant}", administration.tenant),
        route("/tenants/{tenant}", administration.change_tenant, "PATCH"),
        route("/tenants/{tenant}", administration.delete_tenant, "DELETE"),
        route("/keys", administration.keys),
        route("/keys", administration.create_key, "POST"),
        route("/keys/{key}:rotate", administration.rotate_key, "POST"),
        route("/keys/{key}", administration.change_key, "PATCH"),
        route("/keys/{key}", administration.revoke_key, "DELETE"),
        route("/quotas", administration.quotas),
        route("/quotas/{period}", administration.set_quota, "PUT"),
        route("/quotas/{period}", administration.delete_quota, "DELETE"),
        route("/audit", administration.audit),
    ]


def actor_routes(route: Callable[..., Route], parts: Parts) -> list[Route]:
    """Return the routes about actors that are no people."""
    accounts, certificates = parts.service_accounts, parts.certificates
    return [
        route("/service-accounts", accounts.accounts),
        route("/service-accounts", accounts.create, "POST"),
        route("/service-accounts/{account}", accounts.get),
        route("/service-accounts/{account}", accounts.change, "PATCH"),
        route("/service-accounts/{account}", accounts.delete, "DELETE"),
        route("/certificates", certificates.certificates),
        route("/certificates", certificates.register, "POST"),
        route("/certificates/{certificate}", certificates.remove, "DELETE"),
    ]


def secret_schedule_routes(route: Callable[..., Route], schedules: SecretSchedulePages) -> list[Route]:
    """Return the routes about secrets that are rotated by themselves."""
    return [
        route("/secret-schedules", schedules.schedules),
        route("/secret-schedules/{schedule}:run", schedules.run, "POST"),
        route("/secret-schedules/{schedule}", schedules.get),
        route("/secret-schedules/{schedule}", schedules.put, "PUT"),
        route("/secret-schedules/{schedule}", schedules.delete, "DELETE"),
    ]


def saml_routes(route: Callable[..., Route], saml: SamlRoutes, providers: SamlProviderPages) -> list[Route]:
    """Return the routes of people who sign in at an identity provider of SAML."""
    one = "/auth/saml/{tenant}/{provider}"
    return [
        Route(f"{one}/metadata", saml.metadata),
        Route(f"{one}/login", saml.login),
        Route(f"{one}/acs", saml.consume, methods=["POST"]),
        Route(f"{one}/logout", saml.logout),
        Route("/auth/callback/saml", saml.finish),
        route("/saml-providers", providers.providers),
        route("/saml-providers/{provider}", providers.put, "PUT"),
        route("/saml-providers/{provider}", providers.delete, "DELETE"),
    ]


def directory_routes(route: Callable[..., Route], scim: Scim, roles: DirectoryRoles) -> list[Route]:
    """Return the routes by which people and groups are provisioned."""
    described = ("ServiceProviderConfig", "ResourceTypes", "Schemas")
    kinds: tuple[Kind, ...] = ("User", "Group")
    return [
        *(Route(f"/scim/v2/{name}", scim.described(name)) for name in described),
        *(Route(f"/scim/v2/{kind}s", scim.resources(kind), methods=["GET", "POST"]) for kind in kinds),
        *(
            Route(f"/scim/v2/{kind}s/{{id}}", scim.resource(kind), methods=["GET", "PUT", "PATCH", "DELETE"])
            for kind in kinds
        ),
        route("/directory-roles", roles.get),
        route("/directory-roles", roles.put, "PUT"),
    ]


async def _http_problem(request: Request, error: Exception) -> Response:
    """Explain what the router refused: unknown paths and wrong methods."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    inbound = Inbound(request.scope["headers"])
    if status == 405:  # noqa: PLR2004  (Method Not Allowed)
        allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
        message = f"{request.method} is not allowed here. Allowed: {allowed}."
        made = problem(inbound, ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=405), request.url.path)
        made.headers["allow"] = allowed
        return made
    message = f"There is nothing at {request.url.path[:200]}. GET /openapi.json lists what there is."
    return problem(inbound, ProviderError(ErrorCode.NOT_FOUND, message), request.url.path)


async def _crash(request: Request, _: Exception) -> Response:
    """Answer what nobody foresaw (the server logs the exception)."""
    return problem(Inbound(request.scope["headers"]), unforeseen(), request.url.path)
