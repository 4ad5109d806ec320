"""People in browsers: sign in at the tenant's issuer, use the gateway with a cookie, see and end sessions."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.responses import Response

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.errors import FieldError, ProviderError
from erp.gateway import answers
from erp.gateway.audit_trail import record
from erp.gateway.cookies import CookieNames, cookie
from erp.gateway.endpoint import guarded, reply
from erp.runtime import effects
from erp.runtime.ports import AuditEntry, Completion
from erp.security.pending_sign_in import LIFETIME_SECONDS, PendingSignIn
from erp.vendor_clients.oidc import sign_in
from erp.vendor_clients.oidc.failures import IssuerRefusedError, IssuerUnavailableError, TokenRefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

    from erp.control_plane.sessions import StoredSession
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.gateway.inbound import Inbound
    from erp.runtime.context import Actor
    from erp.runtime.ports import Journal
    from erp.security.issuers import IssuerIdentity
    from erp.security.links import SealedLinks
    from erp.security.pending_sign_in import SignInSeal
    from erp.security.sessions import Sessions
    from erp.security.trust import Trust, Trusted

AREA = "sessions"
CALLBACK = "/auth/callback"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,1023}")
_ERROR = re.compile(r"[a-z_]{1,64}")


class BrowserCredentials:
    """Who sends a request that carries the cookie of a session."""

    def __init__(self, sessions: Sessions, links: SealedLinks) -> None:
        self.sessions = sessions
        self._links = links

    @property
    def names(self) -> CookieNames:
        """How the cookies are called at the address where browsers reach the gateway."""
        return CookieNames(self._links.public_url.startswith("https://"))

    async def actor(self, inbound: Inbound, method: str) -> Actor | None:
        """Return whose session it is; None when there is no cookie of one.

        Raises:
            ProviderError: ``unauthenticated`` when the session is over; ``permission_denied`` for a change that no page
                of ours has asked for.
        """
        secret = cookie(inbound.cookie, self.names.session)
        if secret is None:
            return None
        session = await self.sessions.find(secret)
        if session is None:
            raise ProviderError(ErrorCode.UNAUTHENTICATED, "The session is over. Sign in again at GET /auth/login.")
        if method not in SAFE_METHODS:
            self._check_origin(inbound, secret)
        return session.actor

    async def welcomed(self, inbound: Inbound, secret: str, return_to: str) -> Response:
        """Return the answer that gives a browser the session it has just got."""
        names = self.names
        previous = cookie(inbound.cookie, names.session)
        if previous is not None:
            await self._end(previous)
        answer = redirect(inbound, return_to)
        longest = self.sessions.settings.longest_seconds
        for text in (
            names.set(names.session, secret, seconds=longest),
            names.set(names.csrf, self.sessions.csrf_token(secret), seconds=longest, is_readable=True),
            names.set(names.sign_in, "", seconds=0, path=CALLBACK),
        ):
            answer.headers.append("set-cookie", text)
        return answer

    async def _end(self, secret: str) -> None:
        """A browser has one session: whoever put an earlier one there does not share the new one."""
        session = await self.sessions.find(secret)
        if session is not None:
            await self.sessions.end(session.actor.tenant, session.id)

    def _check_origin(self, inbound: Inbound, secret: str) -> None:
        """Refuse what another site makes the browser send (CSRF)."""
        if inbound.fetch_site in {"cross-site", "same-site"}:
            raise ProviderError(ErrorCode.PERMISSION_DENIED, "The request comes from another site.")
        if not self.sessions.is_csrf_token(secret, inbound.csrf):
            message = f"Send the value of the cookie {self.names.csrf} as X-CSRF-Token."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)


class SignIns:
    """``/auth/login`` and ``/auth/callback``."""

    def __init__(
        self, browser: BrowserCredentials, trust: Trust, seal: SignInSeal, links: SealedLinks, journal: Journal
    ) -> None:
        self._browser = browser
        self._trust = trust
        self._seal = seal
        self._links = links
        self._journal = journal

    @property
    def login(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that sends the browser to the issuer."""
        return guarded(self._login)

    @property
    def callback(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that the issuer sends the browser back to."""
        return guarded(self._callback)

    @property
    def _redirect_uri(self) -> str:
        return f"{self._links.public_url}{CALLBACK}"

    async def _login(self, request: Request, inbound: Inbound) -> Response:
        query = request.query_params
        return_to = own_path(query.get("return_to") or "/")
        trusted = await self._chosen(query.get("tenant") or "", query.get("issuer"))
        pending = self._seal.begin(trusted.tenant, trusted.name, trusted.revision, return_to)
        try:
            target = await sign_in.authorization_url(
                await self._trust.issuer(trusted),
                redirect_uri=self._redirect_uri,
                state=pending.state,
                nonce=pending.nonce,
                verifier=pending.verifier,
            )
        except IssuerUnavailableError as error:
            raise _unavailable(error) from error
        answer = redirect(inbound, target)
        names = self._browser.names
        sealed = names.set(names.sign_in, self._seal.seal(pending), seconds=LIFETIME_SECONDS, path=CALLBACK)
        answer.headers.append("set-cookie", sealed)
        return answer

    async def _chosen(self, tenant: str, name: str | None) -> Trusted:
        """Return the issuer that is named, or the only one there is."""
        found = await self._trust.of_tenant(tenant)
        named = [one for one in found if name is None or one.name == name]
        if len(named) != 1:
            message = "There is no such issuer. Name the tenant and, when it has several issuers, the connection: ?tenant=&issuer=."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return named[0]

    async def _callback(self, request: Request, inbound: Inbound) -> Response:
        query, names = request.query_params, self._browser.names
        pending = self._seal.open(cookie(inbound.cookie, names.sign_in) or "")
        if pending is None or not hmac.compare_digest(pending.state.encode(), query.get("state", "").encode()):
            _refuse("This browser has begun no such sign-in, or too long ago.")
        try:
            secret = await self._signed_in(pending, request, inbound)
        except ProviderError as error:
            await self._keep(pending, inbound, "", error)
            raise
        return await self._browser.welcomed(inbound, secret, pending.return_to)

    async def _signed_in(self, pending: PendingSignIn, request: Request, inbound: Inbound) -> str:
        query = request.query_params
        trusted = await self._trust.named(pending.tenant, pending.connection)
        if trusted is None or trusted.revision != pending.revision:
            _refuse("The issuer was configured otherwise meanwhile. Begin again.")
        try:
            issuer = await self._trust.issuer(trusted)
            await sign_in.check_stated_issuer(issuer, query.get("iss"))
            if "code" not in query:
                stated = query.get("error", "")
                _refuse(f"The issuer did not sign you in: {stated if _ERROR.fullmatch(stated) else 'no reason given'}.")
            holder = await sign_in.redeemed(
                issuer,
                code=query["code"],
                redirect_uri=self._redirect_uri,
                verifier=pending.verifier,
                nonce=pending.nonce,
            )
        except (TokenRefusedError, IssuerRefusedError) as error:
            message = "The sign-in is not valid. Begin again."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message, detail=str(error)) from error
        except IssuerUnavailableError as error:
            raise _unavailable(error) from error
        user_agent = request.headers.get("user-agent", "")
        secret = await self._browser.sessions.open(trusted, holder, sign_in=pending.state, user_agent=user_agent)
        await self._keep(pending, inbound, f"user:{trusted.name}:{holder.subject}", None)
        return secret

    async def _keep(self, pending: PendingSignIn, inbound: Inbound, actor: str, error: ProviderError | None) -> None:
        audit = AuditEntry(
            tenant=pending.tenant,
            actor=actor or "nobody",
            action=f"{AREA}.open",
            target=pending.connection,
            outcome="ok" if error is None else error.code.value,
            reason="done" if error is None else error.message,
            request_id=inbound.request_id,
            time=effects.now(),
            effect="write",
            traceparent=inbound.traceparent,
        )
        if error is None:
            await self._journal.complete(Completion(audit=audit))
        else:
            self._journal.note(audit)


class BrowserSessions:
    """``/auth/logout``, ``/auth/sessions`` and ``/auth/revoke``."""

    def __init__(
        self,
        browser: BrowserCredentials,
        trust: Trust,
        issuers: IssuerIdentity,
        links: SealedLinks,
        journal: Journal,
        credentials: Credentials,
    ) -> None:
        self._browser = browser
        self._trust = trust
        self._issuers = issuers
        self._links = links
        self._journal = journal
        self._credentials = credentials

    async def logout(self, visit: Visit) -> tuple[int, Any]:
        """End the session of the request's cookie; say where the browser signs out of the issuer too."""
        secret = cookie(visit.inbound.cookie, self._browser.names.session)
        session = None if secret is None else await self._browser.sessions.find(secret)
        if session is None or session.actor != visit.actor:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The request carries no session that could end.")
        await self._browser.sessions.end(visit.tenant, session.id)
        await record(self._journal, visit, tenant=visit.tenant, action=f"{AREA}.end", target=session.id)
        answer = reply(visit.inbound, 200, {"logout_url": await self._logout_url(visit.tenant, session.connection)})
        names = self._browser.names
        answer.headers.append("set-cookie", names.set(names.session, "", seconds=0))
        answer.headers.append("set-cookie", names.set(names.csrf, "", seconds=0, is_readable=True))
        return 200, answer

    async def _logout_url(self, tenant: str, connection: str) -> str | None:
        trusted = await self._trust.named(tenant, connection)
        if trusted is None:
            return None
        try:
            return await sign_in.logout_url(await self._trust.issuer(trusted), back_to=f"{self._links.public_url}/")
        except IssuerUnavailableError:
            return None  # The session here is over all the same.

    async def sessions(self, visit: Visit) -> tuple[int, Any]:
        """List one's own sessions, or with ``?all=true`` those of the tenant."""
        own = own_of(visit.actor)
        if visit.query("all") == "true" or own is None:
            await self._credentials.authorise(visit.actor, AREA, "*", "list", "read")
            own = None
        secret = cookie(visit.inbound.cookie, self._browser.names.session)
        current = None if secret is None else await self._browser.sessions.find(secret)
        found, cursor = await self._browser.sessions.list(
            visit.tenant, subject=own, cursor=visit.query("cursor"), limit=visit.limit()
        )
        items = [_shown(one, is_current=current is not None and current.id == one.id) for one in found]
        return 200, {"items": items, **({"next_cursor": cursor} if cursor else {})}

    async def end(self, visit: Visit) -> tuple[int, Any]:
        """End a session: one's own, or as administrator any of the tenant."""
        id_ = visit.path("session")
        own = own_of(visit.actor)
        ended = None if own is None else await self._browser.sessions.end(visit.tenant, id_, subject=own)
        if ended is None:
            await self._credentials.authorise(visit.actor, AREA, "*", "end", "destructive")
            ended = await self._browser.sessions.end(visit.tenant, id_)
        if ended is None:
            raise ProviderError(ErrorCode.NOT_FOUND, "There is no such session. GET /auth/sessions lists them.")
        await record(self._journal, visit, tenant=visit.tenant, action=f"{AREA}.end", target=id_, effect="destructive")
        return 204, None

    async def revoke(self, visit: Visit) -> tuple[int, Any]:
        """Refuse a token of an issuer from now on. Who has it may do that."""
        body = await visit.body("revokeToken")
        told = await self._issuers.revoke(visit.tenant, body["token"])
        await record(self._journal, visit, tenant=visit.tenant, action="tokens.revoke", target="token")
        return 200, {"issuer_told": told}


def own_of(actor: Actor) -> tuple[str, str] | None:
    """Return connection and subject of a person; None for everybody else."""
    if actor.kind != "user":
        return None
    _, connection, subject = actor.id.split(":", 2)
    return connection, subject


def own_path(text: str) -> str:
    """Return a path of the gateway to go to after a sign-in.

    Raises:
        ProviderError: ``invalid_argument`` for anything that could lead elsewhere (open redirect).
    """
    if not _OWN_PATH.fullmatch(text):
        error = FieldError("/query/return_to", "Use a path of this address that begins with one slash.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "return_to leads elsewhere.", errors=[error])
    return text


def _shown(session: StoredSession, *, is_current: bool) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": f"user:{session.connection}:{session.subject}",
        "issuer": session.connection,
        "user_agent": session.user_agent,
        "created_at": moments.text(session.created_at),
        "last_seen_at": moments.text(session.seen_at),
        "ends_at": moments.text(session.ends_at),
        "current": is_current,
    }


def redirect(inbound: Inbound, target: str) -> Response:
    """Return an answer that sends a browser on."""
    headers = {name.decode(): value.decode() for name, value in answers.common_headers(inbound)}
    return Response(status_code=303, headers={**headers, "location": target, "referrer-policy": "no-referrer"})


def _unavailable(error: Exception) -> ProviderError:
    message = "The issuer cannot be asked now, or not as it is configured."
    return ProviderError(ErrorCode.UNAVAILABLE, message, detail=str(error), retry_after_seconds=5.0)


def _refuse(message: str) -> NoReturn:
    raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
