"""What Vault's published OpenAPI document says of the answers of the double: operations, statuses and schemas.

``vault_openapi.json`` holds of that document the operations that the double answers, without its prose; ``source`` in it
says which one. A schema describes what is inside ``data`` of an answer. Stricter than the document, which marks no
property as required and forbids none: an answer has all those that its schema lists, and no others. Looser: what it
leaves open is named here, each with its reason.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs

DOCUMENT: dict[str, Any] = json.loads(Path(__file__).with_name("vault_openapi.json").read_text())
MOUNTS = {
    "approle_mount_path": "approle",
    "jwt_mount_path": "jwt",
    "kubernetes_mount_path": "kubernetes",
    "kv_v2_mount_path": "secret",
    "transit_mount_path": "transit",
}
_DATA = "/{kv_v2_mount_path}/data/{path}"
_METADATA = "/{kv_v2_mount_path}/metadata/{path}"
_KEYS = "/{transit_mount_path}/keys/{name}"
_FAILED, _NO_CONTENT = 400, 204
_GO_DURATION = re.compile(r"-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+|0")


class Answered(NamedTuple):
    """An answer of an operation, as the document names it."""

    verb: str
    template: str
    status: int


_LOGIN = "a login answers with `auth` in the envelope; the document describes no envelope"
_BARE = "the operation declares no schema, and the document's generator then writes 200 without one"
_HEALTH = "health answers without an envelope, and the document describes the statuses alone"

UNDESCRIBED = {
    Answered("post", "/auth/{approle_mount_path}/login", 200): _LOGIN,
    Answered("post", "/auth/{jwt_mount_path}/login", 200): _LOGIN,
    Answered("post", "/auth/{kubernetes_mount_path}/login", 200): _LOGIN,
    Answered("post", "/auth/token/renew-self", 200): _LOGIN,
    Answered("get", "/auth/token/lookup-self", 200): _BARE,
    Answered("post", "/auth/token/revoke-self", 204): f"{_BARE}; the server has nothing to say and answers 204",
    Answered("get", "/sys/health", 200): _HEALTH,
    Answered("get", "/sys/health", 429): _HEALTH,
    Answered("get", "/sys/health", 503): _HEALTH,
    Answered(
        "get", _DATA, 404
    ): "a deleted version is 404 with its metadata (API page of the engine); checked as 200 is",
    Answered("get", _KEYS, 200): _BARE,
    Answered("post", _KEYS, 200): _BARE,
    Answered("post", "/{transit_mount_path}/encrypt/{name}", 200): _BARE,
    Answered("post", "/{transit_mount_path}/decrypt/{name}", 200): _BARE,
}
"""Answers that the double gives and the document says nothing more of than that the operation is there."""

NULLS = {
    Answered("post", _DATA, 200): "custom_metadata",
    Answered("get", _METADATA, 200): "custom_metadata",
    Answered("get", _DATA, 404): "data",
}
"""Maps that are null where there is nothing in them: Go writes so, and the document knows no null."""

OPTIONAL = {"KvV2ReadMetadataResponse": {"last_updated_by"}}
"""Properties that not every server has: attribution is new, and OpenBao is without."""


class Published:
    """Holds the answers of one double against the document, and remembers what was met."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.operations: set[tuple[str, str]] = set()
        self.undescribed: set[Answered] = set()
        self.nulls: set[Answered] = set()

    def check(self, method: str, path: str, status: int, body: Any) -> str | None:
        """Return how an answer breaks the document, and remember it; None for one that does not."""
        problem = self._problem(method, path, status, body)
        if problem is None:
            return None
        self.violations.append(f"{method} {path}: {problem}")
        return self.violations[-1]

    def _problem(self, method: str, path: str, status: int, body: Any) -> str | None:
        if status >= _FAILED and isinstance(body, dict) and "errors" in body:
            return _broken_errors(body)
        found = operation(method, path)
        if found is None:
            return "the document has no such operation"
        self.operations.add(found)
        answered = Answered(*found, status)
        if answered in UNDESCRIBED:
            self.undescribed.add(answered)
        elif str(status) not in _responses(answered):
            return f"the document has no answer {status}"
        name = _schema_name(answered)
        if name is not None:
            return self._broken_data(answered, body)
        if status == _NO_CONTENT:
            return None if body is None else "204 has no body"
        return None if answered in UNDESCRIBED else "the document has no schema, and UNDESCRIBED gives no reason"

    def _broken_data(self, answered: Answered, body: Any) -> str | None:
        if not isinstance(body, dict) or "data" not in body:
            return "the answer has no data"
        for error in _validator(answered).iter_errors(body["data"]):
            return "/".join(["data", *map(str, error.instance_path)]) + f": {error.message}"
        if answered in NULLS and body["data"][NULLS[answered]] is None:
            self.nulls.add(answered)
        return None


def operation(method: str, path: str) -> tuple[str, str] | None:
    """Return verb and template of a request; to list is ``get`` of a path that ends in a slash, and ``put`` is ``post``."""
    is_list = method == "LIST"
    verb = {"LIST": "get", "HEAD": "get", "PUT": "post"}.get(method, method.lower())
    asked = f"/{path.rstrip('/')}/" if is_list else f"/{path}"
    for template, verbs in DOCUMENT["paths"].items():
        if template.endswith("/") == is_list and verb in verbs and _pattern(template).fullmatch(asked):
            return verb, template
    return None


def _broken_errors(body: dict[str, Any]) -> str | None:
    """Check what the document does not describe: https://developer.hashicorp.com/vault/api-docs#error-response."""
    errors = body["errors"]
    if body.keys() == {"errors"} and isinstance(errors, list) and all(isinstance(one, str) for one in errors):
        return None
    return "an error is a list of texts in `errors` and nothing else"


def _responses(answered: Answered) -> dict[str, Any]:
    responses: dict[str, Any] = DOCUMENT["paths"][answered.template][answered.verb]["responses"]
    return responses


def _schema_name(answered: Answered) -> str | None:
    status = 200 if answered == Answered("get", _DATA, 404) else answered.status
    reference = (_responses(answered).get(str(status)) or {}).get("$ref")
    return None if reference is None else str(reference).rpartition("/")[2]


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    text = "".join(MOUNTS.get(one[1:-1], one) for one in re.split(r"(\{\w+\})", template))
    text = text.replace("{path}/", "(.+/)?").replace("{path}", ".+").replace("{name}", "[^/]+")
    return re.compile(text, re.DOTALL)


@functools.cache
def _validator(answered: Answered) -> jsonschema_rs.Draft202012Validator:
    name = str(_schema_name(answered))
    schema = DOCUMENT["components"]["schemas"][name]
    properties = dict(schema["properties"])
    if answered in NULLS:
        properties[NULLS[answered]] = {"type": ["object", "null"]}
    required = sorted(properties.keys() - OPTIONAL.get(name, set()))
    closed = {**schema, "properties": properties, "required": required, "additionalProperties": False}
    formats = {"duration": lambda text: _GO_DURATION.fullmatch(text) is not None}
    return jsonschema_rs.Draft202012Validator(closed, validate_formats=True, formats=formats)
