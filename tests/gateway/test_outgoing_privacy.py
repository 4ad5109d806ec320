"""What models and the endpoints of others are given, and what a tenant's own model is: exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site
from tests.providers.integration.peers import receiving

from erp.runtime.conformance.scaffold import write_provider
from erp.security.privacy.outgoing import LONG_BYTES

pytestmark = pytest.mark.anyio

TEXT = "Write to ada@example.com about order 4711."
REDACTED = "Write to [email] about order 4711."
IMAGE = "iVBORw0KGgo4111111111111111AAAA"
Given = Callable[[], list[dict[str, Any]]]


@pytest.fixture
async def given(site: Site, admin: httpx2.AsyncClient, tmp_path: Path) -> Given:
    """A model elsewhere that is configured for the tenant; returns what it was given so far."""
    folder = write_provider("ai/recorder", site.layer.settings.drop_in_dir)
    shutil.copy(Path(__file__).with_name("recorder.py"), folder / "provider.py")
    manifest = (folder / "provider.yaml").read_text().replace("RecorderAi", "Recorder")
    manifest = manifest.replace("capabilities: []", "capabilities: [chat, chat_streaming, tools, embeddings]")
    head, _, tail = manifest.partition("config:\n")
    config = "  type: object\n  properties: {file: {type: string}}\n"
    (folder / "provider.yaml").write_text(
        f"{head}config:\n{config}authentication:{tail.partition('authentication:')[2]}"
    )
    async with site.client("platform") as platform:
        loaded = await platform.post("/providers:reload")
        assert [item["ref"] for item in loaded.json()["items"]] == ["ai/recorder"], loaded.text
    file = tmp_path / "given.ndjson"
    made = await admin.post("/providers/ai/recorder/configure", json={"config": {"file": str(file)}})
    assert made.status_code < 300, made.text
    return lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def say(client: httpx2.AsyncClient, **settings: Any) -> None:
    answer = await client.put("/privacy/settings", json=settings)
    assert answer.status_code == 200, answer.text


async def ask(client: httpx2.AsyncClient, action: str, provider: str = "recorder", **params: Any) -> Any:
    answer = await client.post(f"/providers/ai/{provider}/{action}", json={"params": params})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def chat(client: httpx2.AsyncClient) -> Any:
    return await ask(client, "chat", messages=[{"role": "user", "text": TEXT}])


async def test_a_model_elsewhere_is_given_redacted_texts_unless_the_tenant_says_otherwise(
    admin: httpx2.AsyncClient, given: Given
) -> None:
    answer = await chat(admin)
    (request,) = given()
    assert request["messages"][0]["text"] == REDACTED
    assert (answer["text"], answer["data"]) == (REDACTED, {"said": REDACTED})


async def test_only_what_the_contract_marks_is_looked_at_and_opaque_parts_stay(
    admin: httpx2.AsyncClient, given: Given
) -> None:
    state = "ada@example.com"
    messages = [
        {"role": "user", "parts": [{"type": "text", "text": TEXT}, {"type": "image", "data": IMAGE, "media_type": "image/png"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "find", "arguments": {"email": state, "n": 1}, "state": state}],
        },
        {"role": "tool", "parts": [{"type": "tool_result", "call_id": "c1", "parts": [{"type": "text", "text": TEXT}]}]},
        {"role": "user", "text": TEXT},
    ]  # fmt: skip
    tools = [{"name": "find", "parameters": {"type": "object", "description": state}}]
    await ask(admin, "chat", instructions=TEXT, messages=messages, tools=tools)
    (request,) = given()
    first, second, third, fourth = request["messages"]
    assert request["instructions"] == REDACTED
    assert first["parts"] == [{"type": "text", "text": REDACTED}, messages[0]["parts"][1]]  # type: ignore[index]
    assert second["parts"][0] == {
        "type": "tool_call", "id": "c1", "name": "find", "arguments": {"email": "[email]", "n": 1}, "state": state,
    }  # fmt: skip
    assert third["parts"][0]["parts"] == [{"type": "text", "text": REDACTED}]
    assert fourth["text"] == REDACTED
    assert request["tools"][0]["parameters"] == tools[0]["parameters"]


async def test_tokens_are_turned_back_in_the_answer_except_in_what_is_opaque(
    admin: httpx2.AsyncClient, given: Given
) -> None:
    await say(admin, treatment={"prompts": "tokenise"})
    answer = await chat(admin)
    (request,) = given()
    sent = request["messages"][0]["text"]
    assert sent.startswith("Write to tok_email.")
    assert "ada@" not in sent
    assert answer["text"] == TEXT
    assert answer["data"] == {"said": TEXT}
    assert answer["parts"][0]["text"] == TEXT
    assert (answer["parts"][1]["arguments"], answer["parts"][1]["state"]) == ({"to": TEXT}, sent)


async def test_a_token_from_elsewhere_is_not_revealed_by_asking_a_model(
    site: Site, admin: httpx2.AsyncClient, given: Given
) -> None:
    await say(admin, treatment={"prompts": "tokenise"})
    foreign = site.layer.treatments.of("acme", "tokenise")("phone", "+49 30 1234567")
    answer = await ask(admin, "chat", messages=[{"role": "user", "text": f"{TEXT} Say {foreign}"}])
    assert answer["text"] == f"{TEXT} Say {foreign}"


async def test_tokens_that_a_stream_cuts_in_pieces_are_turned_back(admin: httpx2.AsyncClient, given: Given) -> None:
    await say(admin, treatment={"prompts": "tokenise"})
    said = "Mail ada@example.com, then tok_ and tok_email and jo@example.com"
    body = {"params": {"messages": [{"role": "user", "text": said}]}}
    async with admin.stream(
        "POST", "/providers/ai/recorder/stream_chat", json=body, headers={"accept": "application/x-ndjson"}
    ) as answer:
        assert answer.status_code == 200
        items = [json.loads(line) async for line in answer.aiter_lines() if line]
    found = [item.get("data", item) for item in items]
    assert "@" not in given()[0]["messages"][0]["text"]
    assert "".join(item["text"] for item in found if item["type"] == "text") == said
    arguments = "".join(item["text"] for item in found if item["type"] == "tool_arguments")
    assert json.loads(arguments) == {"to": said}
    assert found[-1]["answer"]["text"] == said


async def test_a_long_text_is_treated_as_a_short_one(admin: httpx2.AsyncClient, given: Given) -> None:
    await say(admin, treatment={"prompts": "tokenise"})
    said = " ".join([TEXT] * (2 * LONG_BYTES // len(TEXT)))
    answer = await ask(admin, "chat", messages=[{"role": "user", "text": said}])
    assert "@" not in given()[0]["messages"][0]["text"]
    assert answer["text"] == said


async def test_embeddings_are_made_of_treated_texts(admin: httpx2.AsyncClient, given: Given) -> None:
    await ask(admin, "embed", texts=[TEXT, "nothing personal"])
    assert given() == [{"texts": [REDACTED, "nothing personal"], "truncate": True}]


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"treatment": {"prompts": "none"}}, TEXT),
        ({"destinations": {"ai/recorder": "none"}}, TEXT),
        ({"treatment": {"prompts": "none"}, "destinations": {"ai/recorder": "redact"}}, REDACTED),
        ({"destinations": {"ai/recorder": "none", "ai/recorder#default": "redact"}}, REDACTED),
    ],
)
async def test_a_destination_stands_above_the_use(
    admin: httpx2.AsyncClient, given: Given, settings: dict[str, Any], sent: str
) -> None:
    await say(admin, **settings)
    await chat(admin)
    assert given()[0]["messages"][0]["text"] == sent


async def test_a_route_treats_for_the_model_that_is_asked(admin: httpx2.AsyncClient, given: Given) -> None:
    made = await admin.put(
        "/routes/ai/any-model",
        json={"kind": "single", "targets": [{"provider": "recorder", "connection": "default"}]},
    )
    assert made.status_code < 300, made.text
    answer = await admin.post(
        "/providers/ai/any-model/chat", json={"params": {"messages": [{"role": "user", "text": TEXT}]}}
    )
    assert answer.status_code == 200, answer.text
    assert given()[0]["messages"][0]["text"] == REDACTED


async def test_the_model_inside_the_layer_is_given_everything_unless_it_is_named(admin: httpx2.AsyncClient) -> None:
    request = {"provider": "local", "task": "summarize", "text": TEXT, "max_sentences": 1}
    assert (await ask(admin, "generate", **request))["text"] == TEXT
    await say(admin, destinations={"ai/local": "redact"})
    assert (await ask(admin, "generate", **request))["text"] == REDACTED


@pytest.mark.parametrize(
    ("settings", "sent"), [({}, "[email]"), ({"treatment": {"webhooks": "none"}}, "ada@example.com")]
)
async def test_the_endpoint_of_somebody_else_is_given_redacted_payloads_unless_the_tenant_says_otherwise(
    admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], sent: str
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    await say(admin, **settings)
    async with receiving("204 OK") as receiver:
        made = await admin.post(
            "/providers/integration/webhook/create_endpoint", json={"params": {"url": receiver.url}}
        )
        receiver.secret = made.json()["data"]["secret"]
        payload = {"contact": {"email": "ada@example.com"}, "total": "19.90"}
        answer = await admin.post(
            "/providers/integration/webhook/trigger", json={"params": {"name": "order.paid", "payload": payload}}
        )
        assert answer.json()["data"]["status"] == "completed"
        (message,) = receiver.messages
    assert message["data"] == {"contact": {"email": sent}, "total": "19.90"}


async def test_destinations_that_cannot_be_are_refused(admin: httpx2.AsyncClient) -> None:
    for name in ("db/sqlite", "ai", "ai/local#", "ai/../x"):
        refused = await admin.put("/privacy/settings", json={"destinations": {name: "none"}})
        assert refused.status_code == 400, name
    assert (await admin.get("/privacy/settings")).json()["revision"] == "0"
