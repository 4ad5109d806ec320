"""Which changes of a contract break somebody."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from erp.cli.contracts import app
from erp.contracts import comparison
from erp.contracts.authored import Contract

BASE: dict[str, Any] = {
    "domain": "toy",
    "version": "1.2.3",
    "title": "Toy",
    "summary": "A toy.",
    "capabilities": {"roll": "It rolls."},
    "actions": {
        "push": {
            "summary": "Push it.",
            "effect": "write",
            "idempotent": False,
            "params": {
                "type": "object",
                "additionalProperties": False,
                "required": ["far"],
                "properties": {
                    "far": {"type": "integer", "minimum": 1, "maximum": 10},
                    "how": {"type": "string", "enum": ["soft", "hard"]},
                },
            },
            "result": {
                "type": "object",
                "additionalProperties": False,
                "required": ["moved"],
                "properties": {"moved": {"type": "integer"}, "why": {"type": "string", "enum": ["a", "b"]}},
            },
        },
    },
    "events": {"moved": {"summary": "It moved.", "payload": {"type": "object", "properties": {}}}},
}


def changed(*path: str, to: Any) -> dict[str, Any]:
    """A copy of the contract with one place changed (or removed, when ``to`` is None)."""
    document = copy.deepcopy(BASE)
    place: Any = document
    for part in path[:-1]:
        place = place[part]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return document


def contract(document: dict[str, Any]) -> Contract:
    return Contract("domain", "toy", Path("toy.yaml"), document)


PARAMS = ("actions", "push", "params")
RESULT = ("actions", "push", "result")


@pytest.mark.parametrize(
    ("_case", "document", "level"),
    [
        ("nothing", copy.deepcopy(BASE), None),
        ("wording", changed("actions", "push", "summary", to="Push it gently."), "patch"),
        ("capability wording", changed("capabilities", "roll", to="It rolls far."), "patch"),
        ("an action added", changed("actions", "pull", to=BASE["actions"]["push"]), "minor"),
        ("an action removed", changed("actions", "push", to=None), "major"),
        ("a capability removed", changed("capabilities", "roll", to=None), "major"),
        ("an event removed", changed("events", "moved", to=None), "major"),
        ("an optional parameter added", changed(*PARAMS, "properties", "soon", to={"type": "boolean"}), "minor"),
        ("a parameter removed", changed(*PARAMS, "properties", "how", to=None), "major"),
        ("a parameter became required", changed(*PARAMS, "required", to=["far", "how"]), "major"),
        ("a parameter became optional", changed(*PARAMS, "required", to=[]), "minor"),
        ("a limit widened", changed(*PARAMS, "properties", "far", "maximum", to=20), "minor"),
        ("a limit narrowed", changed(*PARAMS, "properties", "far", "maximum", to=5), "major"),
        ("a limit added", changed(*PARAMS, "properties", "how", "maxLength", to=5), "major"),
        ("a choice added", changed(*PARAMS, "properties", "how", "enum", to=["soft", "hard", "wild"]), "minor"),
        ("a choice removed", changed(*PARAMS, "properties", "how", "enum", to=["soft"]), "major"),
        ("a type changed", changed(*PARAMS, "properties", "far", "type", to="string"), "major"),
        ("a result field added", changed(*RESULT, "properties", "cost", to={"type": "number"}), "minor"),
        ("a result field removed", changed(*RESULT, "properties", "why", to=None), "major"),
        ("a result may be absent now", changed(*RESULT, "required", to=[]), "major"),
        ("a new value in results", changed(*RESULT, "properties", "why", "enum", to=["a", "b", "c"]), "major"),
        ("fewer values in results", changed(*RESULT, "properties", "why", "enum", to=["a"]), "minor"),
        ("the effect changed", changed("actions", "push", "effect", to="destructive"), "major"),
        ("a text is marked as personal", changed(*PARAMS, "properties", "how", "x-erp-pii", to="text"), "minor"),
        ("became repeatable", changed("actions", "push", "idempotent", to=True), "minor"),
    ],
)
def test_a_change_is_classified(_case: str, document: dict[str, Any], level: str | None) -> None:
    assert comparison.needed(comparison.changes(contract(BASE), contract(document))) == level


@pytest.mark.parametrize(
    ("version", "level"),
    [("1.2.3", None), ("1.2.4", "patch"), ("1.3.0", "minor"), ("2.0.0", "major"), ("1.1.9", None), ("0.9.9", None)],
)
def test_how_far_a_version_rose(version: str, level: str | None) -> None:
    assert comparison.raised("1.2.3", version) == level


def test_the_command_fails_until_the_version_says_what_changed(tmp_path: Path) -> None:
    import yaml

    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    document = changed(*PARAMS, "properties", "how", to=None)
    (old / "toy.yaml").write_text(yaml.safe_dump(BASE))
    (new / "toy.yaml").write_text(yaml.safe_dump(document))

    refused = CliRunner().invoke(app, ["diff", str(old), str(new)])
    assert refused.exit_code == 1
    assert "major  actions/push/params/how: removed" in refused.output
    assert "must rise by a major step" in refused.output

    (new / "toy.yaml").write_text(yaml.safe_dump({**document, "version": "2.0.0"}))
    assert CliRunner().invoke(app, ["diff", str(old), str(new)]).exit_code == 0
