"""Webhooks through the whole layer: a peer's request to a link reaches the tenant's bus, once."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.gateway.conftest import Site
from tests.providers.integration.peers import receiving

from erp.providers.bus.log.provider import EventLog
from erp.providers.integration.webhook import schedule
from erp.vendor_clients.standard_webhooks import SigningKeys

pytestmark = pytest.mark.anyio

PROVIDER = "/providers/integration/webhook"
TOPIC = "provider.events.integration.webhook.received"


async def pulled(client: httpx2.AsyncClient, wait_seconds: float) -> list[dict[str, Any]]:
    params = {"topic": TOPIC, "group": "test", "start": "earliest", "max_events": 10, "wait_seconds": wait_seconds}
    answer = await client.post("/providers/bus/log/pull", json={"params": params})
    return [delivery["event"] for delivery in answer.json()["data"]["deliveries"]]


async def test_what_a_peer_sends_reaches_the_bus_once_and_a_forgery_does_not(
    site: Site, client: httpx2.AsyncClient
) -> None:
    made = (await client.post(f"{PROVIDER}/create_receiver", json={"params": {"name": "shop"}})).json()["data"]
    path = urlsplit(made["receiver"]["path"]).path
    body = json.dumps({"type": "order.paid", "data": {"id": "ord_1"}}).encode()
    headers = SigningKeys([made["secret"]]).headers(message_id="msg_1", body=body, sent_at=time.time())
    async with site.client(None) as peer:
        statuses = [(await peer.post(path, content=body, headers=headers)).status_code for _ in range(2)]
        forged = await peer.post(path, content=body + b" ", headers=headers)
        closed = await peer.post(path[:-1] + ("A" if path[-1] != "A" else "B"), content=body, headers=headers)
    assert (statuses, forged.status_code, closed.status_code) == ([204, 204], 401, 404)
    [event] = await pulled(client, 5.0)
    assert event["data"]["message"] == {"id": "msg_1", "name": "order.paid", "payload": json.loads(body)}
    await asyncio.sleep(0.1)
    assert await pulled(client, 0.0) == []
    listed = await client.post(f"{PROVIDER}/list_received", json={"params": {}})
    assert [item["status"] for item in listed.json()["data"]["received"]] == ["refused", "repeated", "published"]


async def test_a_peer_is_answered_while_the_bus_is_stuck_and_the_bus_gets_it_later(
    site: Site, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, is_stuck, publish = asyncio.Event(), asyncio.Event(), EventLog.publish

    async def stuck(bus: EventLog, *arguments: Any) -> Any:
        is_stuck.set()
        await works.wait()
        return await publish(bus, *arguments)

    monkeypatch.setattr(EventLog, "publish", stuck)
    made = (await client.post(f"{PROVIDER}/create_receiver", json={"params": {"name": "shop"}})).json()["data"]
    body = json.dumps({"type": "order.paid"}).encode()
    async with site.client(None) as peer, asyncio.timeout(30):
        for number in range(3):
            headers = SigningKeys([made["secret"]]).headers(message_id=f"m{number}", body=body, sent_at=time.time())
            answer = await peer.post(urlsplit(made["receiver"]["path"]).path, content=body, headers=headers)
            assert answer.status_code == 204
            await is_stuck.wait()
    works.set()
    found: list[str] = []
    while len(found) < 3 and (events := await pulled(client, 20.0)):
        found += [event["data"]["message"]["id"] for event in events]
    assert sorted(found) == ["m0", "m1", "m2"]


async def test_a_delivery_that_failed_is_attempted_again_by_the_layer_itself(
    site: Site, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    monkeypatch.setattr(schedule, "DELAYS", (0.05,) * 7)
    async with receiving("503 Busy") as receiver:
        made = await client.post(f"{PROVIDER}/create_endpoint", json={"params": {"url": receiver.url}})
        receiver.secret = made.json()["data"]["secret"]
        answer = await client.post(f"{PROVIDER}/trigger", json={"params": {"name": "order.paid"}})
        assert answer.json()["data"]["status"] == "accepted"
        for _ in range(1500):
            if len(receiver.messages) == 2:
                break
            await asyncio.sleep(0.02)
    assert receiver.ids == [answer.json()["data"]["id"]] * 2
