"""Writes the OpenAPI 3.1 document: gateway operations as authored, one path per action derived."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from erp.contracts.dialect import COMMON_ERRORS
from erp.contracts.models_writer import pascal
from erp.contracts.schemas import pointed

if TYPE_CHECKING:
    from erp.contracts.authored import Authored, Contract

PREFIX = "#/components/schemas/"
SCIM = "application/scim+json"
"""Media type of operations with ``scim: true`` (RFC 7644, section 8.1), whose errors are SCIM's too."""
_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    "X-Tenant-Id": {"type": "string"},
    "X-User-Id": {"type": "string", "minLength": 1, "maxLength": 255},
    "X-Connection": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$", "default": "default"},
    "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255},
    "traceparent": {"type": "string"},
    "Prefer": {"type": "string"},
    "Last-Event-ID": {"type": "string", "maxLength": 18},
}
_HEADER_TEXTS = {
    "X-Request-Id": "Names the request in logs and audit records; made up when absent.",
    "X-Tenant-Id": "Must agree with the credential's tenant.",
    "X-User-Id": "On whose behalf the caller says it acts; recorded, never trusted.",
    "X-Connection": "Which of the tenant's connections of the provider.",
    "Idempotency-Key": "A repeated request with the same key replays the first answer.",
    "traceparent": "W3C trace context.",
    "Prefer": "wait=N bounds the call to N seconds; respond-async answers with an operation (RFC 7240).",
    "Last-Event-ID": "The id of the last event that arrived; what came after it is sent.",
}
_ANSWER_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"type": "string"},
    "traceparent": {"type": "string"},
    "Server-Timing": {"type": "string"},
    "RateLimit": {"type": "string"},
    "RateLimit-Policy": {"type": "string"},
    "Retry-After": {"type": "integer"},
    "Deprecation": {"type": "string"},
    "Sunset": {"type": "string"},
}
_COMMON_STATUSES = {401, 403, 429, 500, 503}
_BODY_STATUSES = {400, 408, 413, 415, 431}
_STATUS_TITLES = {
    400: "The request does not match the contract.", 401: "No valid credential.", 403: "Not allowed.",
    404: "Something named in the request does not exist.", 405: "The method is not allowed here.",
    408: "The body came too slowly.", 409: "A collision with the present state or a running request.",
    412: "A required state does not hold.", 413: "The body is too large.", 415: "The body is not JSON.",
    422: "The Idempotency-Key was used for another request.", 429: "A rate limit or quota is reached.",
    431: "The headers are too large.", 499: "The caller went away.", 500: "An unforeseen failure of the platform.",
    501: "The provider does not have the capability.", 502: "The outcome is unknown, or partial.",
    503: "The provider or the layer cannot serve now.", 504: "The provider did not answer in time.",
}  # fmt: skip


def openapi(authored: Authored) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, Any] = {}
    for operation_id, operation in authored.gateway["operations"].items():
        paths.setdefault(operation["path"], {})[operation["method"]] = _operation(operation_id, operation)
    for contract in authored.contracts:
        for name, action in contract.actions.items():
            if not action.get("internal"):
                paths[_path(contract, name)] = {"post": _call(authored, contract, name, action)}
    for path, methods in paths.items():
        parameters = [_path_parameter(name) for name in re.findall(r"\{(\w+)\}", path)]
        if parameters:
            methods["parameters"] = parameters
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ERP Provider Layer",
            "version": authored.gateway["version"],
            "summary": "One contract for every system an ERP depends on.",
            "description": "Generated from the contracts; every answer of the test run is held to it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server."}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": _tags(authored),
        "paths": paths,
        "components": _components(authored),
    }


def _tags(authored: Authored) -> list[dict[str, str]]:
    named = {
        "discovery": "What there is.",
        "connections": "A tenant's configured providers.",
        "routes": "A tenant's own names for connections.",
        "operations": "Calls that nobody waits for.",
        "administration": "Tenants, keys, quotas, audit.",
        "audit": "Proofs of the audit records, and how long they are kept.",
        "break-glass": "A further role for a limited time.",
        "access": "Who may do what, and why.",
        "directory": "People and groups as identity management provisions them (SCIM 2.0).",
        "sessions": "People in browsers, and tokens that end before their time.",
        "links": "URLs that need no key.",
        "status": "The process itself.",
    }
    contracts = {f"{item.kind}: {item.name}": item.document["summary"] for item in authored.contracts}
    return [{"name": name, "description": text} for name, text in (named | contracts).items()]


