"""A client that holds every answer it receives to the OpenAPI document."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs

from erp.contracts.loading import document


@cache
def openapi() -> dict[str, Any]:
    """The generated document."""
    found: dict[str, Any] = json.loads(document("openapi.json"))
    return found


@cache
def _templates() -> list[tuple[re.Pattern[str], str]]:
    """Path templates, those with the fewest parameters first."""
    paths = sorted(openapi()["paths"], key=lambda path: path.count("{"))
    return [(re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"), path) for path in paths]


def operation(method: str, path: str) -> dict[str, Any] | None:
    """Return the documented operation of a request; None when there is none."""
    for pattern, template in _templates():
        found = openapi()["paths"][template].get(method.lower())
        if found is not None and pattern.match(path):
            return dict(found)
    return None


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = openapi()
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def check(response: httpx2.Response) -> None:
    """Fail when ``response`` is not what the document promises for its request."""
    request = response.request
    where = f"{request.method} {request.url.path} -> {response.status_code}"
    found = operation(request.method, request.url.path)
    if found is None:
        assert response.status_code in {404, 405}, f"{where}: the operation is not in openapi.json"
        _check_body(response, _problem_schema(), where)
        return
    status = str(response.status_code)
    if status not in found["responses"] and f"{status[0]}XX" in found["responses"]:
        status = f"{status[0]}XX"
    assert status in found["responses"], f"{where}: the status is not documented: {sorted(found['responses'])}"
    described = _resolved(found["responses"][status])
    content = described.get("content")
    if not content:
        assert response.content == b"", f"{where}: a body that is not documented"
        return
    if "*/*" in content:
        return
    if request.method == "HEAD":
        assert response.content == b"", f"{where}: a body in the answer to HEAD"
        return
    kind = response.headers["content-type"].split(";")[0]
    assert kind in content, f"{where}: content type {kind} is not documented: {sorted(content)}"
    if "json" in kind and kind != "application/x-ndjson":
        _check_body(response, content[kind]["schema"], where)


def _problem_schema() -> dict[str, Any]:
    return {"$ref": "#/components/schemas/Problem"}


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    """Compiled once for each schema: with all components it takes as long as the rest of a short test."""
    root = {**json.loads(schema), "components": openapi()["components"]}
    return jsonschema_rs.Draft202012Validator(root, validate_formats=True)


def _check_body(response: httpx2.Response, schema: dict[str, Any], where: str) -> None:
    errors = list(_validator(json.dumps(schema)).iter_errors(response.json()))
    shown = "\n".join(f"  {list(error.instance_path)}: {error.message[:300]}" for error in errors[:5])
    assert not errors, f"{where}: the answer is not what openapi.json says\n{shown}\n{response.text[:1000]}"


class ContractTransport(httpx2.AsyncBaseTransport):
    """Passes requests to an ASGI application and checks every answer."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx2.ASGITransport(app=app, raise_app_exceptions=True)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-type", "").startswith(("application/x-ndjson", "text/event-stream")):
            return response
        await response.aread()
        response.request = request
        check(response)
        return response


def contract_client(app: Any, key: str | None = None) -> httpx2.AsyncClient:
    """Return a client of ``app`` that checks every answer."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(transport=ContractTransport(app), base_url="http://layer.test", headers=headers)


def _checked(response: httpx2.Response) -> None:
    if response.headers.get("content-type", "").startswith(("application/x-ndjson", "text/event-stream")):
        return
    response.read()
    check(response)


def live_client(address: str, key: str | None = None) -> httpx2.Client:
    """Return a client of the server at ``address`` that checks every answer."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    hooks = {"response": [_checked]}
    return httpx2.Client(base_url=address, headers=headers, event_hooks=hooks, timeout=30.0, trust_env=False)
