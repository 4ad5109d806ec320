"""What the victim has: something behind every action that makes something, all of it marked.

Marks stand only in values, never in names: a name may come back in an answer to whoever sent it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

MARK = "mark-4f1c9be2d07a"
"""In everything that only the victim may read."""
VICTIM, ATTACKER = "victim", "attacker"
CONTENT = base64.b64encode(MARK.encode()).decode()


@dataclass
class Loot:
    """Everything by which the victim names its things, as an attacker might have come by it."""

    by_name: dict[str, list[str]] = field(default_factory=dict)
    """Name of a member -> its values."""

    def add(self, name: str, value: str) -> None:
        """Note a value under the name of the member it stood in."""
        known = self.by_name.setdefault(name, [])
        if value not in known:
            known.append(value)

    def note(self, document: Any, name: str = "") -> None:
        """Note every text of a document."""
        if isinstance(document, dict):
            for key, value in document.items():
                self.note(value, key)
        elif isinstance(document, list):
            for value in document:
                self.note(value, name)
        elif isinstance(document, str) and document and MARK not in document and CONTENT not in document:
            self.add(name, document)

    @property
    def values(self) -> list[str]:
        """All values."""
        return list(dict.fromkeys(value for known in self.by_name.values() for value in known))


CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cache/memory/set", {"key": "vault", "value": {"pin": MARK}, "tags": ["boxes"]}),
    ("cache/memory/set", {"key": "count", "value": 7}),
    ("cache/memory/get", {"key": "vault"}),
    ("db/sqlite/execute", {"sql": "CREATE TABLE ledger (id TEXT PRIMARY KEY, note TEXT)"}),
    ("db/sqlite/execute", {"sql": "INSERT INTO ledger VALUES (?, ?)", "parameters": ["row-1", MARK]}),
    ("db/sqlite/begin", {"lease_seconds": 60, "read_only": True}),
    ("db/sqlite/metadata", {}),
    (
        "bus/log/publish",
        {"topic": "payroll", "event": {"id": "e1", "source": "/x", "type": "paid", "data": {"who": MARK}}, "key": "k1"},
    ),
    (
        "bus/log/publish",
        {"topic": "payroll", "event": {"id": "e2", "source": "/x", "type": "paid", "data": {"who": MARK}}},
    ),
    (
        "bus/log/pull",
        {"topic": "payroll", "group": "clerks", "max_events": 1, "visibility_seconds": 3600, "start": "earliest"},
    ),
    ("storage/filesystem/put", {"key": "vault/contract.txt", "content": CONTENT, "metadata": {"note": MARK}}),
    ("storage/filesystem/create_multipart", {"key": "vault/large.bin"}),
    ("storage/filesystem/head", {"key": "vault/contract.txt"}),
    ("secrets/local/put", {"path": "vault/pin", "value": MARK}),
    ("secrets/local/list_versions", {"path": "vault/pin"}),
    ("integration/webhook/create_endpoint", {"url": "https://hooks.example.com/in", "title": MARK}),
    ("integration/webhook/create_receiver", {"name": "inbox", "scheme": "standard_webhooks"}),
    ("integration/webhook/trigger", {"name": "invoice.paid", "payload": {"who": MARK}}),
    ("integration/webhook/list_endpoints", {}),
)
"""Provider and action, with parameters. What is not there any more fails the plants, and so the suite."""

WITNESSES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cache/memory/get_many", {"keys": ["vault", "count"]}),
    ("db/sqlite/query", {"sql": "SELECT id, note FROM ledger ORDER BY id"}),
    ("bus/log/lag", {"topic": "payroll", "group": "clerks"}),
    ("bus/log/list_dead_letters", {}),
    ("storage/filesystem/list", {}),
    ("storage/filesystem/get", {"key": "vault/contract.txt"}),
    ("storage/filesystem/get_lifecycle", {}),
    ("secrets/local/list", {}),
    ("secrets/local/list_versions", {"path": "vault/pin"}),
    ("integration/webhook/list_endpoints", {}),
    ("integration/webhook/list_receivers", {}),
)
"""What the victim reads before and after: the same."""

PAGES = ("/connections", "/routes", "/operations", "/keys", "/quotas", "/policies", "/consents")
"""What the victim's administrator reads before and after."""