def _path(contract: Contract, action: str) -> str:
    if contract.kind == "service":
        return f"/services/{contract.name}/{action}"
    return f"/providers/{contract.name}/{{name}}/{action}"


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _operation(operation_id: str, operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": operation_id, "tags": [operation["tag"]], "summary": operation["summary"]}
    if "description" in operation:
        found["description"] = operation["description"]
    if operation.get("public"):
        found["security"] = []
    found["parameters"] = [
        *({"$ref": f"#/components/parameters/{name}"} for name in ("X-Request-Id", "X-Tenant-Id", "traceparent")),
        *({"$ref": f"#/components/parameters/{name}"} for name in operation.get("headers", [])),
        *(_query(name, schema) for name, schema in operation.get("query", {}).items()),
    ]
    if "request" in operation:
        schema = {"$ref": f"{PREFIX}{pascal_of(operation_id)}Request"}
        found["requestBody"] = {"required": True, "content": {_media_type(operation): {"schema": schema}}}
    if "request_bytes" in operation:
        found["requestBody"] = {"content": _any_bytes(operation["request_bytes"])}
    found["responses"] = _responses(operation)
    return found


def pascal_of(operation_id: str) -> str:
    """``createTenant`` -> ``CreateTenant``."""
    return operation_id[:1].upper() + operation_id[1:]


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": pointed(schema, PREFIX)}


def _responses(operation: dict[str, Any]) -> dict[str, Any]:
    status = operation.get("status", 200)
    responses = {str(status): _success(operation)}
    if operation.get("part"):
        responses["206"] = _response("A part of it.", _any_bytes(operation["bytes"]))
    for other, text in operation.get("empty", {}).items():
        responses[str(other)] = {"description": text, "headers": _headers("X-Request-Id")}
    for other, name in operation.get("also", {}).items():
        content = {"application/json": {"schema": {"$ref": PREFIX + name}}}
        if not operation.get("public"):
            content["application/problem+json"] = {"schema": {"$ref": f"{PREFIX}Problem"}}
        responses[str(other)] = _response(operation["summary"], content)
    common = set() if operation.get("public") and not operation.get("link") else {401, 403, 429, 431, 500, 503}
    body = _BODY_STATUSES if "request" in operation else {400} if operation.get("headers") else set()
    for problem in sorted({*operation["problems"], *common, *body}):
        if operation.get("scim"):
            content = {SCIM: {"schema": {"$ref": f"{PREFIX}ScimError"}}}
            responses.setdefault(str(problem), _response(_STATUS_TITLES[problem], content))
            continue
        responses.setdefault(str(problem), {"$ref": f"#/components/responses/{problem}"})
    return dict(sorted(responses.items()))


def _success(operation: dict[str, Any]) -> dict[str, Any]:
    if "page" in operation:
        schema = {
            "type": "object",
            "additionalProperties": False,
            "required": ["items"],
            "properties": {
                "items": {"type": "array", "items": {"$ref": PREFIX + operation["page"]}},
                "next_cursor": {"type": "string", "description": "Absent on the last page."},
            },
        }
        return _response(operation["summary"], {"application/json": {"schema": schema}})
    if "bytes" in operation:
        return _response(operation["summary"], _any_bytes(operation["bytes"]))
    if "text" in operation:
        return _response(operation["summary"], {operation["text"]: {"schema": {"type": "string"}}})
    if "answer" in operation:
        schema = {"$ref": PREFIX + operation["answer"]}
        return _response(operation["summary"], {_media_type(operation): {"schema": schema}})
    return {"description": "Done.", "headers": _headers("X-Request-Id")}


def _media_type(operation: dict[str, Any]) -> str:
    return SCIM if operation.get("scim") else "application/json"


def _any_bytes(media_type: str) -> dict[str, Any]:
    return {media_type: {"schema": {}}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _response(description: str, content: dict[str, Any], *headers: str) -> dict[str, Any]:
    return {"description": description, "headers": _headers("X-Request-Id", *headers), "content": content}


def _call(authored: Authored, contract: Contract, name: str, action: dict[str, Any]) -> dict[str, Any]:
    base = f"{pascal(contract.name)}{pascal(name)}"
    headers = ["X-Request-Id", "X-Tenant-Id", "X-User-Id", "traceparent", "Prefer"]
    headers += ["Idempotency-Key"] if action["effect"] != "read" else []
    headers += ["X-Connection"] if contract.kind == "domain" else []
    found: dict[str, Any] = {
        "operationId": f"{contract.name}_{name}",
        "tags": [f"{contract.kind}: {contract.name}"],
        "summary": action["summary"],
        "parameters": [{"$ref": f"#/components/parameters/{header}"} for header in headers],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"{PREFIX}{base}Call"}}},
        },
        "responses": _call_responses(authored, base, action),
        "x-erp-effect": action["effect"],
        "x-erp-idempotent": action["idempotent"],
    }
    for key, target in (("description", "description"), ("capability", "x-erp-capability")):
        if key in action:
            found[target] = action[key]
    if "deprecated" in action:
        found["deprecated"] = True
    return found


