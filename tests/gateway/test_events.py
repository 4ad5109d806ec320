"""What providers announce, to those who listen over HTTP; and events that were given up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.control_plane.outbox import Failure
from erp.runtime.context import EmittedEvent
from erp.runtime.effects import now, provider_event
from erp.runtime.ports import AuditEntry, Completion

pytestmark = pytest.mark.anyio


async def emit(site: Site, number: int, provider: str = "memory", tenant: str = "acme") -> None:
    event = EmittedEvent(name="invalidated", data={"prefix": f"p{number}", "removed": number}, id=f"e{number}")
    audit = AuditEntry(
        tenant=tenant,
        actor="a",
        action="x",
        target="y",
        outcome="ok",
        reason="",
        request_id="r",
        time=now(),
        effect="write",
    )
    wrapped = provider_event("cache", provider, tenant, event, f"e{number}", "")
    await site.layer.control.journal.complete(Completion(audit=audit, events=[wrapped]))


async def until(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


class Listener:
    """Reads server-sent events straight from the application."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.is_gone = asyncio.Event()

    def events(self) -> list[dict[str, Any]]:
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(
                line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":")
            )
            if "data" in lines:
                found.append({**json.loads(lines["data"]), "position": lines["id"], "event": lines["event"]})
        return found

    async def until(self, count: int) -> list[dict[str, Any]]:
        await until(lambda: len(self.events()) >= count)
        return self.events()


@asynccontextmanager
async def listening(
    site: Site, path: str = "/providers/cache/memory/events", **headers: str
) -> AsyncIterator[Listener]:
    listener = Listener()
    raw = [(b"authorization", f"Bearer {site.keys['developer']}".encode())]
    raw += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": raw,
        "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "",
    }  # fmt: skip
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await listener.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        listener.status = message.get("status", listener.status)
        listener.body += message.get("body", b"")

    serving = asyncio.create_task(site.layer.application()(scope, receive, send))
    try:
        await until(lambda: listener.body or serving.done())
        yield listener
    finally:
        listener.is_gone.set()
        await asyncio.wait_for(serving, 30)


async def test_events_of_a_provider_arrive_as_they_happen(site: Site) -> None:
    await emit(site, 1)
    async with listening(site) as listener:
        await emit(site, 2)
        await emit(site, 3, provider="other")
        await emit(site, 4, tenant="platform")
        await emit(site, 5)

        found = await listener.until(2)

    assert [(one["position"] != "", one["event"], one["type"], one["data"]["prefix"]) for one in found] == [
        (True, "erp.cache.invalidated", "erp.cache.invalidated", "p2"),
        (True, "erp.cache.invalidated", "erp.cache.invalidated", "p5"),
    ]


async def test_a_listener_goes_on_behind_the_last_event_it_had(site: Site) -> None:
    async with listening(site, last_event_id="0") as listener:
        for number in range(3):
            await emit(site, number)
        first = await listener.until(3)
    await emit(site, 3)

    async with listening(site, last_event_id=first[1]["position"]) as listener:
        found = await listener.until(2)

    assert [one["data"]["prefix"] for one in found] == ["p2", "p3"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/providers/cache/memry/events", {}, 404),
        ("/providers/cache/memory/events", {"last_event_id": "x"}, 400),
        ("/providers/cache/memory/events", {"authorization": "Bearer wrong"}, 401),
    ],
)
async def test_who_may_not_or_cannot_listen_is_told(
    client: httpx2.AsyncClient, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    assert answer.status_code == status


async def test_what_happens_once_the_answer_has_begun_is_not_missed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = site.layer.feed._end

    async def slow() -> int:
        await asyncio.sleep(0.2)
        return await look()

    monkeypatch.setattr(site.layer.feed, "_end", slow)
    async with listening(site) as listener:
        await emit(site, 1)
        assert [event["id"] for event in await listener.until(1)] == ["e1"]


async def test_nobody_looks_when_nobody_listens(site: Site) -> None:
    async with listening(site):
        await until(lambda: site.layer.feed._watcher is not None)

    await until(lambda: site.layer.feed._watcher is None)


async def give_up(site: Site, count: int) -> None:
    """Make dead events of acme, as if their bus had not answered for days."""
    site.layer.relay._is_stopping = True
    for number in range(count):
        await emit(site, number)
    claimed = await site.layer.control.outbox.claim(limit=100, per_tenant=100, lease_seconds=60)
    failed = [
        Failure(position=due.position, reason="no bus", retry_after_seconds=None) for due in claimed.get("acme", [])
    ]
    await site.layer.control.outbox.settle(failed=failed)


async def test_dead_events_are_listed_and_tried_again(site: Site, admin: httpx2.AsyncClient) -> None:
    await site.layer.relay.stop()
    await give_up(site, 3)

    first = (await admin.get("/outbox/dead?limit=2")).json()
    rest = (await admin.get(f"/outbox/dead?limit=2&cursor={first['next_cursor']}")).json()
    requeued = await admin.post("/outbox/dead/e1:requeue")

    assert [item["id"] for item in first["items"] + rest["items"]] == ["e0", "e1", "e2"]
    assert (first["items"][0]["reason"], first["items"][0]["attempts"]) == ("no bus", 1)
    assert requeued.status_code == 204
    assert [item["id"] for item in (await admin.get("/outbox/dead")).json()["items"]] == ["e0", "e2"]
    assert (await admin.post("/outbox/dead/e1:requeue")).status_code == 404
    claimed = await site.layer.control.outbox.claim(limit=10, per_tenant=10, lease_seconds=60)
    assert [due.event.id for due in claimed["acme"]] == ["e1"]


async def test_developers_do_not_requeue(site: Site, client: httpx2.AsyncClient) -> None:
    await site.layer.relay.stop()
    await give_up(site, 1)

    assert (await client.get("/outbox/dead")).status_code == 403
    assert (await client.post("/outbox/dead/e0:requeue")).status_code == 403
    assert len(await site.layer.control.outbox.dead("acme")) == 1
