"""People who sign in at an identity provider of SAML: ``/auth/saml/...``, and who may be one: ``/saml-providers``."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.responses import Response

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.saml import SamlProvider, SamlSettings
from erp.errors import FieldError, ProviderError
from erp.gateway import answers, bodies
from erp.gateway.audit_trail import record
from erp.gateway.browser import CALLBACK, own_path, redirect
from erp.gateway.cookies import cookie
from erp.gateway.endpoint import guarded
from erp.runtime import effects
from erp.runtime.ports import AuditEntry, Completion
from erp.security.pending_sign_in import LIFETIME_SECONDS, Seal, SignInSeal
from erp.security.saml import Place, SamlSignIn
from erp.security.saml_logout import SamlLogout
from erp.security.sign_in_sources import SAML_PREFIX, SamlSource
from erp.vendor_clients.oidc.holder import Holder

if TYPE_CHECKING:
    from starlette.requests import Request

    from erp.control_plane import ControlPlane
    from erp.gateway.browser import BrowserCredentials
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.gateway.inbound import Inbound
    from erp.security.links import SealedLinks
    from erp.security.saml_keys import SamlKeys

MAX_FORM = 256 * 1024
TICKET_SECONDS = 60
FINISH = f"{CALLBACK}/saml"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")


class Ticket(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A response that was accepted, on its way to the browser that has asked for it."""

    tenant: str
    provider: str
    revision: str
    subject: str
    roles: list[str]
    request: str
    expires_at: float
    name_id: str | None = None
    session_index: str | None = None