def _call_responses(authored: Authored, base: str, action: dict[str, Any]) -> dict[str, Any]:
    if action.get("streaming"):
        item = {"schema": {"type": "string", "description": f"Items of {base}Result, one per line or event."}}
        success = _response("The items.", {"application/x-ndjson": item, "text/event-stream": item})
    else:
        content = {"application/json": {"schema": {"$ref": f"{PREFIX}{base}Answer"}}}
        success = _response("The result.", content, *list(_ANSWER_HEADERS)[1:])
    later = {} if action.get("streaming") else {"202": _accepted()}
    codes = {*COMMON_ERRORS, "not_found", *action.get("errors", [])}
    statuses = {authored.errors[code]["status"] for code in codes} | _BODY_STATUSES | {422}
    refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    return {"200": success} | later | refused


def _accepted() -> dict[str, Any]:
    """Describe the answer to ``Prefer: respond-async``."""
    content = {"application/json": {"schema": {"$ref": f"{PREFIX}Operation"}}}
    return _response("Accepted; the operation says how it ends.", content, "Retry-After")


def _components(authored: Authored) -> dict[str, Any]:
    schemas: dict[str, Any] = pointed(authored.gateway["$defs"], PREFIX)
    for operation_id, operation in authored.gateway["operations"].items():
        if "request" in operation:
            schemas[f"{pascal_of(operation_id)}Request"] = pointed(operation["request"], PREFIX)
    for name, schema in authored.schemas.items():
        schemas.setdefault(
            pascal(name), pointed({key: value for key, value in schema.items() if key != "$defs"}, PREFIX)
        )
    for contract in authored.contracts:
        schemas |= {
            f"{pascal(contract.name)}{name}": _shared(contract, item) for name, item in contract.definitions.items()
        }
        for name, action in contract.actions.items():
            if not action.get("internal"):
                schemas |= _action_schemas(contract, name, action)
    statuses = {spec["status"] for spec in authored.errors.values()} | _BODY_STATUSES | {405, 422}
    return {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        },
        "parameters": {
            name: {"name": name, "in": "header", "description": _HEADER_TEXTS[name], "schema": schema}
            for name, schema in _HEADERS.items()
        },
        "headers": {name: {"schema": schema} for name, schema in _ANSWER_HEADERS.items()},
        "responses": {str(status): _problem(status) for status in sorted(statuses)},
        "schemas": schemas,
    }


def _shared(contract: Contract, schema: Any) -> Any:
    """Return ``schema`` with its references pointing to the components made of the contract's definitions."""
    return pointed(schema, f"{PREFIX}{pascal(contract.name)}")


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": f"{PREFIX}Problem"}}}
    extra = ["Retry-After"] if status in {409, 429, 503} else []
    return _response(_STATUS_TITLES[status], content, *extra)


def _action_schemas(contract: Contract, name: str, action: dict[str, Any]) -> dict[str, Any]:
    base = f"{pascal(contract.name)}{pascal(name)}"
    params = {"$ref": f"{PREFIX}{base}Params"}
    answer = {
        "type": "object",
        "additionalProperties": False,
        "required": ["data", "meta"],
        "properties": {"data": {"$ref": f"{PREFIX}{base}Result"}, "meta": {"$ref": f"{PREFIX}Meta"}},
    }
    call = {
        "type": "object",
        "additionalProperties": False,
        "required": ["params"],
        "properties": {
            "params": params,
            "metadata": {"type": "object", "additionalProperties": True},
            "action": {"type": "string", "const": name},
        },
    }
    if action.get("examples"):
        call["examples"] = [{"params": example["params"]} for example in action["examples"]]
    found = {
        f"{base}Params": _shared(contract, action["params"]),
        f"{base}Result": _shared(contract, action["result"]),
        f"{base}Call": call,
    }
    return found if action.get("streaming") else found | {f"{base}Answer": answer}
