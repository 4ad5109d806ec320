"""A double of Vault and OpenBao: key-value engine, version 2, transit, AppRole, JWT and Kubernetes logins, tokens that end.

Every answer follows the published API (https://openbao.org/api-docs/: index, secret/kv/kv-v2, secret/transit,
auth/approle, auth/jwt, auth/token, system/health) and is held against the OpenAPI document that the vendor publishes
(``vault_published``) before it is given: one that breaks it becomes a 500, and ``Double.close`` raises. What a test sets
as ``fault`` stands for a server that misbehaves, and is given as it is. The independent client ``hvac`` is driven
against it, too. Run it:
``python -m tests.support.vault_double PORT`` prints its address with a token.
"""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.support.vault_published import Published

NO_END = 0
MOST_VERSIONS = 10
ROLE_ID, SECRET_ID, JWT = "not-a-real-role-id", "not-a-real-secret-id", "not.a.jwt"

Answer = tuple[int, dict[str, Any] | None]


def now() -> str:
    """Return the time as Go writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"


class Vault:
    """What the server knows. One namespace beside the root, called ``team``."""

    def __init__(self) -> None:
        self.root_token = f"hvs.{secrets.token_hex(12)}"
        self.tokens: dict[str, tuple[float, float]] = {self.root_token: (NO_END, NO_END)}
        self.ttl_seconds = 1200.0
        self.secrets: dict[str, dict[str, Any]] = {}
        self.transit: dict[str, bytes] = {}
        self.fault: Answer | None = None
        self.fault_headers: dict[str, str] = {}
        self.is_sealed = False
        self.is_standby = False
        self.active_address: str | None = None
        self.asked: list[tuple[str, str]] = []
        self.published = Published()
        self._given: Answer | None = None  # of ``fault``, which a test may change while this one is on its way
        self._lock = threading.Lock()

    def answer(self, method: str, target: str, body: Any, headers: Any) -> Answer:
        url = urlsplit(target)
        path, query = unquote(url.path.removeprefix("/v1/")), {k: v[0] for k, v in parse_qs(url.query).items()}
        with self._lock:
            self.asked.append((method, path))
            if method == "GET" and query.get("list") == "true":
                method = "LIST"
            found = self._found(method, path, query, body, headers)
            problem = None if found is self._given else self.published.check(method, path, *found)
        return found if problem is None else (500, {"errors": [f"The double breaks the published document: {problem}"]})

    def _found(  # noqa: PLR0911  (one per rule)
        self, method: str, path: str, query: dict[str, str], body: Any, headers: Any
    ) -> Answer:
        if path == "sys/health":
            return self._health(query)
        if self.is_sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if (fault := self.fault) is not None and not path.startswith("auth/"):
            self._given = fault
            return fault
        if path.startswith("auth/") and path.endswith("/login"):
            return self._login(path, body)
        token = headers.get("x-vault-token") or ""
        if not self._is_good(token):
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        if path.startswith("auth/token/"):
            return self._token(path, token)
        space = headers.get("x-vault-namespace") or ""
        return self._engine(method, path, query, body, space)

    def _health(self, query: dict[str, str]) -> Answer:
        status = 503 if self.is_sealed else 429 if self.is_standby and query.get("standbyok") != "true" else 200
        facts = {"initialized": True, "sealed": self.is_sealed, "standby": self.is_standby, "version": "2.0.0"}
        return status, {**facts, "server_time_utc": int(time.time()), "cluster_name": "double"}

    def _is_good(self, token: str) -> bool:
        ends = self.tokens.get(token)
        return ends is not None and (ends[0] == NO_END or ends[0] > time.monotonic())

    def _login(self, path: str, body: Any) -> Answer:
        method = path.split("/")[1]
        wanted = {
            "approle": {"role_id": ROLE_ID, "secret_id": SECRET_ID},
            "jwt": {"role": "erp", "jwt": JWT},
            "kubernetes": {"role": "erp", "jwt": JWT},
        }.get(method)
        if wanted is None:
            return 403, {"errors": ["permission denied"]}
        if body != wanted:
            return 400, {"errors": ["invalid role or secret ID"]}
        token = f"hvs.{secrets.token_hex(12)}"
        self.tokens[token] = (time.monotonic() + self.ttl_seconds, self.ttl_seconds)
        return 200, {**_envelope(), "auth": self._auth(token)}

    def _auth(self, token: str) -> dict[str, Any]:
        seconds = self.tokens[token][1]
        return {
            "client_token": token,
            "accessor": "fd6c9a00",
            "policies": ["default"],
            "token_policies": ["default"],
            "metadata": None,
            "lease_duration": int(seconds),
            "renewable": seconds != NO_END,
        }

    def _token(self, path: str, token: str) -> Answer:
        ends, ttl = self.tokens[token]
        if path.endswith("lookup-self"):
            left = 0 if ends == NO_END else int(ends - time.monotonic())
            return 200, {**_envelope(), "data": {"id": token, "ttl": left, "renewable": ttl != NO_END}}
        if path.endswith("renew-self"):
            if ends == NO_END:
                return 400, {"errors": ["lease is not renewable"]}
            self.tokens[token] = (time.monotonic() + ttl, ttl)
            return 200, {**_envelope(), "auth": self._auth(token)}
        if path.endswith("revoke-self"):
            del self.tokens[token]
            return 204, None
        return 404, {"errors": []}

    def _engine(self, method: str, path: str, query: dict[str, str], body: Any, space: str) -> Answer:
        if path.startswith("transit/"):
            return self._transit(method, path.removeprefix("transit/"), body)
        mount, _, rest = path.partition("/")
        kind, _, name = rest.partition("/")
        if mount != "secret" or kind not in {"data", "metadata", "delete", "undelete", "destroy"}:
            return 404, {"errors": [f'no handler for route "{path}". route entry not found.']}
        if name.endswith("."):
            return 404, {"errors": ["1 error occurred:\n\t* unsupported path\n\n"]}
        key = f"{space.strip('/')}|{name}"
        handler = getattr(self, f"_{kind}_{method.lower().replace('put', 'post')}", None)
        if handler is None:
            return 405, {"errors": ["1 error occurred:\n\t* unsupported operation\n\n"]}
        found: Answer = handler(key, query, body)
        return found

    def _transit(self, method: str, path: str, body: Any) -> Answer:
        """The engine that encrypts (https://openbao.org/api-docs/secret/transit/): keys of AES-256-GCM, version 1."""
        action, _, name = path.partition("/")
        key = self.transit.get(name)
        if action == "keys" and method == "POST":
            key = self.transit.setdefault(name, AESGCM.generate_key(256))
        if action == "keys":
            facts = {"name": name, "type": "aes256-gcm96", "supports_encryption": True, "latest_version": 1}
            return (404, {"errors": []}) if key is None else (200, {**_envelope(), "data": facts})
        if key is None or action not in {"encrypt", "decrypt"}:
            return 400, {"errors": ["encryption key not found"]}
        bound = base64.b64decode(body.get("associated_data") or "")
        if action == "encrypt":
            nonce = secrets.token_bytes(12)
            sealed = nonce + AESGCM(key).encrypt(nonce, base64.b64decode(body["plaintext"]), bound)
            text = f"vault:v1:{base64.b64encode(sealed).decode()}"
            return 200, {**_envelope(), "data": {"ciphertext": text, "key_version": 1}}
        try:
            sealed = base64.b64decode(body["ciphertext"].removeprefix("vault:v1:"), validate=True)
            opened = AESGCM(key).decrypt(sealed[:12], sealed[12:], bound)
        except (InvalidTag, ValueError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {**_envelope(), "data": {"plaintext": base64.b64encode(opened).decode()}}

    def _data_post(self, key: str, query: Any, body: Any) -> Answer:
        entry = self.secrets.setdefault(key, _entry())
        expected = (body.get("options") or {}).get("cas")
        if expected is not None and int(expected) != entry["current_version"]:
            if not entry["versions"]:
                del self.secrets[key]
            return 400, {"errors": ["check-and-set parameter did not match the current version"]}
        number = entry["current_version"] = entry["current_version"] + 1
        entry["versions"][number] = {
            "created_time": now(),
            "deletion_time": "",
            "destroyed": False,
            "data": body["data"],
        }
        entry["updated_time"] = now()
        for old in sorted(entry["versions"])[: -(entry["max_versions"] or MOST_VERSIONS)]:
            del entry["versions"][old]
        return 200, {
            **_envelope(),
            "data": {**_facts(entry["versions"][number]), "custom_metadata": None, "version": number},
        }

    def _data_get(self, key: str, query: Any, body: Any) -> Answer:
        entry = self.secrets.get(key)
        number = int(query.get("version") or 0) or (entry["current_version"] if entry else 0)
        one = entry["versions"].get(number) if entry else None
        if one is None:
            return 404, {"errors": []}
        gone = one["destroyed"] or bool(one["deletion_time"])
        data = {
            "data": None if gone else one["data"],
            "metadata": {**_facts(one), "custom_metadata": None, "version": number},
        }
        return (404 if gone else 200), {**_envelope(), "data": data}

    def _data_delete(self, key: str, query: Any, body: Any) -> Answer:
        if entry := self.secrets.get(key):
            entry["versions"][entry["current_version"]]["deletion_time"] = now()
        return 204, None

    def _delete_post(self, key: str, query: Any, body: Any) -> Answer:
        return self._mark(key, body, deletion_time=now())

    def _undelete_post(self, key: str, query: Any, body: Any) -> Answer:
        return self._mark(key, body, deletion_time="")

    def _destroy_post(self, key: str, query: Any, body: Any) -> Answer:
        return self._mark(key, body, destroyed=True, data=None)

    def _mark(self, key: str, body: Any, **facts: Any) -> Answer:
        for number in body["versions"]:
            self.secrets[key]["versions"][int(number)].update(facts)
        return 204, None

    def _metadata_get(self, key: str, query: Any, body: Any) -> Answer:
        entry = self.secrets.get(key)
        if entry is None:
            return 404, {"errors": []}
        versions = {str(number): _facts(one) for number, one in entry["versions"].items()}
        return 200, {**_envelope(), "data": {**entry, "versions": versions, "oldest_version": min(entry["versions"])}}

    def _metadata_post(self, key: str, query: Any, body: Any) -> Answer:
        self.secrets.setdefault(key, _entry()).update(body)
        return 204, None

    def _metadata_delete(self, key: str, query: Any, body: Any) -> Answer:
        self.secrets.pop(key, None)
        return 204, None

    def _metadata_list(self, key: str, query: Any, body: Any) -> Answer:
        folder = key if key.endswith(("/", "|")) else f"{key}/"
        rest = [name.removeprefix(folder) for name in self.secrets if name.startswith(folder)]
        keys = sorted({f"{first}/" if more else first for first, more, _ in (one.partition("/") for one in rest)})
        return (200, {**_envelope(), "data": {"keys": keys}}) if keys else (404, {"errors": []})


def _entry() -> dict[str, Any]:
    made = now()
    settings = {"cas_required": False, "delete_version_after": "0s", "max_versions": 0, "custom_metadata": None}
    return {**settings, "created_time": made, "updated_time": made, "current_version": 0, "versions": {}}


def _facts(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("created_time", "deletion_time", "destroyed")}


def _envelope() -> dict[str, Any]:
    empty = {"lease_id": "", "renewable": False, "lease_duration": 0}
    return {
        "request_id": secrets.token_hex(8),
        **empty,
        "data": None,
        "wrap_info": None,
        "warnings": None,
        "auth": None,
    }


class _Listener(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


class Double:
    """The server, listening on 127.0.0.1 from the beginning."""

    def __init__(self, port: int = 0) -> None:
        self.vault = vault = Vault()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                text = self.rfile.read(length)
                if vault.active_address and not self.path.startswith("/v1/sys/health"):
                    self._say(307, None, {"Location": f"{vault.active_address}{self.path}"})
                    return
                status, body = vault.answer(self.command, self.path, json.loads(text) if text else None, self.headers)
                self._say(status, body, vault.fault_headers if (status, body) == vault.fault else {})

            def _say(self, status: int, body: Any, headers: dict[str, str]) -> None:
                content = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Cache-Control": "no-store", **headers}.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_LIST = do_HEAD = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = _Listener(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop.

        Raises:
            AssertionError: An answer has broken the published document.
        """
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        violations = self.vault.published.violations
        assert not violations, "the double broke the published document:\n" + "\n".join(violations)


if __name__ == "__main__":
    double = Double(int(sys.argv[1]))
    scheme, rest = double.address.split("://")
    sys.stdout.write(f"{scheme}://{double.vault.root_token}@{rest}/secret\n")
    sys.stdout.flush()
    threading.Event().wait()
