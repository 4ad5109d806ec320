"""Who a service account is: access tokens for requests, and signatures for links.

Sources: RFC 7523 (JWT bearer grant) as in "Using OAuth 2.0 for server to server applications" (Google), and Cloud Storage,
"Signatures" (V4 signing process with a service account key).
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec

from erp.runtime.spi import ErrorCode, FieldError, ProviderError
from erp.vendor_clients.guarded_http import AnswerLostError, GuardedHttp
from erp.vendor_clients.object_store.failures import Refusal, RefusedError
from erp.vendor_clients.object_store.sigv4 import UNSIGNED, query_text

SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ALGORITHM = "GOOG4-RSA-SHA256"
_LIFE_SECONDS = 3600
_EARLY_SECONDS = 120.0
_OK = 200
_SERVER_ERROR = 500


class KeyFile(msgspec.Struct):
    """What matters of the file that the console gives out."""

    client_email: str
    private_key: str
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105  (an address)


class _Granted(msgspec.Struct):
    access_token: Annotated[str, msgspec.Meta(pattern="^[!-~]{1,8192}$")]  # it goes into headers
    expires_in: int = _LIFE_SECONDS


class ServiceAccount:
    """One service account; its tokens are kept until shortly before they end."""

    def __init__(self, http: GuardedHttp, text: str) -> None:
        """``text`` is the key file.

        Raises:
            ProviderError: ``failed_precondition``: it is not one.
        """
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            self._file = msgspec.json.decode(text, type=KeyFile)
            self._key: Any = load_pem_private_key(self._file.private_key.encode(), password=None)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            message = "The service account key is not a key file."
            wrong = [FieldError("/config/service_account_key", "Give the whole JSON file that the console made.")]
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=wrong) from error
        self._http = http
        self._token = ""
        self._ends = 0.0
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"ServiceAccount({self._file.client_email!r})"

    async def token(self) -> tuple[str, datetime.datetime]:
        """Return an access token and when it should not be used any more.

        Raises:
            RefusedError and the errors of ``guarded_http``: the authorization server gives none.
        """
        async with self._asking:
            if time.time() > self._ends:
                granted = await self._ask()
                self._token, self._ends = granted.access_token, time.time() + granted.expires_in - _EARLY_SECONDS
        return self._token, datetime.datetime.fromtimestamp(self._ends, datetime.UTC)

    async def _ask(self) -> _Granted:
        body = urlencode({"grant_type": _GRANT, "assertion": self._assertion()}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await self._http.send("POST", self._file.token_uri, headers=headers, body=body)
        if answer.status != _OK:  # a refusal is about the account, whatever its status
            raise RefusedError(Refusal(answer.status if answer.status >= _SERVER_ERROR else 401))
        try:
            return msgspec.json.decode(answer.body, type=_Granted)
        except msgspec.MsgspecError as error:
            raise AnswerLostError("The authorization server answered no token.") from error

    def _assertion(self) -> str:
        from joserfc import jwt
        from joserfc.jwk import RSAKey

        now = int(time.time())
        claims = {
            "iss": self._file.client_email,
            "scope": SCOPE,
            "aud": self._file.token_uri,
            "iat": now,
            "exp": now + _LIFE_SECONDS,
        }
        return jwt.encode({"alg": "RS256", "typ": "JWT"}, claims, RSAKey.import_key(self._file.private_key))

    def query(  # the parts of a request
        self, method: str, host: str, path: str, *, seconds: int, headers: Mapping[str, str], now: datetime.datetime
    ) -> str:
        """Return the query that lets anybody send the request, with exactly these headers, for some time."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        moment, signed = now.strftime("%Y%m%dT%H%M%SZ"), {**headers, "host": host}
        scope, names = f"{moment[:8]}/auto/storage/goog4_request", ";".join(sorted(signed))
        query = {
            "X-Goog-Algorithm": _ALGORITHM,
            "X-Goog-Credential": f"{self._file.client_email}/{scope}",
            "X-Goog-Date": moment,
            "X-Goog-Expires": str(seconds),
            "X-Goog-SignedHeaders": names,
        }
        lines = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
        canonical = "\n".join((method, path, query_text(query), lines, names, UNSIGNED))
        text = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signature = self._key.sign(text.encode(), PKCS1v15(), SHA256()).hex()
        return f"{query_text(query)}&X-Goog-Signature={quote(signature)}"
