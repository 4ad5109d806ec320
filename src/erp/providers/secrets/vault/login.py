"""The token that requests carry: got by logging in, renewed in time, given back at the end.

Sources: https://openbao.org/api-docs/auth/approle/, .../auth/kubernetes/, .../auth/jwt/ and .../auth/token/.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from erp.providers.secrets.vault.server import MEANING, Reply, VaultServer, failure
from erp.runtime.spi import Config, ErrorCode, FieldError, ProviderError

_FORBIDDEN, _BAD = 403, 400
_NEEDED = {
    "token": ("token",),
    "approle": ("role_id", "secret_id"),
    "kubernetes": ("role", "jwt"),
    "jwt": ("role", "jwt"),
}
RENEW_AT = 2 / 3
"""Of its life a token is renewed."""
LEAST_SECONDS = 1.0
FAREWELL_SECONDS = 2.0


class Login:
    """Holds one token."""

    def __init__(self, server: VaultServer, config: Config) -> None:
        self._server = server
        self._method = str(config["login"])
        missing = [name for name in _NEEDED[self._method] if not config.get(name)]
        if missing:
            errors = [FieldError(f"/config/{name}", f"The login {self._method} needs it.") for name in missing]
            message = f"The login {self._method} needs {' and '.join(missing)}."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=errors)
        self._fields = {name: config[name] for name in _NEEDED[self._method]}
        self._mount = config.get("login_mount") or self._method
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._renew_at = float("inf")
        self._ends_at = float("inf")
        self._renewing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Login({self._method!r})"

    async def open(self) -> None:
        """Log in, or see that the given token is good.

        Raises:
            ProviderError: ``unauthenticated`` when the server refuses.
        """
        await self.token()
        if self._method == "token" and self._renew_at != float("inf"):
            self._renewing = asyncio.create_task(self._keep(), name="vault token")

    async def token(self) -> str:
        """Return a token that is good now."""
        if self._token is not None and time.monotonic() < self._renew_at:
            return self._token
        async with self._lock:
            if self._token is None or time.monotonic() >= self._renew_at:
                await self._refreshed()
            if self._token is None:
                raise _refused("The server gave no token.")
            return self._token

    async def is_refused(self, token: str) -> bool:
        """Whether the server does not know ``token`` any more; one of ours is then forgotten.

        A refusal by policy and one of the token have the same status; only asking for the token itself tells them apart.
        """
        reply = await self._server.ask("GET", "auth/token/lookup-self", token=token)
        if reply.status != _FORBIDDEN:
            return False
        if self._token == token and self._method != "token":
            self._token = None
        return True

    @property
    def can_log_in_again(self) -> bool:
        """Whether there are credentials to get another token with."""
        return self._method != "token"

    async def _refreshed(self) -> None:
        if self._token is not None and time.monotonic() < self._ends_at and await self._renewed(self._token):
            return
        if self._method == "token":
            await self._looked_up()
        else:
            await self._logged_in()

    async def _logged_in(self) -> None:
        self._token = None
        reply = await self._server.ask("POST", f"auth/{self._mount}/login", self._fields)
        if reply.status in {_BAD, _FORBIDDEN}:
            raise _refused(f"The server refuses the login {self._method}.", reply)
        if not reply.is_ok:
            raise failure(reply)
        self._took(reply.document.get("auth") or {})

    async def _looked_up(self) -> None:
        token = str(self._fields["token"])
        reply = await self._server.ask("GET", "auth/token/lookup-self", token=token)
        if reply.status == _FORBIDDEN:
            raise _refused("The server does not know the token; it is wrong or has expired.", reply)
        if not reply.is_ok:
            raise failure(reply)
        facts = reply.document.get("data") or {}
        seconds = float(facts.get("ttl") or 0) if facts.get("renewable") else 0.0
        self._took({"client_token": token, "lease_duration": seconds, "renewable": facts.get("renewable")})

    async def _renewed(self, token: str) -> bool:
        reply = await self._server.ask("POST", "auth/token/renew-self", {}, token=token)
        auth = reply.document.get("auth") or {}
        if not reply.is_ok or float(auth.get("lease_duration") or 0) < LEAST_SECONDS:
            return False
        self._took({**auth, "client_token": token})
        return True

    def _took(self, auth: dict[str, Any]) -> None:
        seconds = float(auth.get("lease_duration") or 0)
        now = time.monotonic()
        self._token = auth.get("client_token") or None
        # A lease of 0 is a token that does not end, as root tokens are.
        self._renew_at = now + max(seconds * RENEW_AT, LEAST_SECONDS) if seconds else float("inf")
        self._ends_at = now + seconds if seconds else float("inf")

    async def _keep(self) -> None:
        """Renew a token that was given before it ends, also when nobody calls."""
        while self._renew_at != float("inf"):
            await asyncio.sleep(max(self._renew_at - time.monotonic(), LEAST_SECONDS))
            with contextlib.suppress(ProviderError, *MEANING):
                await self.token()

    async def close(self) -> None:
        """Stop renewing; give a token back that was got by logging in."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        token, self._token = self._token, None
        if token is not None and self.can_log_in_again:
            with contextlib.suppress(ProviderError, *MEANING):
                await self._server.ask("POST", "auth/token/revoke-self", {}, token=token, seconds=FAREWELL_SECONDS)


def _refused(message: str, reply: Reply | None = None) -> ProviderError:
    detail = None if reply is None else f"{reply.status} {' '.join(reply.errors)[:300]}"
    return ProviderError(ErrorCode.UNAUTHENTICATED, message, detail=detail)
