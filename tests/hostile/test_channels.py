"""What one tenant announces is not heard by another."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tests.hostile.conftest import Scene
from tests.hostile.plants import MARK

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

LISTEN_SECONDS = 2.0


async def heard(scene: Scene, who: str, path: str) -> bytes:
    """What comes to a listener of server-sent events within two seconds."""
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    headers = [(b"authorization", f"Bearer {scene.keys[who]}".encode()), (b"last-event-id", b"0")]
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
        "root_path": "",
    }
    with suppress(TimeoutError):
        async with asyncio.timeout(LISTEN_SECONDS):
            await scene.layer.application()(scope, receive, send)
    return b"".join(parts)


async def test_events_of_providers_are_heard_by_their_tenant_alone(scene: Scene) -> None:
    async with scene.client("victim") as victim:
        await victim.post("/providers/cache/memory/set", json={"params": {"key": "x", "value": 1, "tags": [MARK]}})
        emptied = await victim.post("/providers/cache/memory/invalidate_tags", json={"params": {"tags": [MARK]}})
        assert emptied.json()["data"] == {"removed": 1}
    path = "/providers/cache/memory/events"

    theirs, mine = await asyncio.gather(heard(scene, "attacker", path), heard(scene, "victim", path))

    assert MARK.encode() in mine
    assert MARK.encode() not in theirs


async def test_a_topic_of_the_same_name_is_another_topic(scene: Scene) -> None:
    async with scene.client("attacker") as attacker:
        pulled = await attacker.post(
            "/providers/bus/log/pull",
            json={"params": {"topic": "payroll", "group": "clerks", "start": "earliest", "max_events": 10}},
        )

    assert pulled.status_code == 200
    assert MARK not in pulled.text
    assert await scene.now() == scene.before