async def planted(victim: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> Loot:
    """Make what is attacked; return all its names."""
    loot = Loot()
    for number, (path, params) in enumerate(CALLS):
        answer = await victim.post(
            f"/providers/{path}", json={"params": params}, headers={"Idempotency-Key": f"victim {number}"}
        )
        assert answer.status_code == 200, f"{path}: {answer.text}"
        loot.note(params)
        loot.note(answer.json()["data"])
    link = await victim.post(
        "/providers/storage/filesystem/signed_url",
        json={"params": {"key": "vault/contract.txt", "method": "GET"}},
    )
    loot.add("token", _forged(link.json()["data"]["url"].rpartition("/")[2]))
    later = await victim.post(
        "/providers/db/sqlite/query",
        json={"params": {"sql": "SELECT note FROM ledger"}},
        headers={"Prefer": "respond-async"},
    )
    assert later.status_code == 202, later.text
    loot.add("operation", later.json()["id"])
    async for name, document in _administered(admin):
        loot.add(name, document["id"] if "id" in document else document["name"])
        loot.note(document)
    for tenant in (VICTIM, "../victim", "victim/", "VICTIM"):
        loot.add("tenant", tenant)
    for sql in _hostile_sql():
        loot.add("sql", sql)
    return loot


def _forged(token: str) -> str:
    """Another token: one character amid it is another one, and all its bits count."""
    middle = len(token) // 2
    return token[:middle] + ("B" if token[middle] == "A" else "A") + token[middle + 1 :]


async def _administered(admin: httpx2.AsyncClient) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """What only administrators make."""
    key = await admin.post("/keys", json={"role": "developer", "name": MARK})
    yield "key", {"id": key.json()["id"]}
    configured = await admin.post("/providers/cache/memory/configure", json={"connection": "second"})
    assert configured.status_code == 200, configured.text
    yield "connection", {"name": "second"}
    targets = [{"provider": "memory", "connection": "second"}]
    route = await admin.put("/routes/cache/main-cache", json={"kind": "single", "targets": targets})
    assert route.status_code == 200, route.text
    yield "name", {"name": "main-cache"}
    quota = await admin.put("/quotas/month", json={"limit": 1_000_000})
    assert quota.status_code == 200, quota.text
    consent = await admin.put("/consents/person-1/marketing", json={"state": "granted", "evidence": MARK})
    assert consent.status_code == 200, consent.text
    yield "subject", {"name": "person-1"}
    source = f'package tenant\nimport rego.v1\ndeny contains "{MARK}" if input.target.name == "nothing"\n'
    policy = await admin.put("/policies", json={"source": source})
    assert policy.status_code == 200, policy.text


def _hostile_sql() -> tuple[str, ...]:
    return (
        "SELECT * FROM ledger",
        "SELECT note FROM main.ledger",
        "ATTACH DATABASE '../../../victim/db/sqlite/default/database.db' AS stolen",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "PRAGMA database_list",
    )


async def seen(victim: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> dict[str, Any]:
    """What the victim sees of its own things."""
    found: dict[str, Any] = {}
    for path, params in WITNESSES:
        answer = await victim.post(f"/providers/{path}", json={"params": params})
        assert answer.status_code == 200, f"{path}: {answer.text}"
        found[f"{path} {params}"] = _lasting(answer.json()["data"])
    for page in PAGES:
        answer = await admin.get(page)
        assert answer.status_code == 200, f"{page}: {answer.text}"
        found[page] = [_lasting(item) for item in answer.json()["items"]]
    return found


def _lasting(item: dict[str, Any]) -> dict[str, Any]:
    """Without what changes by being read."""
    return {
        name: value for name, value in item.items() if name not in {"used", "targets", "last_used_at", "oldest_seconds"}
    }
