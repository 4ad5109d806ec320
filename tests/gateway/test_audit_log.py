from __future__ import annotations

import base64
import json
from pathlib import Path

import httpx2
import jsonschema_rs
import pytest
from tests.gateway.conftest import Site

from erp.control_plane.merkle import check_consistency, check_inclusion
from erp.runtime.ports import Completion
from erp.security.audit_export_check import examine
from erp.security.signed_note import PublicKey, opened

pytestmark = pytest.mark.anyio

SET = "/providers/cache/memory/set"
SCHEMA = json.loads((Path(__file__).parents[1] / "security" / "ocsf-1.8.0.json").read_text())


async def call(client: httpx2.AsyncClient, count: int) -> None:
    for number in range(count):
        answer = await client.post(SET, json={"params": {"key": str(number), "value": number}})
        assert answer.status_code == 200


def raw(text: str) -> bytes:
    return base64.b64decode(text)


async def test_a_record_is_proved_to_be_under_a_signed_checkpoint(
    client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await call(client, 5)
    key = PublicKey.parse((await admin.get("/audit/key")).json()["keys"][-1])
    made = await admin.post("/audit/checkpoints", json={})
    assert (made.status_code, made.json()["size"]) == (200, 5)
    proof = (await admin.get("/audit/proofs/3")).json()
    signed = opened(proof["checkpoint"], [key])
    assert (signed.origin, signed.size, proof["size"]) == ("erp-audit/acme", 5, 5)
    check_inclusion(raw(proof["leaf"]), 2, 5, [raw(one) for one in proof["path"]], signed.root)
    assert (await admin.get("/audit/proofs/6")).status_code == 404
    assert (await admin.get("/audit/proofs/0")).status_code == 400
    assert (await client.get("/audit/proofs/3")).status_code == 403


async def test_the_log_is_proved_to_have_only_grown(client: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    await call(client, 3)
    await admin.post("/audit/checkpoints", json={})
    await call(client, 4)
    await admin.post("/audit/checkpoints", json={})
    newest, oldest = (await admin.get("/audit/checkpoints")).json()["items"]
    assert (newest["size"], oldest["size"]) == (7, 3)
    keys = [PublicKey.parse(text) for text in (await admin.get("/audit/key")).json()["keys"]]
    proof = (await admin.get("/audit/consistency", params={"from": 3, "to": 7})).json()
    roots = [opened(one["note"], keys).root for one in (oldest, newest)]
    check_consistency(3, 7, *roots, [raw(one) for one in proof["path"]])
    refused = await admin.get("/audit/consistency", params={"from": 8, "to": 7})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/query/from")


async def test_an_export_is_checked_with_the_public_key_alone_and_every_line_is_an_ocsf_event(
    site: Site, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await call(client, 3)
    assert (await client.get("/quotas")).status_code == 403
    created = await admin.post("/keys", json={"role": "developer", "name": "robot"})
    asked = {"reason": "to try it", "role": "operator", "minutes": 1}
    assert (await client.post("/break-glass", json=asked)).status_code == 201
    await site.layer.control.journal.close()
    export = await admin.get("/audit:export")
    assert export.headers["content-type"].startswith("application/x-ndjson")
    lines = export.content.splitlines(keepends=True)
    key = PublicKey.parse((await admin.get("/audit/key")).json()["keys"][-1])
    found = examine(lines, key)
    assert (found.is_whole, found.chain.seq, found.tenant) == (True, 6, "acme")
    events = [json.loads(line) for line in lines]
    validator = jsonschema_rs.Draft202012Validator(SCHEMA)
    for event in events:
        assert [error.message for error in validator.iter_errors(event)] == []
    kinds = {(event["class_uid"], event["activity_name"]) for event in events}
    assert kinds == {(6003, "Update"), (6003, "Read"), (3001, "Create"), (3005, "Assign Privileges"), (0, "Checkpoint")}
    refused = next(event for event in events if event.get("status_code") == "permission_denied")
    assert (refused["api"]["operation"], refused["severity_id"], refused["status"]) == ("quotas.list", 3, "Failure")
    assert created.json()["key"] not in export.text


async def test_a_tampered_export_is_found_out(client: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    await call(client, 5)
    lines = (await admin.get("/audit:export")).content.splitlines(keepends=True)
    key = PublicKey.parse((await admin.get("/audit/key")).json()["keys"][-1])
    changed = lines[2].replace(b"cache/memory.set", b"cache/memory.got")
    prettier = lines[2].replace(b'"severity_id":1', b'"severity_id":2')
    for tampered, broken_at, reason in (
        ([*lines[:2], changed, *lines[3:]], 3, "the record was changed"),
        ([*lines[:2], prettier, *lines[3:]], 3, "the event does not say what its record says"),
        ([*lines[:2], *lines[3:]], 3, "record 3 is missing"),
        ([lines[1], lines[0], *lines[2:]], 1, "record 1 is missing"),
        ([*lines[:3], lines[2], *lines[3:]], 4, "record 4 is missing"),
        ([*lines[:4], lines[5]], 5, "5 records were signed, the file has 4"),
        (lines[:5], 6, "the file ends without a signed checkpoint: it was cut off"),
        ([*lines, lines[4]], 6, "lines were added behind the signed checkpoint"),
        ([*lines[:2], b"{", *lines[3:]], 3, "the line is not JSON"),
        ([*lines[:2], b"{}\n", *lines[3:]], 3, "the line is not an audit event"),
    ):
        found = examine(tampered, key)
        assert (found.is_whole, found.broken_at, found.reason) == (False, broken_at, reason)
    other = PublicKey(key.name, bytes(32))
    assert "not signed by the key" in examine(lines, other).reason


async def test_retention_is_a_setting_and_erasure_is_the_platforms(
    site: Site, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await call(client, 4)
    short = await admin.put("/audit/retention/security", json={"days": 1})
    assert (short.status_code, short.json()["errors"][0]["pointer"]) == (400, "/days")
    kept = await admin.put("/audit/retention/calls", json={"days": 30})
    assert kept.json() == {"name": "calls", "days": 30, "shortest_days": 1}
    assert (await admin.put("/audit/retention/others", json={"days": 30})).status_code == 404
    wish = {"first": 2, "last": 3, "reason": "a person asked for it"}
    assert (await admin.post("/audit:erase", json=wish)).status_code == 403
    async with site.client("platform") as platform:
        erased = await platform.post("/audit:erase", params={"tenant": "acme"}, json=wish)
        assert (erased.status_code, erased.json()) == (200, {"deleted": {"all": 2}})
    lines = (await admin.get("/audit:export")).content.splitlines(keepends=True)
    key = PublicKey.parse((await admin.get("/audit/key")).json()["keys"][-1])
    found = examine(lines, key)
    assert (found.is_whole, found.chain.deleted) == (True, 2)
    assert json.loads(lines[1])["activity_name"] == "Deleted"
    (told,) = (await admin.get("/audit", params={"action": "audit.delete"})).json()["items"]
    assert (told["reason"], told["detail"]["ranges"]) == ("a person asked for it", [[2, 3]])


async def test_search_narrows_by_effect_request_and_text_of_action(
    client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await client.post(SET, json={"params": {"key": "a", "value": 1}}, headers={"X-Request-Id": "req-known"})
    await admin.put("/quotas/day", json={"limit": 1000})
    await admin.delete("/quotas/day")

    async def found(**filters: str) -> list[str]:
        return [one["action"] for one in (await admin.get("/audit", params=filters)).json()["items"]]

    assert await found(effect="destructive") == ["quotas.delete"]
    assert await found(request_id="req-known") == ["cache.set"]
    assert await found(action="quotas.") == ["quotas.delete", "quotas.set"]


async def test_what_the_contract_marks_reaches_no_record(
    site: Site, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    """Failures repeat what was sent; records do not."""
    from erp.contracts.loading import catalog
    from erp.contracts.models.errors import ErrorCode
    from erp.errors import ProviderError
    from erp.runtime import effects
    from erp.runtime.action import Action
    from erp.runtime.call import Call
    from erp.runtime.context import Actor

    contract = catalog()["services"]["order"]["actions"]["submit"]
    body = json.dumps(
        {"params": {"customer": {"id": "c-1", "name": "Ada Lovelace", "email": "ada@example.org"}}}
    ).encode()
    actor = Actor(id="key_1", tenant="acme")
    made = Call(action=Action("services", "order", "submit", contract), actor=actor, provider="", body=body)
    failure = ProviderError(ErrorCode.ALREADY_EXISTS, "Ada Lovelace <ada@example.org> has order 17 of c-1.")
    ended = effects.failed(made, None, failure, may_repeat=False)
    assert ended.audit.reason == "[redacted] <[redacted]> has order 17 of c-1."
    await site.layer.control.journal.complete(Completion(audit=ended.audit))
    assert "Ada" not in (await admin.get("/audit")).text
