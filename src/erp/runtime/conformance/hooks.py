"""Endpoints of the kit's peer as cases use them: created, delivered to, verified, made to fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

from erp.runtime.conformance.bench import require
from erp.runtime.conformance.peers import HOOKS, Received, Reply

if TYPE_CHECKING:
    from erp.runtime.conformance.bench import Bench


class Hook:
    """One endpoint; its name is what it is sent, and no other endpoint of the case."""

    def __init__(self, bench: Bench, created: Any, path: str, name: str) -> None:
        self._bench = bench
        self.endpoint: dict[str, Any] = created["endpoint"]
        self.id: str = created["endpoint"]["id"]
        self.secret: str = created["secret"]
        self.path = path
        self.name = name

    @classmethod
    async def made(cls, bench: Bench, **params: Any) -> Hook:
        """Create an endpoint that wants one name alone, unless ``event_types`` says otherwise."""
        path, name = f"{HOOKS}/{bench.unique('hook')}", bench.unique("conformance.hook")
        wanted = {"url": f"{bench.peer.address}{path}", "event_types": [name], **params}
        return cls(bench, await bench.call("create_endpoint", wanted), path, name)

    @property
    def received(self) -> list[Received]:
        """What it was sent, oldest first."""
        return self._bench.peer.sent_to(self.path)

    @property
    def ids(self) -> list[str]:
        """The ``webhook-id`` of each request."""
        return [one.headers["webhook-id"] for one in self.received]

    def instead(self, *replies: Reply) -> None:
        """Answer the next requests so."""
        self._bench.peer.instead(self.path, *replies)

    async def trigger(self, **params: Any) -> Any:
        """Trigger what it wants."""
        key = params.pop("idempotency_key", None)
        return await self._bench.call("trigger", {"name": self.name, **params}, idempotency_key=key)

    async def shown(self) -> Any:
        """The endpoint as it is listed."""
        listed = (await self._bench.call("list_endpoints", {"limit": 1000}))["endpoints"]
        return next((one for one in listed if one["id"] == self.id), None)

    async def update(self, **params: Any) -> Any:
        """Change it."""
        return (await self._bench.call("update_endpoint", {"id": self.id, **params}))["endpoint"]

    async def delivery(self, id_: str) -> Any:
        """One delivery with its attempts."""
        return await self._bench.call("get_delivery", {"id": id_, "endpoint": self.id})

    async def deliveries(self, **params: Any) -> list[Any]:
        """Its deliveries, newest first."""
        listed = await self._bench.call("list_deliveries", {"endpoint": self.id, **params})
        return list(listed["deliveries"])

    async def sent(self, count: int) -> None:
        """Wait until it was sent so many requests."""

        async def is_sent() -> bool:
            return len(self.received) >= count

        await self._bench.eventually(
            is_sent, lambda: f"the endpoint was sent {count} requests, not {len(self.received)}"
        )


def signatures(secret: str, request: Received) -> str:
    """The signature a request must carry (Standard Webhooks, section "Signature scheme", symmetric)."""
    text = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}."
    return signature(secret, text.encode() + request.body)


def signature(secret: str, signed: bytes) -> str:
    """``v1,`` and the HMAC-SHA256 of ``signed`` in base64."""
    text = secret.removeprefix("whsec_")
    key = base64.b64decode(text + "=" * (-len(text) % 4))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def is_signed(secret: str, request: Received) -> bool:
    """Whether one of the signatures of a request was made with ``secret``."""
    return signatures(secret, request) in request.headers.get("webhook-signature", "").split(" ")


def message(secret: str, document: Any, *, id_: str, at: float | None = None) -> tuple[dict[str, str], bytes]:
    """Headers and body of a webhook that a peer sends."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    sent_at = str(int(time.time() if at is None else at))
    headers = {"webhook-id": id_, "webhook-timestamp": sent_at, "content-type": "application/json"}
    return {**headers, "webhook-signature": signature(secret, f"{id_}.{sent_at}.".encode() + body)}, body


def require_events(bench: Bench, *expected: str) -> list[dict[str, Any]]:
    """Require that the newest call has emitted exactly these events; return their data."""
    emitted = bench.emitted()
    require([name for name, _ in emitted] == list(expected), f"announced {emitted}, not {list(expected)}")
    return [data for _, data in emitted]
