"""An issuer that does what a real one never would: rotate at once, fail at once, sign anything with any key.

What a real OpenID Provider does is shown on one (``ERP_TEST_OIDC``).
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jws, jwt
from joserfc.jwk import Key, KeySet, RSAKey

AUDIENCE = "https://erp.example"
CLIENT = "gateway"


_spare_keys: list[RSAKey] = []
"""Of issuers that are gone, for the next: finding primes takes as long as a test. No two issuers share one at a time."""


class IssuerDouble:
    """Where it is, what it publishes, what it was asked."""

    def __init__(self) -> None:
        self.issuer = ""
        self.first_key = _spare_keys.pop() if _spare_keys else RSAKey.generate_key(2048, {"kid": "first"})
        self.keys: list[Key] = [self.first_key]
        self.published: list[dict[str, Any]] | None = None
        """Other keys than those that sign."""
        self.down = False
        self.metadata: dict[str, Any] = {}
        """What the discovery document says otherwise."""
        self.codes: dict[str, dict[str, Any]] = {}
        """Authorization code -> claims of its ID token."""
        self.verifiers: list[str] = []
        self.userinfo: dict[str, Any] | None = None
        """What it says of the person who has signed in; None: the token is not good for it."""
        self.opaque: dict[str, dict[str, Any]] = {}
        self.asked: Counter[str] = Counter()
        self.forms: list[dict[str, str]] = []

    def config(self, **more: Any) -> dict[str, Any]:
        """The configuration of a connection of ``auth/oidc``."""
        roles = {"role_map": {"erp-user": "developer", "erp-admin": "admin"}}
        return {"issuer": self.issuer, "audience": AUDIENCE, "client_id": CLIENT, "client_secret": "s", **roles, **more}

    def claims(self, **more: Any) -> dict[str, Any]:
        """What a good access token says; None leaves a claim out."""
        now = int(time.time())
        found = {"iss": self.issuer, "sub": "ada", "aud": AUDIENCE, "iat": now, "exp": now + 600, "roles": ["erp-user"]}
        return {name: value for name, value in {**found, **more}.items() if value is not None}

    def token(self, key: Key | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """An access token; ``key`` and ``header`` as an attacker would choose them."""
        head = {"alg": "RS256", "typ": "at+jwt", "kid": "first", **(header or {})}
        wanted = {name: value for name, value in head.items() if value is not None}
        registry = jws.JWSRegistry(algorithms=[str(head["alg"])], strict_check_header=False)
        return jwt.encode(wanted, self.claims(**claims), key or self.keys[0], registry=registry, default_type=None)

    def _discovery(self) -> dict[str, Any]:
        names = ("authorization", "token", "userinfo", "introspection", "revocation", "end_session")
        endpoints = {f"{name}_endpoint": f"{self.issuer}/{name}" for name in names}
        return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks", **endpoints, **self.metadata}

    def answer(self, path: str, form: dict[str, str]) -> tuple[int, Any]:
        """Answer a request."""
        self.asked[path] += 1
        if self.down:
            return 503, {}
        if path == "/.well-known/openid-configuration":
            return 200, self._discovery()
        if path == "/jwks":
            return 200, {"keys": self.published} if self.published is not None else KeySet(list(self.keys)).as_dict()
        self.forms.append(form)
        return self._answered(path, form)

    def _answered(self, path: str, form: dict[str, str]) -> tuple[int, Any]:
        if path == "/userinfo":
            return (401, {"error": "invalid_token"}) if self.userinfo is None else (200, self.userinfo)
        if path == "/introspection":
            return 200, self.opaque.get(form["token"], {"active": False})
        if path == "/revocation":
            self.opaque.pop(form["token"], None)
            return 200, {}
        return self._redeemed(form) if path == "/token" else (404, {})

    def _redeemed(self, form: dict[str, str]) -> tuple[int, Any]:
        claims = self.codes.pop(form.get("code", ""), None)
        if claims is None:
            return 400, {"error": "invalid_grant"}
        self.verifiers.append(form["code_verifier"])
        id_token = self.token(header={"typ": "JWT"}, **{"aud": CLIENT, **claims})
        return 200, {"access_token": "a", "token_type": "Bearer", "id_token": id_token}


@contextmanager
def issuer_double() -> Iterator[IssuerDouble]:
    """Run one for the length of a block."""
    double = IssuerDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            status, document = double.answer(urlsplit(self.path).path, form)
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer  # noqa: N815  (the names that http.server calls)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    double.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        _spare_keys.append(double.first_key)
