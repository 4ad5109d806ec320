"""200 requests a second go through a real server while configurations, secrets and versions change: none fails."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.process import Server
from tests.system.conftest import StartServer

from erp.runtime.conformance.scaffold import write_provider

pytestmark = pytest.mark.anyio

PER_SECOND = 200
SECONDS = 3.0


def headers(server: Server, role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.keys[role]}"}


async def load(client: httpx2.AsyncClient, server: Server, statuses: Counter[int], is_over: asyncio.Event) -> int:
    """Send calls at their times, whatever became of those before; return how many a second were sent."""
    sent: list[asyncio.Task[None]] = []

    async def call(number: int) -> None:
        body = {"params": {"key": f"k{number % 50}", "value": number}}
        answer = await client.post("/providers/cache/fresh/set", json=body, headers=headers(server, "developer"))
        statuses[answer.status_code] += 1

    began = time.monotonic()
    while not is_over.is_set():
        await asyncio.sleep(max(0.0, began + len(sent) / PER_SECOND - time.monotonic()))
        sent.append(asyncio.create_task(call(len(sent))))
    lasted = time.monotonic() - began
    await asyncio.gather(*sent)
    return round(len(sent) / lasted)


async def change(client: httpx2.AsyncClient, server: Server, folder: Path) -> list[Any]:
    """Change the configuration, and the provider itself, until the time is over; return what was answered."""
    answers = []
    ends = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < ends:
        number += 1
        config = {"config": {"max_entries": 1000 + number}}
        answer = await client.post("/providers/cache/fresh/configure", json=config, headers=headers(server, "admin"))
        answers.append(answer.status_code)
        manifest = folder / "provider.yaml"
        lines = manifest.read_text().splitlines()
        lines = [f"version: 0.1.{number}" if line.startswith("version: ") else line for line in lines]
        manifest.write_text("\n".join(lines))
        reloaded = await client.post("/providers:reload", headers=headers(server, "platform"))
        answers.append([item["outcome"] for item in reloaded.json()["items"]])
        await asyncio.sleep(0.1)
    return answers


async def test_no_call_fails_while_everything_behind_it_changes(furnished: Path, start_server: StartServer) -> None:
    folder = await asyncio.to_thread(write_provider, "cache/fresh", furnished / "providers")
    server = await asyncio.to_thread(start_server, furnished)
    statuses: Counter[int] = Counter()
    is_over = asyncio.Event()
    async with httpx2.AsyncClient(base_url=server.address, timeout=20) as client:
        loading = asyncio.create_task(load(client, server, statuses, is_over))
        answers = await change(client, server, folder)
        is_over.set()
        per_second = await loading

    assert set(map(str, answers)) == {"200", "['changed']"}
    assert len(answers) >= 6
    assert set(statuses) == {200}
    assert per_second >= PER_SECOND * 0.9
