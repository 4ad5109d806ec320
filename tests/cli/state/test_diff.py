"""A difference is read by people and machines, and is the exit status."""

from __future__ import annotations

import json

import pytest
from tests.cli.state.conftest import Terminal

pytestmark = pytest.mark.anyio

BEFORE = """\
version: 1
tenants:
  acme:
    quotas: {day: 5, month: 90}
    connections:
      cache/memory#a: {config: {max_bytes: 2000000}, policy: {retry: {max_attempts: 2}}}
    keys: {}
"""
AFTER = """\
version: 1
tenants:
  acme:
    quotas: {day: 6}
    connections:
      cache/memory#a: {policy: {retry: {max_attempts: 2}, timeout_seconds: 3}}
      cache/memory#b: {}
    keys:
      robot: {role: developer}
"""
SHOWN = """\
~ quota day of acme
    limit: 5 -> 6
~ connection cache/memory#a of acme
    config.max_bytes: 2000000 -> (none)
    policy.timeout_seconds: (none) -> 3
+ connection cache/memory#b of acme
+ key robot of acme  (only with --create-keys)
    role: "developer"
- quota month of acme  (only with --prune)
2 to create, 2 to change, 1 to remove
"""


async def test_differences_are_shown_by_resource_and_field_with_status_one(terminal: Terminal) -> None:
    await terminal.apply(BEFORE)
    before = await terminal.export()

    done = await terminal.diff(AFTER)

    assert (done.exit_code, done.stdout, done.stderr) == (1, SHOWN, "")
    assert await terminal.export() == before


async def test_no_difference_has_status_zero(terminal: Terminal) -> None:
    await terminal.apply(BEFORE)

    done = await terminal.diff(BEFORE)

    assert (done.exit_code, done.stdout) == (0, "no difference\n")


async def test_trouble_has_status_two(terminal: Terminal) -> None:
    done = await terminal.diff("version: 1\n")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "tenants: is required" in done.stderr


async def test_machines_read_json(terminal: Terminal) -> None:
    await terminal.apply(BEFORE)
    await terminal.layer.control.tenants.create("globex")

    done = await terminal.diff(AFTER, "--json")

    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert found["unnamed_tenants"] == ["globex"]
    assert found["changes"][0] == {
        "verb": "change",
        "kind": "quota",
        "tenant": "acme",
        "name": "day",
        "fields": [{"field": "limit", "before": 5, "after": 6}],
    }
    assert [(item["verb"], item["name"], item.get("needs")) for item in found["changes"][1:]] == [
        ("change", "cache/memory#a", None),
        ("create", "cache/memory#b", None),
        ("create", "robot", "--create-keys"),
        ("remove", "month", "--prune"),
    ]
    same = await terminal.diff(BEFORE, "--json")
    assert (same.exit_code, json.loads(same.stdout)["changes"]) == (0, [])


async def test_of_keys_with_one_name_the_newest_counts_and_dead_ones_do_not(terminal: Terminal) -> None:
    keys = terminal.layer.control.api_keys
    for role in ("developer", "operator"):
        await keys.create("acme", role=role, name="robot")
    gone, _ = await keys.create("acme", role="admin", name="gone")
    await keys.revoke("acme", gone.id)
    await keys.create("acme", role="admin")

    text = (await terminal.erp("export", "--tenant", "acme")).stdout

    assert text.endswith("    keys:\n      robot:\n        role: operator\n")
    assert (await terminal.diff(text)).exit_code == 0


async def test_a_key_that_has_ended_needs_not_be_made(terminal: Terminal) -> None:
    ended = BEFORE.replace("keys: {}", "keys: {old: {role: admin, expires_at: '2001-01-01T00:00:00Z'}}")
    await terminal.apply(BEFORE)

    assert (await terminal.diff(ended)).exit_code == 0
    assert (await terminal.apply(ended, "--create-keys")).stdout.startswith("nothing to change")


async def test_times_are_the_same_in_every_zone(terminal: Terminal) -> None:
    await terminal.apply(
        BEFORE.replace("{}", "{a: {role: admin, expires_at: '2099-01-01T02:00:00+02:00'}}"), "--create-keys"
    )

    done = await terminal.diff(BEFORE.replace("{}", "{a: {role: admin, expires_at: '2099-01-01T00:00:00Z'}}"))

    assert (done.exit_code, done.stdout) == (0, "no difference\n")
