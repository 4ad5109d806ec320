"""Schedules of rotation stand in state files: made, changed in place, pruned, exported, and refused where they cannot run."""

from __future__ import annotations

import pytest
from tests.cli.state.conftest import Terminal

pytestmark = pytest.mark.anyio

STATE = """\
version: 1
tenants:
  acme:
    secret_schedules:
      crm-key:
        path: crm/api-key
        every_days: 30
        value:
          from: password
          length: 24
      orders-hook:
        path: hooks/orders
        every_days: 90
        value:
          action: rotate_endpoint_secret
          from: action
          params:
            grace_seconds: 86400
            id: ep_1
          provider: integration/webhook
          value_at: /secret
        overlap_seconds: 3600
        enabled: false
"""


async def test_schedules_are_made_once_and_exported_as_they_were_written(terminal: Terminal) -> None:
    first = await terminal.apply(STATE)
    assert first.exit_code == 0, first.output
    for line in ("+ secret schedule crm-key of acme", '    path: "crm/api-key"', "    value.length: 24"):
        assert f"{line}\n" in first.stdout
    assert "2 changes made" in first.stdout

    assert "nothing to change" in (await terminal.apply(STATE)).stdout
    assert STATE.partition("acme:\n")[2] in await terminal.export()


async def test_a_changed_plan_keeps_when_it_was_rotated_and_only_prune_removes_one(terminal: Terminal) -> None:
    await terminal.apply(STATE)
    schedules = terminal.layer.control.secret_schedules
    before = (await schedules.get("acme", "crm-key")).revision
    smaller = STATE.partition("      orders-hook:")[0].replace("every_days: 30", "every_days: 7")

    kept = await terminal.apply(smaller)

    assert kept.stdout.startswith("~ secret schedule crm-key of acme\n    every_days: 30 -> 7\n")
    assert "1 change left: only with --prune" in kept.stdout
    changed = await schedules.get("acme", "crm-key")
    assert (changed.plan.every_days, changed.revision != before) == (7, True)
    pruned = await terminal.apply(smaller, "--prune")
    assert [line for line in pruned.stdout.splitlines() if line.startswith("- ")] == [
        "- secret schedule orders-hook of acme"
    ]
    assert [one.name for one in (await schedules.list("acme"))[0]] == ["crm-key"]


async def test_a_plan_that_somebody_else_has_changed_meanwhile_stays(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await terminal.apply(STATE)
    schedules, put = terminal.layer.control.secret_schedules, terminal.layer.control.secret_schedules.put

    async def outrun(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(schedules, "put", put)
        found = await schedules.get("acme", "crm-key")
        await put("acme", "crm-key", found.plan, by="somebody")
        return await put(*arguments, **named)

    monkeypatch.setattr(schedules, "put", outrun)
    done = await terminal.apply(STATE.replace("every_days: 30", "every_days: 7"))
    assert done.exit_code == 1
    assert "conflict" in done.output
    assert (await schedules.get("acme", "crm-key")).plan.every_days == 30


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        ("every_days: 30", "every_days: 0", ":7: tenants.acme.secret_schedules.crm-key.every_days: "),
        ("length: 24", "lenght: 24", ":8: tenants.acme.secret_schedules.crm-key.value: "),
        ("path: crm/api-key", "path: /crm", ":6: tenants.acme.secret_schedules.crm-key.path: "),
        ("every_days: 30", "every_days: 30\n        provider: secrets/no", "crm-key.provider: There is no provider"),
        ("integration/webhook", "integration/webhoko", "orders-hook.value.provider: There is no provider"),
    ],
)
async def test_what_cannot_be_carried_out_is_refused_and_nothing_is_planned(
    terminal: Terminal, old: str, new: str, refusal: str
) -> None:
    done = await terminal.apply(STATE.replace(old, new))
    assert done.exit_code == 1
    assert refusal in done.output
    assert (await terminal.layer.control.secret_schedules.list("acme"))[0] == []
