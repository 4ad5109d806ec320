"""Settings, tokens and the rights of persons, over real embedded providers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.runtime.context import EmittedEvent
from erp.runtime.effects import service_event
from erp.runtime.operation import Operation
from erp.runtime.ports import AuditEntry, Completion
from erp.security.privacy import places
from erp.security.privacy.receipts import is_genuine, subject_digest

pytestmark = pytest.mark.anyio

SUBJECT = "ada@example.com"
PLACES = [
    {"domain": "db", "provider": "sqlite", "table": "customers", "column": "email"},
    {
        "domain": "db",
        "provider": "sqlite",
        "table": "invoices",
        "column": "email",
        "keep": "kept for ten years (AO section 147)",
    },
    {"domain": "cache", "provider": "memory", "prefix": "customer:{subject}:"},
    {"domain": "storage", "provider": "filesystem", "prefix": "people/{subject}/"},
    {"domain": "bus", "provider": "log", "retention_days": 30},
]


async def call(client: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.post(f"/providers/{path}", json={"params": params})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def rows(client: httpx2.AsyncClient, table: str) -> list[list[Any]]:
    found: list[list[Any]] = (await call(client, "db/sqlite/query", sql=f"SELECT * FROM {table} ORDER BY id"))["rows"]
    return found


@pytest.fixture
async def people(admin: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """A tenant that keeps two persons in four places, and has said where."""
    for table in ("customers", "invoices"):
        await call(admin, "db/sqlite/execute", sql=f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, email TEXT)")
        for email in (SUBJECT, "jo@example.com", SUBJECT):
            await call(admin, "db/sqlite/execute", sql=f"INSERT INTO {table} (email) VALUES (?)", parameters=[email])
    for email in (SUBJECT, "jo@example.com"):
        await call(admin, "cache/memory/set", key=f"customer:{email}:name", value="a name")
        content = base64.b64encode(email.encode()).decode()
        await call(admin, "storage/filesystem/put", key=f"people/{email}/cv.txt", content=content)
        assert (await admin.put(f"/consents/{email}/news", json={"state": "granted"})).status_code == 200
    said = await admin.put("/privacy/settings", json={"places": PLACES, "revision": ""})
    assert said.status_code == 200, said.text
    return admin


async def test_erasure_takes_one_person_from_every_place_and_signs_what_was_kept_and_why(
    people: httpx2.AsyncClient,
) -> None:
    answer = await people.post("/privacy/erasure", json={"subject": SUBJECT})
    assert answer.status_code == 200, answer.text
    receipt = answer.json()["receipt"]
    assert {
        place["place"]: (place.get("found"), place.get("erased", 0), place.get("kept", 0))
        for place in receipt["places"]
    } == {
        "db/sqlite#default customers.email": (2, 2, 0),
        "db/sqlite#default invoices.email": (2, 0, 2),
        "cache/memory#default customer:{subject}:": (1, 1, 0),
        "storage/filesystem#default people/{subject}/": (1, 1, 0),
        "bus/log#default": (None, 0, 0),
        "consents": (1, 1, 0),
        "audit": (None, 0, 0),
    }
    why = {place["place"]: place["why"] for place in receipt["places"] if "why" in place}
    assert why["db/sqlite#default invoices.email"] == "kept for ten years (AO section 147)"
    assert "retention of 30 days" in why["bus/log#default"]

    assert await rows(people, "customers") == [[2, "jo@example.com"]]
    assert len(await rows(people, "invoices")) == 3
    assert (await call(people, "cache/memory/get", key=f"customer:{SUBJECT}:name"))["found"] is False
    assert (await call(people, "cache/memory/get", key="customer:jo@example.com:name"))["found"] is True
    keys = [one["key"] for one in (await call(people, "storage/filesystem/list", prefix="people/"))["objects"]]
    assert keys == ["people/jo@example.com/cv.txt"]
    consents = (await people.get("/consents")).json()["items"]
    assert [item["subject"] for item in consents] == ["jo@example.com"]

    key = (await people.get("/privacy/key")).json()["key"]
    assert receipt["subject_sha256"] == subject_digest(SUBJECT)
    assert SUBJECT not in answer.text
    assert is_genuine(receipt, key)
    receipt["places"][1]["kept"] = 0
    assert not is_genuine(receipt, key)


async def test_an_export_hands_out_what_is_kept_and_changes_nothing(people: httpx2.AsyncClient) -> None:
    answer = (await people.post("/privacy/export", json={"subject": SUBJECT})).json()
    data = answer["data"]
    assert data["db/sqlite#default customers.email"] == [{"id": 1, "email": SUBJECT}, {"id": 3, "email": SUBJECT}]
    (copied,) = data["storage/filesystem#default people/{subject}/"]
    assert (copied["key"], base64.b64decode(copied["content"])) == (f"people/{SUBJECT}/cv.txt", SUBJECT.encode())
    assert [consent["purpose"] for consent in data["consents"]] == ["news"]
    assert is_genuine(answer["receipt"], (await people.get("/privacy/key")).json()["key"])
    assert len(await rows(people, "customers")) == 3


async def test_a_place_that_fails_says_which_and_the_next_request_goes_on(people: httpx2.AsyncClient) -> None:
    wrong = [*PLACES, {"domain": "db", "provider": "sqlite", "table": "nothing_here", "column": "email"}]
    await people.put("/privacy/settings", json={"places": wrong})
    failed = await people.post("/privacy/erasure", json={"subject": SUBJECT})
    assert failed.status_code >= 400
    assert "nothing_here.email" in failed.json()["detail"]
    await people.put("/privacy/settings", json={"places": PLACES})
    again = (await people.post("/privacy/erasure", json={"subject": SUBJECT})).json()
    assert again["receipt"]["places"][0]["place"] == "db/sqlite#default customers.email"
    assert await rows(people, "customers") == [[2, "jo@example.com"]]


async def test_an_operation_that_begins_again_does_nothing_twice_and_counts_as_the_first_time(
    site: Site, people: httpx2.AsyncClient
) -> None:
    accepted = await people.post("/privacy/erasure", json={"subject": SUBJECT})
    operation_id = accepted.json()["receipt"]["operation"]
    operation: Operation | None = await site.layer.control.operations.find("acme", operation_id)
    assert operation is not None
    await call(
        people, "db/sqlite/execute", sql="INSERT INTO customers (email) VALUES (?)", parameters=[SUBJECT]
    )  # came later

    assert site.layer.operations.rights is not None
    again = await site.layer.operations.rights(operation, lambda *_: None)

    assert again["receipt"]["places"][0] == {"place": "db/sqlite#default customers.email", "found": 2, "erased": 2}
    assert [row[1] for row in await rows(people, "customers")] == ["jo@example.com", SUBJECT]


async def test_rights_wait_as_operations_do(people: httpx2.AsyncClient) -> None:
    accepted = await people.post("/privacy/export", json={"subject": SUBJECT}, headers={"prefer": "respond-async"})
    assert accepted.status_code == 202, accepted.text
    ended = await people.get(accepted.headers["location"], headers={"prefer": "wait=30"})
    assert (ended.json()["state"], ended.json()["target"]) == ("succeeded", "privacy/privacy.export")
    assert ended.json()["result"]["data"]["receipt"]["right"] == "export"


@pytest.mark.parametrize("role", ["operator", "developer"])
async def test_only_administrators_reveal_export_and_erase(site: Site, role: str) -> None:
    token = site.layer.treatments.of("acme", "tokenise")("email", SUBJECT)
    async with site.client(role) as client:
        bodies = {"reveal": {"tokens": [token], "reason": "x"}, "export": {"subject": "x"}, "erasure": {"subject": "x"}}
        statuses = {
            path: (await client.post(f"/privacy/{path}", json=body)).status_code for path, body in bodies.items()
        }
        statuses["settings"] = (await client.put("/privacy/settings", json={})).status_code
    assert set(statuses.values()) == {403}


async def test_a_token_is_revealed_and_that_is_audited_without_the_value(site: Site, admin: httpx2.AsyncClient) -> None:
    token = site.layer.treatments.of("acme", "tokenise")("email", SUBJECT)
    answer = await admin.post("/privacy/reveal", json={"tokens": [token], "reason": "fraud case 7"})
    assert answer.json() == {"items": [{"token": token, "kind": "email", "value": SUBJECT}]}
    records = (await admin.get("/audit")).json()["items"]
    (found,) = [one for one in records if one["action"] == "privacy.reveal"]
    assert found["detail"] == {"tokens": 1, "kinds": ["email"], "reason": "fraud case 7"}
    assert SUBJECT not in str(records)
    foreign = site.layer.treatments.of("globex", "tokenise")("email", SUBJECT)
    refused = await admin.post("/privacy/reveal", json={"tokens": [token, foreign], "reason": "x"})
    assert (refused.status_code, SUBJECT in refused.text) == (404, False)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"places": [{"domain": "db", "provider": "sqlite", "table": "a; DROP", "column": "b"}]}, "places[0].table"),
        ({"places": [{"domain": "cache", "provider": "memory", "prefix": "all"}]}, "places[0].prefix"),
        ({"places": [{"domain": "db", "provider": "sqlite", "table": "a"}]}, "column"),
    ],
)
async def test_settings_that_cannot_be_used_change_nothing(
    admin: httpx2.AsyncClient, body: dict[str, Any], words: str
) -> None:
    refused = await admin.put("/privacy/settings", json=body)
    assert (refused.status_code, words in str(refused.json()["errors"])) == (400, True)
    assert (await admin.get("/privacy/settings")).json() == {"treatment": {}, "places": [], "revision": "0"}


async def test_a_change_of_another_revision_is_a_conflict(admin: httpx2.AsyncClient) -> None:
    assert (await admin.put("/privacy/settings", json={"revision": ""})).json()["revision"] == "1"
    assert (await admin.put("/privacy/settings", json={"revision": ""})).status_code == 409


@pytest.mark.parametrize(
    ("treatment", "expected"),
    [(None, "[email]"), ("none", SUBJECT), ("keep", SUBJECT), ("hash", "[email:"), ("tokenise", "tok_email.")],
)
async def test_events_logs_and_reasons_are_treated_as_the_tenant_wishes(
    site: Site, admin: httpx2.AsyncClient, treatment: str | None, expected: str
) -> None:
    uses = {} if treatment is None else dict.fromkeys(("events", "audit", "logs", "prompts"), treatment)
    await admin.put("/privacy/settings", json={"treatment": uses})
    layer = site.layer
    event = service_event("order", "acme", EmittedEvent(name="noted", data={"contact": {"email": SUBJECT}}), "e1", "")
    audit = AuditEntry(
        tenant="acme", actor="key_1", action="a.b", target="a.b", outcome="internal", reason=f"no such user {SUBJECT}",
        request_id="r1", time="2026-11-28T00:00:00+00:00", effect="write",
    )  # fmt: skip
    await layer.journal.complete(Completion(audit=audit, events=[event]))
    (record,) = [one for one in (await layer.control.audit.search("acme"))[0] if one.action == "a.b"]
    assert record.reason.removeprefix("no such user ").startswith(expected)
    assert layer.log.treat("acme", SUBJECT).startswith(expected)
    assert (await layer.privacy.document("acme", "prompts", {"text": SUBJECT}))["text"].startswith(expected)
    stored = await published(site, "e1")
    assert stored["contact"]["email"].startswith(expected if treatment else SUBJECT)


@pytest.mark.parametrize(
    ("settings", "order", "reason"),
    [
        ({}, "ord-jo@example.com", "of jo@example.com"),
        ({"treatment": {"events": "redact"}, "only_marked": ["events"]}, "ord-jo@example.com", "of [email]"),
        ({"treatment": {"events": "redact"}}, "[email]", "of [email]"),
    ],
)
async def test_on_its_own_bus_a_tenant_has_its_events_whole_or_as_the_contract_marks_them(
    site: Site, admin: httpx2.AsyncClient, settings: dict[str, Any], order: str, reason: str
) -> None:
    assert (await admin.put("/privacy/settings", json=settings)).status_code == 200
    data = {"order_id": "ord-jo@example.com", "reason": "of jo@example.com"}  # the contract marks the reason alone
    event = service_event("order", "acme", EmittedEvent(name="cancelled", data=data), "e1", "")
    audit = AuditEntry(
        tenant="acme", actor="key_1", action="a.b", target="a.b", outcome="ok", reason="done",
        request_id="r1", time="2026-11-28T00:00:00+00:00", effect="write",
    )  # fmt: skip
    await site.layer.journal.complete(Completion(audit=audit, events=[event]))
    delivered = await delivered_event(admin, "service.events.order.cancelled")
    assert delivered["data"] == {"order_id": order, "reason": reason}


async def delivered_event(client: httpx2.AsyncClient, topic: str) -> dict[str, Any]:
    """The first event of a topic on the tenant's bus."""
    for _ in range(600):
        pulled = await call(client, "bus/log/pull", topic=topic, group="test", start="earliest", wait_seconds=1)
        if pulled["deliveries"]:
            event: dict[str, Any] = pulled["deliveries"][0]["event"]
            return event
    raise AssertionError(topic)


async def published(site: Site, id_: str) -> dict[str, Any]:
    for _ in range(600):
        found: Sequence[Any] = await site.layer.control.database.run(
            lambda connection: connection.exec_driver_sql("SELECT event FROM outbox WHERE id = 'e1'").all()
        )
        if found:
            import msgspec

            event: dict[str, Any] = msgspec.json.decode(found[0][0])
            return dict(event["data"])
        await asyncio.sleep(0.05)
    raise AssertionError(id_)


async def test_a_person_with_many_rows_gets_all_of_them_and_is_told_when_not(
    people: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT ? FROM n"
    await call(people, "db/sqlite/execute", sql=f"INSERT INTO customers (email) {many}", parameters=[SUBJECT])
    place = "db/sqlite#default customers.email"
    answer = (await people.post("/privacy/export", json={"subject": SUBJECT})).json()
    assert len(answer["data"][place]) == 1502
    monkeypatch.setattr(places, "MOST_ROWS", 1000)
    answer = (await people.post("/privacy/export", json={"subject": SUBJECT})).json()
    assert len(answer["data"][place]) == 1000
    assert "there are more" in answer["receipt"]["places"][0]["why"]