class SamlRoutes:
    """``metadata``, ``login``, ``acs`` and the way back.

    A response comes in a request of another site, to which browsers add no cookie of ours. So it is checked and used up
    first, and then the browser is sent on with a sealed ticket, to where its cookie proves that it has asked for it.
    """

    def __init__(
        self,
        control: ControlPlane,
        browser: BrowserCredentials,
        seal: SignInSeal,
        links: SealedLinks,
        pepper: bytes,
        keys: SamlKeys,
    ) -> None:
        self._providers = control.saml
        self._journal = control.journal
        self._saml = SamlSignIn(control.saml, control.directory, keys)
        self._logouts = SamlLogout(control.saml, keys)
        self._browser = browser
        self._seal = seal
        self._tickets = Seal(pepper, Ticket, b"erp saml ticket 1")
        self._links = links

    @property
    def metadata(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that describes the layer to an identity provider."""
        return guarded(self._metadata)

    @property
    def login(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that sends the browser to the identity provider."""
        return guarded(self._login)

    @property
    def consume(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint to which the identity provider makes the browser post its response."""
        return guarded(self._consume)

    @property
    def finish(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint at which the session begins."""
        return guarded(self._finish)

    @property
    def logout(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint to which the identity provider sends the browser to end sessions."""
        return guarded(self._logout)

    async def _provider(self, request: Request) -> tuple[SamlProvider, Place]:
        tenant, name = request.path_params["tenant"], request.path_params["provider"]
        found = await self._providers.find(tenant, name)
        if found is None:
            raise ProviderError(ErrorCode.NOT_FOUND, "There is no such identity provider.")
        return found, Place(f"{self._links.public_url}/auth/saml/{tenant}/{name}")

    async def _metadata(self, request: Request, inbound: Inbound) -> Response:
        provider, place = await self._provider(request)
        headers = {name.decode(): value.decode() for name, value in answers.common_headers(inbound)}
        text = await self._saml.metadata(place, provider)
        return Response(text, 200, headers, "application/samlmetadata+xml")

    async def _login(self, request: Request, inbound: Inbound) -> Response:
        return_to = own_path(request.query_params.get("return_to") or "/")
        provider, place = await self._provider(request)
        target, asked = await self._saml.request(place, provider.settings)
        begun = self._seal.begin(provider.tenant, f"{SAML_PREFIX}{provider.name}", provider.revision, return_to)
        pending = msgspec.structs.replace(begun, nonce=asked)
        answer = redirect(inbound, target)
        names = self._browser.names
        sealed = names.set(names.sign_in, self._seal.seal(pending), seconds=LIFETIME_SECONDS, path=CALLBACK)
        answer.headers.append("set-cookie", sealed)
        return answer

    async def _consume(self, request: Request, inbound: Inbound) -> Response:
        provider, place = await self._provider(request)
        response = await _posted(request, inbound)
        try:
            signed_in = await self._saml.accept(place, provider, response)
        except ProviderError as error:
            self._journal.note(_entry(provider.tenant, provider.name, inbound, "nobody", error))
            raise
        ticket = Ticket(
            tenant=provider.tenant,
            provider=provider.name,
            revision=provider.revision,
            subject=signed_in.subject,
            roles=signed_in.roles,
            request=signed_in.request,
            expires_at=time.time() + TICKET_SECONDS,
            name_id=signed_in.name_id,
            session_index=signed_in.session_index,
        )
        return redirect(inbound, f"{FINISH}?ticket={self._tickets.seal(ticket)}")

    async def _finish(self, request: Request, inbound: Inbound) -> Response:
        ticket = self._tickets.open(request.query_params.get("ticket", ""))
        pending = self._seal.open(cookie(inbound.cookie, self._browser.names.sign_in) or "")
        if (
            ticket is None
            or pending is None
            or not hmac.compare_digest(pending.nonce.encode(), ticket.request.encode())
        ):
            _refuse("This browser has begun no such sign-in, or too long ago.")
        name = f"{SAML_PREFIX}{ticket.provider}"
        if (pending.tenant, pending.connection, pending.revision) != (ticket.tenant, name, ticket.revision):
            _refuse("The identity provider was configured otherwise meanwhile. Begin again.")
        holder = Holder(
            subject=ticket.subject, roles=ticket.roles, scopes=[], expires_at=ticket.expires_at, audience=[], claims={}
        )
        source = SamlSource(tenant=ticket.tenant, name=name, revision=ticket.revision)
        user_agent = request.headers.get("user-agent", "")
        secret = await self._browser.sessions.open(
            source,
            holder,
            sign_in=pending.state,
            user_agent=user_agent,
            name_id=ticket.name_id,
            session_index=ticket.session_index,
        )
        entry = _entry(ticket.tenant, ticket.provider, inbound, f"user:{name}:{ticket.subject}", None)
        await self._journal.complete(Completion(audit=entry))
        return await self._browser.welcomed(inbound, secret, pending.return_to)

    async def _logout(self, request: Request, inbound: Inbound) -> Response:
        provider, place = await self._provider(request)
        try:
            asked = await self._logouts.accept(place, provider, request.url.query)
        except ProviderError as error:
            self._journal.note(_entry(provider.tenant, provider.name, inbound, "nobody", error, "end"))
            raise
        name = f"{SAML_PREFIX}{provider.name}"
        source = SamlSource(tenant=provider.tenant, name=name, revision=provider.revision)
        await self._browser.sessions.end_named(source, asked.name_id, asked.session_indexes)
        entry = _entry(provider.tenant, provider.name, inbound, f"user:{name}:{asked.name_id}", None, "end")
        await self._journal.complete(Completion(audit=entry))
        return redirect(inbound, asked.answer)


class SamlProviderPages:
    """Endpoints for administrators: whom the tenant trusts."""

    def __init__(self, control: ControlPlane, credentials: Credentials, keys: SamlKeys) -> None:
        self._control = control
        self._credentials = credentials
        self._keys = keys

    async def _authorise(self, visit: Visit, action: str, effect: str) -> None:
        await self._credentials.authorise(visit.actor, "saml_providers", "*", action, effect)

    async def providers(self, visit: Visit) -> tuple[int, Any]:
        """List the tenant's identity providers."""
        await self._authorise(visit, "list", "read")
        return 200, {"items": [_shown(one) for one in await self._control.saml.list(visit.tenant)]}

    async def put(self, visit: Visit) -> tuple[int, Any]:
        """Trust an identity provider, or change how it is trusted."""
        await self._authorise(visit, "put", "write")
        name, settings = visit.path("provider"), msgspec.convert(await visit.body("putSamlProvider"), SamlSettings)
        _check(name, settings)
        if settings.encryption != "none" or settings.slo_url is not None:
            await self._keys.newest(visit.tenant)
        made = await self._control.saml.put(visit.tenant, name, settings)
        await record(
            self._control.journal, visit, tenant=visit.tenant, action="saml_providers.put", target=name, effect="write"
        )
        return 200, _shown(made)

    async def delete(self, visit: Visit) -> tuple[int, Any]:
        """Trust an identity provider no more."""
        await self._authorise(visit, "delete", "destructive")
        name = visit.path("provider")
        await self._control.saml.delete(visit.tenant, name)
        journal = self._control.journal
        await record(
            journal, visit, tenant=visit.tenant, action="saml_providers.delete", target=name, effect="destructive"
        )
        return 204, None


def _shown(provider: SamlProvider) -> dict[str, Any]:
    facts = msgspec.to_builtins(provider.settings)
    return {"name": provider.name, "tenant": provider.tenant, "revision": provider.revision, **facts}


def _check(name: str, settings: SamlSettings) -> None:
    from cryptography import x509

    wrong = []
    if _NAME.match(name) is None:
        wrong.append(FieldError("/path/provider", "Use lower-case letters, digits, - and _; at most 64."))
    for field, url in (("sso_url", settings.sso_url), ("slo_url", settings.slo_url)):
        if url is not None and (urlsplit(url).scheme != "https" or not urlsplit(url).hostname):
            wrong.append(FieldError(f"/{field}", "Use an https URL."))
    for number, text in enumerate(settings.certificates):
        try:
            x509.load_pem_x509_certificate(text.encode())
        except ValueError:
            wrong.append(FieldError(f"/certificates/{number}", "Use a certificate in PEM form."))
    if wrong:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The identity provider cannot be like this.", errors=wrong)


async def _posted(request: Request, inbound: Inbound) -> str:
    """Return the ``SAMLResponse`` of a form."""
    body = await bodies.read(inbound, request.receive)
    if len(body) > MAX_FORM:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, f"The form is larger than {MAX_FORM} bytes.", status=413)
    found = parse_qs(body.decode("latin-1"), max_num_fields=20).get("SAMLResponse", []) if body else []
    if len(found) != 1:
        errors = [FieldError("/SAMLResponse", "Send one, in a form.")]
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The form has no response.", errors=errors)
    return found[0]


def _entry(
    tenant: str, provider: str, inbound: Inbound, actor: str, error: ProviderError | None, action: str = "open"
) -> AuditEntry:
    return AuditEntry(
        tenant=tenant,
        actor=actor,
        action=f"sessions.{action}",
        target=f"{SAML_PREFIX}{provider}",
        outcome="ok" if error is None else error.code.value,
        reason="done" if error is None else (error.detail or error.message),
        request_id=inbound.request_id,
        time=effects.now(),
        effect="write",
        traceparent=inbound.traceparent,
    )


def _refuse(message: str) -> NoReturn:
    raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
