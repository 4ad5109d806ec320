"""The platform's own access tokens: short-lived, narrower than what they were made from, and dead when that dies.

Signed JWTs by the profile of RFC 9068 (``typ: at+jwt``), with Ed25519 (RFC 8037, RFC 9864). Every tenant has signing
keys of its own, kept as versions of a secret: a token cannot outlive its tenant, and no tenant's key signs for another.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.ports import SecretVault

ISSUER = "urn:erp:platform"
GATEWAY = "urn:erp:gateway"
"""The audience of tokens that the gateway takes."""
ALGORITHM: Final = "Ed25519"
TYPE = "at+jwt"
LIFETIME_SECONDS = 900
SKEW_SECONDS = 30
"""How far clocks of hosts that issue and check may be apart."""
SIGNING_KEYS = "identity/signing-keys"

_KEY_ID = re.compile(r"([a-z][a-z0-9-]{1,62})\.([0-9]{1,9})\Z")
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


class Claims(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a token says (RFC 9068, section 2.2; ``act``: RFC 8693, section 4.1)."""

    iss: str
    sub: str
    aud: str
    exp: int
    iat: int
    jti: str
    client_id: str
    """The API key that it comes from in the end."""
    tenant: str
    roles: list[str]
    scope: str = ""
    act: dict[str, str] | None = None


_START = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZDI1NTE5Iiwia2lkIjoi"
"""The header of every token of ours up to its key id, as ``issue`` writes it: 39 bytes, 52 characters."""


def is_own(text: str) -> bool:
    """Whether ``text`` says that it is a token of the platform; nothing is verified yet."""
    return text.startswith(_START) and _place_of(text) is not None


def looks_like_token(text: str) -> bool:
    """Whether ``text`` has the form of a signed token (RFC 7515, compact serialization)."""
    return _COMPACT.match(text) is not None


class Tokens:
    """Issues and checks the tokens of all tenants."""

    def __init__(self, vault: SecretVault, *, clock: Callable[[], float] = time.time) -> None:
        self._vault = vault
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._newest: dict[str, int] = {}
        self._making = asyncio.Lock()

    async def issue(
        self,
        tenant: str,
        *,
        subject: str,
        client_id: str,
        roles: Sequence[str],
        scopes: Sequence[str],
        audience: str,
        seconds: float,
        actor: str | None = None,
    ) -> tuple[str, Claims]:
        """Return a signed token that is good for ``seconds`` at most, and what it says."""
        from joserfc import jwt

        now = int(self._clock())
        claims = Claims(
            iss=ISSUER,
            sub=subject,
            aud=audience,
            exp=now + int(min(seconds, LIFETIME_SECONDS)),
            iat=now,
            jti=secrets.token_urlsafe(16),
            client_id=client_id,
            tenant=tenant,
            roles=sorted(roles),
            scope=" ".join(sorted(scopes)),
            act=None if actor is None else {"sub": actor},
        )
        version = await self._newest_version(tenant)
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": f"{tenant}.{version}"}
        key = await self._key(tenant, version)
        return jwt.encode(header, msgspec.to_builtins(claims), key, algorithms=[ALGORITHM]), claims

    async def check(self, token: str) -> Claims | None:
        """Return what a token says when it is ours, untouched and within its time; else None, never why."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        place = _place_of(token)
        if place is None:
            return None
        try:
            key = await self._key(*place)
            found = jwt.decode(token, key, algorithms=[ALGORITHM])
            claims = msgspec.convert(found.claims, Claims)
        except (JoseError, ValueError, msgspec.ValidationError):
            return None
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            raise
        return claims if self._holds(found.header, claims, place[0]) else None

    def _holds(self, header: Mapping[str, Any], claims: Claims, tenant: str) -> bool:
        now = self._clock()
        return (
            header.get("typ") == TYPE
            and claims.iss == ISSUER
            and claims.tenant == tenant
            and claims.iat <= now + SKEW_SECONDS
            and now < claims.exp <= claims.iat + LIFETIME_SECONDS
        )

    async def rotate(self, tenant: str) -> str:
        """Sign with a new key from now on; tokens of earlier keys stay good for their time. Return its id."""
        from joserfc.jwk import OKPKey

        made = OKPKey.generate_key(ALGORITHM)
        text = msgspec.json.encode(made.as_dict(private=True)).decode()
        version = await self._vault.put(tenant, SIGNING_KEYS, text)
        self._newest[tenant] = version
        return f"{tenant}.{version}"

    async def _newest_version(self, tenant: str) -> int:
        known = self._newest.get(tenant)
        if known is None:
            versions = await self._vault.versions(tenant, SIGNING_KEYS)
            known = max((one.version for one in versions if one.state == "current"), default=0)
        if not known:
            async with self._making:
                if tenant not in self._newest:
                    await self.rotate(tenant)
            known = self._newest[tenant]
        self._newest[tenant] = known
        return known

    async def _key(self, tenant: str, version: int) -> Any:
        from joserfc.jwk import OKPKey

        name = f"{tenant}.{version}"
        if name not in self._keys:
            text = await self._vault.get(tenant, SIGNING_KEYS, version)
            self._keys[name] = OKPKey.import_key(msgspec.json.decode(text))
        return self._keys[name]


def _place_of(token: str) -> tuple[str, int] | None:
    """Return tenant and version of the key that ``token`` says it is signed with (nothing is trusted yet)."""
    from joserfc import jws
    from joserfc.errors import JoseError

    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError):
        return None
    match = _KEY_ID.match(str(header.get("kid")))
    return (match[1], int(match[2])) if match and header.get("alg") == ALGORITHM else None
