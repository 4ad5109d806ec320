"""Policies, permissions and consents over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

HEAD = "package tenant\nimport rego.v1\n"
NO_WRITES = HEAD + 'deny contains "nothing is written at month end" if input.target.effect == "write"\n'
SET = "/providers/cache/memory/set"
VALUE = {"params": {"key": "k", "value": 1}}


async def audited(admin: httpx2.AsyncClient, action: str) -> list[dict[str, Any]]:
    items = (await admin.get("/audit")).json()["items"]
    return [item for item in items if item["action"] == action]


async def test_a_policy_counts_from_the_next_call_on_and_can_be_taken_back(site: Site) -> None:
    async with site.client("admin") as admin, site.client() as developer:
        assert (await developer.post(SET, json=VALUE)).status_code == 200
        stored = await admin.put("/policies", json={"source": NO_WRITES, "note": "month end", "revision": ""})
        assert (stored.status_code, stored.json()["number"], stored.json()["note"]) == (200, 1, "month end")

        refused = await developer.post(SET, json=VALUE)
        assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        assert "nothing is written at month end" in refused.json()["detail"]
        assert (await developer.post("/providers/cache/memory/get", json={"params": {"key": "k"}})).status_code == 200

        await admin.put("/policies", json={"source": "", "revision": "1"})
        assert (await developer.post(SET, json=VALUE)).status_code == 200
        back = await admin.post("/policies:rollback", json={"number": 1})
        assert (back.json()["number"], back.json()["source"], back.json()["note"]) == (3, NO_WRITES, "back to 1")
        assert (await developer.post(SET, json=VALUE)).status_code == 403
        listed = (await admin.get("/policies", params={"limit": 2})).json()
        assert [item["number"] for item in listed["items"]] == [3, 2]
        rest = (await admin.get("/policies", params={"cursor": listed["next_cursor"]})).json()
        assert [item["number"] for item in rest["items"]] == [1]
        assert [item["target"] for item in await audited(admin, "policies.put")] == ["2", "1"]
        assert [item["target"] for item in await audited(admin, "policies.roll_back")] == ["3"]


async def test_a_change_that_was_overtaken_is_a_conflict(admin: httpx2.AsyncClient) -> None:
    assert (await admin.put("/policies", json={"source": NO_WRITES, "revision": ""})).status_code == 200
    for revision in ("", "7"):
        late = await admin.put("/policies", json={"source": "", "revision": revision})
        assert late.status_code == 409
    assert len((await admin.get("/policies")).json()["items"]) == 1


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("package tenant\nimport rego.v1\ndeny contains", "policy.rego:"),
        (HEAD + 'deny contains "x" if http.send({}).a\n', "policy.rego:3: Policies may not call http.send."),
        (HEAD + 'deny contains "x" if { y with input as 1 }\n', "policy.rego:3: Policies may not use `with`."),
        ("package other\nimport rego.v1\ndeny contains 1 if true\n", "It answers no set of texts"),
        (HEAD + "deny contains 1 if true\n", "It answers no set of texts"),
    ],
)
async def test_a_policy_that_cannot_work_is_refused_and_nothing_changes(site: Site, source: str, finding: str) -> None:
    async with site.client("admin") as admin, site.client() as developer:
        refused = await admin.put("/policies", json={"source": source})

        assert refused.status_code == 400
        error = refused.json()["errors"][0]
        assert error["pointer"] == "/source"
        assert finding in error["message"]
        assert "How to fix" in error["message"]
        assert (await admin.get("/policies")).json()["items"] == []
        assert (await developer.post(SET, json=VALUE)).status_code == 200


@pytest.mark.parametrize("role", ["developer", "operator"])
async def test_only_administrators_change_policies(site: Site, role: str) -> None:
    async with site.client(role) as client:
        assert (await client.put("/policies", json={"source": ""})).status_code == 403
        assert (await client.post("/policies:rollback", json={"number": 1})).status_code == 403


async def test_another_tenants_policies_cannot_be_seen(site: Site) -> None:
    async with site.client("platform") as platform, site.client("admin") as admin:
        await platform.post("/tenants", json={"id": "globex"})
        await platform.put("/policies", params={"tenant": "globex"}, json={"source": NO_WRITES})

        assert (await admin.get("/policies", params={"tenant": "globex"})).status_code == 403
        assert (await admin.post("/policies:rollback", json={"number": 1})).status_code == 404


async def test_a_decision_is_explained_without_being_carried_out(admin: httpx2.AsyncClient) -> None:
    target = {"area": "providers", "domain": "cache", "name": "memory", "action": "set"}
    asked = {"actor": {"roles": ["developer"]}, "target": target}

    assert (await admin.post("/policies:test", json=asked)).json() == {
        "allow": True,
        "reason": "role developer",
        "grants": ["role developer"],
        "denials": [],
    }
    tried = await admin.post("/policies:test", json={**asked, "source": NO_WRITES})
    assert tried.json() == {
        "allow": False,
        "reason": "nothing is written at month end",
        "grants": ["role developer"],
        "denials": ["nothing is written at month end"],
    }
    assert (await admin.post("/policies:test", json=asked)).json()["allow"] is True
    unclear = {"target": {"area": "admin", "domain": "keys", "name": "*", "action": "create"}}
    assert (await admin.post("/policies:test", json=unclear)).json()["errors"][0]["pointer"] == "/target/effect"
    unknown = {"target": {**target, "action": "fly"}}
    assert (await admin.post("/policies:test", json=unknown)).status_code == 404


async def test_a_shadow_is_reported_only_where_there_is_one(site: Site) -> None:
    async with site.client("platform") as platform, site.client("admin") as admin:
        assert (await platform.get("/policies:shadow")).status_code == 404
        assert (await admin.get("/policies:shadow")).status_code == 403


async def test_everybody_can_see_who_they_are_and_what_they_may_do(site: Site) -> None:
    async with site.client("admin") as admin:
        made = await admin.post("/keys", json={"role": "developer", "scopes": ["providers:cache/*:read"]})
    site.keys["narrow"] = made.json()["key"]
    async with site.client("narrow") as narrow:
        me = (await narrow.get("/me")).json()
        assert (me["tenant"], me["roles"], me["scopes"]) == ("acme", ["developer"], ["providers:cache/*:read"])
        items = (await narrow.get("/me/permissions", params={"domain": "cache"})).json()["items"]
        by_action = {item["action"]: item for item in items}
        assert by_action["providers/cache/memory/get"] == {
            "action": "providers/cache/memory/get",
            "allow": True,
            "reason": "role developer",
        }
        assert by_action["providers/cache/memory/set"]["allow"] is False
        assert by_action["providers/cache/memory/set"]["reason"] == "no scope of the key covers it"


async def test_an_agent_destroys_nothing_and_administers_nothing(site: Site) -> None:
    async with site.client("admin") as admin:
        made = await admin.post("/keys", json={"role": "agent"})
    site.keys["agent"] = made.json()["key"]
    async with site.client("agent") as agent, site.client() as developer:
        assert (await agent.post(SET, json=VALUE)).status_code == 200
        listed = await agent.get("/providers/storage")
        destructive = next(item["name"] for item in listed.json()["actions"] if item["effect"] == "destructive")
        refused = await agent.post(f"/providers/storage/filesystem/{destructive}", json={"params": {"key": "k"}})
        assert refused.status_code == 403
        assert "agents may not do what cannot be undone" in refused.json()["detail"]
        assert (await agent.post("/keys", json={"role": "agent"})).status_code == 403
        assert (await developer.post("/providers/cache/memory/get", json={"params": {"key": "k"}})).json()["data"][
            "found"
        ]


async def test_a_call_for_a_purpose_needs_the_subjects_consent(site: Site) -> None:
    purposed = {"params": {"key": "k"}, "metadata": {"purpose": "marketing", "subject": "customer-1"}}
    get = "/providers/cache/memory/get"
    async with site.client("admin") as admin, site.client() as developer:
        assert (await developer.post(get, json=purposed)).status_code == 403
        recorded = await admin.put(
            "/consents/customer-1/marketing", json={"state": "granted", "evidence": "form 7 of 2026-11-02"}
        )
        assert (recorded.status_code, recorded.json()["state"]) == (200, "granted")
        assert (await developer.post(get, json=purposed)).status_code == 200
        await admin.put("/consents/customer-1/marketing", json={"state": "withdrawn"})
        assert (await developer.post(get, json=purposed)).status_code == 403
        found = (await admin.get("/consents", params={"subject": "customer-1"})).json()["items"]
        assert [(item["purpose"], item["state"]) for item in found] == [("marketing", "withdrawn")]
        assert len(await audited(admin, "consents.record")) == 2
        contract = {**purposed, "metadata": {"purpose": "contract"}}
        assert (await developer.post(get, json=contract)).status_code == 200
        wrong = {**purposed, "metadata": {"purpose": 7}}
        assert (await developer.post(get, json=wrong)).json()["errors"][0]["pointer"] == "/metadata/purpose"
        assert (await developer.put("/consents/customer-1/marketing", json={"state": "granted"})).status_code == 403


async def test_access_is_evaluated_as_authzen_says(site: Site) -> None:
    async with site.client("admin") as admin:
        key = (await admin.post("/keys", json={"role": "developer"})).json()["id"]
        subject = {"type": "key", "id": key}
        resource = {"type": "provider", "id": "cache/memory"}
        one = {"subject": subject, "action": {"name": "get"}, "resource": resource}

        assert (await admin.post("/access/v1/evaluation", json=one)).json() == {
            "decision": True,
            "context": {"reason": "role developer"},
        }
        several = {
            "subject": subject,
            "action": {"name": "list"},
            "evaluations": [{"resource": {"type": "administration", "id": "keys"}}, {**one}],
        }
        answered = (await admin.post("/access/v1/evaluations", json=several)).json()["evaluations"]
        assert [item["decision"] for item in answered] == [False, True]
        incomplete = {"subject": subject, "evaluations": [{"resource": resource}]}
        refused = await admin.post("/access/v1/evaluations", json=incomplete)
        assert refused.json()["errors"][0]["pointer"] == "/evaluations/0/action"
