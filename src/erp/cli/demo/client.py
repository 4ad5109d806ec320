"""A caller of the layer in the standard library: what any script of a user would do."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Status and JSON of an answer."""

    status: int
    body: dict[str, Any]
    retry_after_seconds: float = 0.0

    @property
    def data(self) -> dict[str, Any]:
        """The result of a call that succeeded."""
        found: dict[str, Any] = self.body["data"]
        return found


class DemoClient:
    """Calls one layer with one key over a kept-alive connection."""

    def __init__(self, address: str, key: str) -> None:
        parts = urllib.parse.urlsplit(address)
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=60)
        self._key = key

    def send(self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Answer:
        """Send one request; ``idempotency_key="k"`` becomes the header Idempotency-Key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, content, {"Authorization": f"Bearer {self._key}", **kind, **named})
        response = self._connection.getresponse()
        text = response.read()
        return Answer(response.status, json.loads(text) if text else {}, float(response.headers.get("Retry-After", 0)))

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()

    def call(self, path: str, params: dict[str, Any], **headers: str) -> Answer:
        """Call an action."""
        return self.send("POST", path, {"params": params}, **headers)
