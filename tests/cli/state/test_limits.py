"""Budgets and rates of keys in a state file."""

from __future__ import annotations

import pytest
from tests.cli.state.conftest import Terminal

pytestmark = pytest.mark.anyio

BUDGETS = """\
version: 1
tenants:
  acme:
    budgets:
      money:USD tenant: {month: 5000}
      tokens provider:ai/local: {day: 20000, month: 200000}
"""


async def test_budgets_are_changed_and_pruned_one_by_one(terminal: Terminal) -> None:
    await terminal.apply(BUDGETS)
    smaller = "version: 1\ntenants: {acme: {budgets: {'tokens provider:ai/local': {month: 9, hour: 1}}}}"

    kept = await terminal.apply(smaller)

    assert kept.stdout.startswith(
        "+ budget hour tokens provider:ai/local of acme\n    limit: 1\n"
        "~ budget month tokens provider:ai/local of acme\n    limit: 200000 -> 9\n"
    )
    assert "2 changes left: only with --prune" in kept.stdout
    pruned = await terminal.apply(smaller, "--prune")
    assert [line for line in pruned.stdout.splitlines() if line.startswith("- ")] == [
        "- budget month money:USD tenant of acme",
        "- budget day tokens provider:ai/local of acme",
    ]
    quotas = await terminal.layer.control.quotas.list("acme")
    assert [(quota.scope, quota.unit, quota.period, quota.limit) for quota in quotas] == [
        ("provider:ai/local", "tokens", "hour", 1),
        ("provider:ai/local", "tokens", "month", 9),
    ]


async def test_the_rate_of_a_key_is_changed_and_taken_away(terminal: Terminal) -> None:
    own = "version: 1\ntenants: {acme: {keys: {robot: {role: developer, rate: RATE}}}}"
    await terminal.apply(own.replace("RATE", "{requests: 5, period_seconds: 1}"), "--create-keys")
    assert "rate:\n          requests: 5\n" in await terminal.export()
    assert (await terminal.diff(own.replace("RATE", "{requests: 5, burst: null}"))).exit_code == 0

    changed = await terminal.apply(own.replace("RATE", "{requests: 7, period_seconds: 60}"))
    assert "~ key robot of acme\n    rate.requests: 5 -> 7\n    rate.period_seconds: 1.0 -> 60\n" in changed.stdout
    gone = await terminal.apply(own.replace("RATE", "null"))
    assert "rate.requests: 7 -> (none)" in gone.stdout
    assert "rate" not in await terminal.export()
