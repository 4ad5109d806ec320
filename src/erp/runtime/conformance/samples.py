"""One cheap call of each domain that succeeds, for the rules that hold whatever is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Sample = tuple[str, dict[str, Any]]

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


def sample(domain: str, name: str, own: Mapping[str, Any] | None = None) -> Sample:
    """Return action and parameters; ``name`` is used wherever the call writes.

    ``own`` is the sample of the manifest: one that asks the peer, where that of the domain does not.
    """
    action, params = (own["action"], own["params"]) if own else _SAMPLES[domain]
    filled: dict[str, Any] = _filled(params, name)
    return action, filled


def _filled(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, name) for item in value]
    return name if value == "{n}" else value
