"""200 requests a second go through a real server while configurations, secrets and versions change: none fails.

Among the changes are those that must be refused: a configuration, a secret and a version that do not open. It goes on
until the versions of the secret are destroyed that nothing uses any more.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
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
REFERENCE = "secret://tenant/cache"


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


PASSWORD = """
    password:
      type: string
      title: Password
      description: Opens the cache.
      maxLength: 100
      x-erp-secret: true
"""


def make_provider(folder: Path) -> Path:
    """``cache/fresh``, which opens unless its password is ``wrong``, and tells the one it was opened with."""
    made = write_provider("cache/fresh", folder)
    manifest, module = made / "provider.yaml", made / "provider.py"
    manifest.write_text(manifest.read_text().replace("  properties:\n", f"  properties:{PASSWORD}", 1))
    code = module.read_text()
    code = code.replace(
        "self._context = context", 'self._context = context\n        self._password = config["password"]'
    )
    code = code.replace(
        '        """Acquire connections here, not in the constructor."""',
        '        """Knock."""\n        if self._password == "wrong":\n'
        '            raise ProviderError(ErrorCode.UNAUTHENTICATED, "The password is not right.")',
    )
    code = code.replace("GetResult(found=False)", "GetResult(found=True, value=self._password)")
    module.write_text(code)
    return made


class Operator:
    """Changes what is behind the calls, over HTTP."""

    def __init__(self, client: httpx2.AsyncClient, server: Server, folder: Path) -> None:
        self._client = client
        self._server = server
        self._manifest, self._module = folder / "provider.yaml", folder / "provider.py"
        self._number = 0

    async def _post(self, path: str, body: dict[str, Any], role: str = "admin") -> httpx2.Response:
        return await self._client.post(path, json=body, headers=headers(self._server, role))

    async def store(self, value: str, action: str = "rotate") -> None:
        """Store a version of the password."""
        params = {"path": "cache", "value": value} | ({"overlap_seconds": 0} if action == "rotate" else {})
        answer = await self._post(f"/providers/secrets/local/{action}", {"params": params})
        assert answer.status_code == 200, answer.text

    async def configure(self, password: str = REFERENCE) -> httpx2.Response:
        """Change the configuration."""
        self._number += 1
        config = {"max_entries": 1000 + self._number, "password": password}
        return await self._post("/providers/cache/fresh/configure", {"config": config})

    async def release(self, code: str | None = None) -> dict[str, Any]:
        """Put a new version in place, with other code when given, and reload; return what came of it."""
        self._number += 1
        lines = self._manifest.read_text().splitlines()
        lines = [f"version: 0.1.{self._number}" if line.startswith("version: ") else line for line in lines]
        good = self._module.read_text()
        self._manifest.write_text("\n".join(lines))
        self._module.write_text(good if code is None else code)
        reloaded = await self._post("/providers:reload", {}, "platform")
        self._module.write_text(good)
        [item] = reloaded.json()["items"]
        found: dict[str, Any] = item
        return found

    async def password(self) -> str:
        """Return what the provider was opened with."""
        answer = await self._post("/providers/cache/fresh/get", {"params": {"key": "no such key"}})
        return str(answer.json()["data"]["value"])

    async def states(self) -> list[str]:
        """Return what became of the versions of the password, oldest first."""
        answer = await self._post("/providers/secrets/local/list_versions", {"params": {"path": "cache"}})
        return [str(one["state"]) for one in answer.json()["data"]["versions"]]

    async def last_change(self) -> str:
        """Return how the latest change of the connection ended."""
        found = await self._client.get("/providers/cache/fresh/configure", headers=headers(self._server, "admin"))
        return str(found.json()["items"][0]["last_operation"]["state"])


async def until(wanted: str, ask: Callable[[], Awaitable[str]]) -> None:
    ends = time.monotonic() + 60
    while (found := await ask()) != wanted:
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.02)


async def change(operator: Operator) -> None:
    """Change everything, rightly and wrongly, for a while."""
    ends = time.monotonic() + SECONDS
    number = 0
    while number < 2 or time.monotonic() < ends:
        number += 1
        await operator.store(f"password {number}")
        await until(f"password {number}", operator.password)
        await until("succeeded", operator.last_change)
        assert (await operator.configure()).status_code == 200
        assert (await operator.release())["outcome"] == "changed"

        bad = await operator.configure("wrong")
        assert (bad.status_code, bad.json()["detail"]) == (401, "The password is not right.")
        refused = await operator.release("this is no Python")
        assert (refused["outcome"], "cannot be loaded" in refused["reason"]) == ("refused", True)
        await operator.store("wrong")
        await until("failed", operator.last_change)
        assert await operator.password() == f"password {number}"


async def outlive(operator: Operator) -> None:
    """Wait until all versions are destroyed but the one in use, and the newest, which does not open."""

    async def states() -> str:
        *destroyed, in_use, newest = await operator.states()
        return " ".join([*sorted(set(destroyed)), in_use, newest])

    in_use = await operator.password()
    await until("destroyed previous current", states)
    await asyncio.sleep(1)
    assert await operator.password() == in_use


async def test_no_call_fails_while_everything_behind_it_changes(furnished: Path, start_server: StartServer) -> None:
    folder = await asyncio.to_thread(make_provider, furnished / "providers")
    server = await asyncio.to_thread(start_server, furnished)
    statuses: Counter[int] = Counter()
    is_over = asyncio.Event()
    async with httpx2.AsyncClient(base_url=server.address, timeout=30) as client:
        operator = Operator(client, server, folder)
        await operator.store("password 0", "put")
        assert (await operator.configure()).status_code == 200
        loading = asyncio.create_task(load(client, server, statuses, is_over))
        try:
            await change(operator)
            await outlive(operator)
        finally:
            is_over.set()
            per_second = await loading

    assert set(statuses) == {200}
    assert per_second >= PER_SECOND * 0.9
