"""What policies see of a question: plain JSON, the same for every engine."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from erp.runtime.context import Actor
from erp.runtime.question import Question

_UNSAFE = re.compile(r'["\\%\x00-\x1f\x7f]')


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the layer adds to a question."""

    tenant_region: str = ""
    """Where the data of the actor's tenant may be."""
    call_region: str = ""
    """Where the process that serves the call runs."""
    consent: str = ""
    """``granted``, ``withdrawn`` or empty: what the subject has said about the purpose."""


def document(question: Question, facts: Facts) -> dict[str, Any]:
    """Return the input document (``docs/reference/policy-input.md``)."""
    actor = question.actor
    return {
        "actor": {
            "id": safe(actor.id),
            "tenant": safe(actor.tenant),
            "kind": actor.kind,
            "roles": sorted(map(safe, actor.roles)),
            "scopes": sorted(map(safe, actor.scopes)),
            "elevated": safe(actor.elevated),
        },
        "tenant": {"region": safe(facts.tenant_region)},
        "target": {
            "area": safe(question.area),
            "domain": safe(question.domain),
            "name": safe(question.name),
            "action": safe(question.action),
            "effect": safe(question.effect),
            "tenant": safe(question.tenant or actor.tenant),
            "connection": safe(question.connection),
            "region": safe(question.region),
        },
        "call": {
            "region": safe(facts.call_region),
            "purpose": safe(question.purpose),
            "subject": safe(question.subject),
            "consent": facts.consent,
        },
    }


def safe(text: str) -> str:
    """Percent-encode quotes, backslashes, percent signs and control characters.

    The embedded engine keeps such strings in an escaped form, so that ``count``, ``contains`` and ``regex.match``
    of them are wrong: a caller's text could change its meaning.
    """
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", text)


def encoded(value: dict[str, Any]) -> str:
    """Return canonical JSON; not ASCII only, for the engine takes escapes literally."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


EXAMPLE = Question(
    actor=Actor(id="key_1", tenant="acme", roles=frozenset({"developer"})),
    area="providers",
    domain="cache",
    name="memory",
    action="get",
    effect="read",
    connection="default",
)
"""The question on which policies are tried."""


def example(**given: dict[str, Any]) -> dict[str, Any]:
    """Return the example question with other values for some members; the target is the actor's unless it says otherwise."""
    found = document(EXAMPLE, Facts())
    for part, values in given.items():
        found[part] = {**found.get(part, {}), **values}
    if "tenant" not in given.get("target", {}):
        found["target"]["tenant"] = found["actor"]["tenant"]
    return found
