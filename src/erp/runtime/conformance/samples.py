"""One cheap call of each domain that succeeds, for the rules that hold whatever is called."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

Sample = tuple[str, dict[str, Any]]
Step = tuple[str, dict[str, Any], dict[str, Any]]
"""An action, its parameters, and members its result must have."""

_SAMPLES: dict[str, Sample] = {
    "ai": ("list_models", {}),
    "auth": ("verify", {"credential": "nobody's"}),
    "bus": ("publish", {"topic": "conformance", "event": {"id": "{n}", "source": "/conformance", "type": "sample"}}),
    "cache": ("set", {"key": "{n}", "value": "{n}"}),
    "db": ("query", {"sql": "SELECT 1 AS one"}),
    "integration": ("describe", {}),
    "secrets": ("list", {}),
    "storage": ("put", {"key": "{n}", "content": "aGVsbG8="}),
}


_ECHOES: dict[str, list[Step]] = {
    "auth": [("verify", {"credential": "nobody's"}, {"active": False})],
    "cache": [
        ("set", {"key": "{n}", "value": "{n}"}, {}),
        ("get", {"key": "{n}"}, {"found": True, "value": "{n}"}),
    ],
    "db": [("query", {"sql": "SELECT '{n}' AS one"}, {"rows": [["{n}"]]})],
    "secrets": [("put", {"path": "{n}", "value": "{n}"}, {}), ("get", {"path": "{n}"}, {"value": "{n}"})],
    "storage": [("put", {"key": "{n}", "content": "{base64}"}, {}), ("get", {"key": "{n}"}, {"content": "{base64}"})],
}


def sample(domain: str, name: str, own: Mapping[str, Any] | None = None) -> Sample:
    """Return action and parameters; ``name`` is used wherever the call writes.

    ``own`` is the sample of the manifest: one that asks the peer, where that of the domain does not.
    """
    action, params = (own["action"], own["params"]) if own else _SAMPLES[domain]
    filled: dict[str, Any] = _filled(params, name)
    return action, filled


def echo(domain: str, name: str, own: Mapping[str, Any] | None = None) -> list[Step]:
    """Return calls whose answers tell whose they are: by ``name``, which nobody else uses.

    Where a domain has none, or the manifest a sample of its own, it is the sample, whatever it answers.
    """
    if own or domain not in _ECHOES:
        return [(*sample(domain, name, own), {})]
    return [(action, _filled(params, name), _filled(expected, name)) for action, params, expected in _ECHOES[domain]]


def _filled(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, name) for item in value]
    if not isinstance(value, str):
        return value
    return value.replace("{n}", name).replace("{base64}", base64.b64encode(name.encode()).decode())
