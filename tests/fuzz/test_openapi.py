"""Requests made up from the whole OpenAPI document, as three roles of one tenant beside another tenant.

No answer has status 500, one that the document does not know, or anything of the other tenant. What is made up is the
same in every run.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from tests.hostile.conftest import Scene
from tests.hostile.plants import ATTACKER, CONTENT, MARK

from erp.contracts.loading import document

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

EXAMPLES = 2
ROLES = ("admin", "developer", "operator")
STREAMS = ("/events",)
OPERATIONS = {
    operation.label: operation
    for operation in (
        found.ok()
        for found in schemathesis.openapi.from_dict(json.loads(document("openapi.json"))).get_all_operations()
    )
    if not operation.path.endswith(STREAMS)
}


def cases(operation: Any) -> list[Any]:
    """Requests that fit the document, and some that do not."""
    found: list[Any] = []
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def collect(case: Any) -> None:
            found.append(case)

        try:
            collect()
        except Exception as error:
            if type(error).__name__ not in {"Unsatisfiable", "FailedHealthCheck", "SkipTest", "Skipped"}:
                raise
    return found


async def answered(client: httpx2.AsyncClient, case: Any) -> httpx2.Response:
    """Send a request; the client holds its answer to the document."""
    given = case.as_transport_kwargs(base_url="http://layer.test")
    headers = {name: value for name, value in given["headers"].items() if name.lower() not in SET_BY_CLIENT}
    sent = given.get("data") or b""
    body = {"json": given["json"]} if "json" in given else {"data" if isinstance(sent, dict) else "content": sent}
    return await client.request(
        given["method"], given["url"], params=given.get("params"), headers=headers, timeout=30.0, **body
    )


SET_BY_CLIENT = {"authorization", "content-length", "user-agent"}


@pytest.fixture(scope="module")
async def keys(scene: Scene) -> dict[str, str]:
    """A key of the attacker's for each role."""
    found = {}
    for role in ROLES:
        _, found[role] = await scene.layer.control.api_keys.create(ATTACKER, role=role)
        scene.keys[f"fuzz {role}"] = found[role]
    return found


@pytest.mark.parametrize("label", sorted(OPERATIONS))
async def test_whatever_is_asked_is_answered_as_documented_and_tells_nothing(
    scene: Scene, keys: dict[str, str], label: str
) -> None:
    del keys
    told = []
    made = cases(OPERATIONS[label])
    for role in ROLES:
        async with scene.client(f"fuzz {role}") as client:
            for case in made:
                answer = await answered(client, case)
                assert answer.status_code != 500, f"{role}: {label}: {answer.text}"
                if MARK in answer.text or CONTENT in answer.text:
                    told.append((role, label, answer.status_code))
    assert told == []


async def test_the_other_tenant_has_everything_it_had(scene: Scene) -> None:
    assert await scene.now() == scene.before
