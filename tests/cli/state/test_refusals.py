"""What cannot be applied is refused whole: with file, line, field and remedy, and nothing has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.cli.state.conftest import Terminal

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + "c2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU="


def acme(text: str) -> str:
    """A state file about ``acme`` whose fourth line is the first of ``text``; a change that could be made comes first."""
    return "version: 1\ntenants:\n  acme:\n" + "".join(f"    {line}\n" for line in text.splitlines())


REFUSED = {
    "unknown field": (
        acme("regoin: eu"),
        ":4: tenants.acme.regoin: is not a known field; did you mean region?",
    ),
    "unknown section": (
        acme("name: A\nroute: {}"),
        ":5: tenants.acme.route: is not a known field; did you mean routes?",
    ),
    "unknown field of a route": (
        acme("routes:\n  cache/a-b: {kind: single, targets: [{provider: memory, wieght: 2}]}"),
        ":5: tenants.acme.routes.cache/a-b.targets.0.wieght: is not a known field; did you mean weight?",
    ),
    "unknown setting": (
        acme("connections:\n  cache/memory#a:\n    config:\n      max_bites: 5"),
        ":7: tenants.acme.connections.cache/memory#a.config.max_bites: is not a known field; did you mean max_bytes?",
    ),
    "wrong setting": (
        acme("connections:\n  cache/memory#a: {config: {max_bytes: much}}"),
        ":5: tenants.acme.connections.cache/memory#a.config.max_bytes: the value is not of type",
    ),
    "unknown provider": (
        acme("connections:\n  cache/memori#a: {}"),
        ":5: tenants.acme.connections.cache/memori#a: There is no provider of domain cache named 'memori'. Did you mean memory?",
    ),
    "no name of a connection": (acme("connections:\n  cache: {}"), ":5: tenants.acme.connections.cache: is no name"),
    "no id of a tenant": ("version: 1\ntenants:\n  Acme: {}\n", ":3: tenants.Acme: is no name that can be here"),
    "another version": ("version: 2\ntenants: {}\n", ":1: version: "),
    "no version": ("tenants: {}\n", ":1: version: is required"),
    "unknown role": (acme("keys: {robot: {role: king}}"), ":4: tenants.acme.keys.robot.role: the value is not one of"),
    "malformed scope": (
        acme("keys:\n  robot: {role: developer, scopes: [all]}"),
        ":5: tenants.acme.keys.robot.scopes: Use AREA:TARGET:EFFECT",
    ),
    "past end": (
        acme("keys:\n  old: {role: developer, expires_at: '2099-01-01T00:00:00'}"),
        ":5: tenants.acme.keys.old.expires_at: ",
    ),
    "impossible time": (
        acme("keys:\n  old: {role: developer, expires_at: '2099-06-30T23:59:60Z'}"),
        ":5: tenants.acme.keys.old.expires_at: ",
    ),
    "two defaults": (
        acme("connections:\n  cache/memory#a: {default: true}\n  cache/memory#b:\n    default: true"),
        ":7: tenants.acme.connections.cache/memory#b.default: cache/memory#a is the default of the domain cache already",
    ),
    "a default that is a route as well": (
        acme(
            "connections: {cache/memory#a: {default: true}}\n"
            "routes: {cache/a-b: {kind: single, targets: [{provider: memory}], default: true}}"
        ),
        ":5: tenants.acme.routes.cache/a-b.default: cache/memory#a is the default",
    ),
    "a route to nowhere": (
        acme(
            "routes:\n  cache/a-b:\n    kind: single\n    targets:\n      - provider: memory\n        connection: gone"
        ),
        ":8: tenants.acme.routes.cache/a-b.targets.0: There is no connection cache/memory#gone",
    ),
    "a single route with two targets": (
        acme("routes:\n  cache/a-b: {kind: failover, targets: [{provider: memory}]}"),
        ":5: tenants.acme.routes.cache/a-b.targets: A failover route has two targets or more.",
    ),
    "a name twice": (
        acme("quotas:\n  day: 5\n  day: 6"),
        ":6: tenants.acme.quotas.day: is here a second time; first in line 5",
    ),
    "the calls of the whole tenant as a budget": (
        acme("budgets:\n  requests tenant: {day: 5}"),
        ":5: tenants.acme.budgets.requests tenant: is no name that can be here",
    ),
    "a budget of an unknown unit": (
        acme("budgets:\n  hours tenant: {day: 5}"),
        ":5: tenants.acme.budgets.hours tenant: is no name that can be here: What may be used in each period, by UNIT SCOPE:",
    ),
    "a budget of an unknown period": (
        acme("budgets:\n  tokens tenant:\n    week: 5"),
        ":6: tenants.acme.budgets.tokens tenant.week: is not a known field; there are: minute, hour, day, month",
    ),
    "a rate that no key can have": (
        acme("keys:\n  a:\n    role: developer\n    rate: {requests: 5000000}"),
        ":7: tenants.acme.keys.a.rate: ",
    ),
    "an alias": (acme("quotas: &a {day: 5}\nroutes: *a"), "Anchors and aliases are not known here"),
    "a tag": (acme("name: !!python/object:os.system x"), ":4: tenants.acme.name: The tag "),
    "a number as a name": (
        acme("keys: {5: {role: admin}}"),
        ":4: tenants.acme.keys: Names are texts. Put it in quotes.",
    ),
    "not YAML": ("version: 1\ntenants: [", ":3: This is not YAML"),
    "two documents": ("version: 1\n---\nversion: 1\n", ": This is not YAML"),
    "nothing": ("", ": The file is empty. `erp export` shows what one looks like."),
    "a list": ("- 1\n", ":1: the value is not of type"),
    "deep nesting": ("[" * 5000, "This is not YAML"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
async def test_a_file_that_is_wrong_is_refused_where_it_is_wrong(terminal: Terminal, text: str, said: str) -> None:
    before = await terminal.export()

    done = await terminal.apply(text, "--create-keys", "--prune")

    assert (done.exit_code, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.endswith("nothing was changed\n")
    assert "Traceback" not in done.stderr
    assert await terminal.export() == before


async def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file(terminal: Terminal) -> None:
    done = await terminal.apply(acme("quotas: {week: 1}\nname: 5\nkeys: {a: {}}"))

    assert [line.partition(": ")[2] for line in done.stderr.splitlines()[:3]] == [
        "tenants.acme.quotas.week: is not a known field; there are: minute, hour, day, month",
        'tenants.acme.name: the value is not of types "null", "string"',
        "tenants.acme.keys.a.role: is required",
    ]


async def test_one_wrong_resource_keeps_all_others_from_being_made(terminal: Terminal) -> None:
    before = await terminal.export()

    done = await terminal.apply(
        acme("quotas: {day: 5}\nconnections: {cache/memory#a: {}, cache/memory#b: {config: {x: 1}}}")
    )

    assert done.exit_code == 1
    assert await terminal.export() == before


async def test_a_plain_secret_is_refused_with_the_remedy_and_never_repeated(terminal: Terminal) -> None:
    text = acme(
        f"connections:\n  integration/webhook#a:\n    config: {{url: 'https://example.com/', secret: {SECRET}}}"
    )
    before = await terminal.export()

    for command in (terminal.apply, terminal.diff):
        done = await command(text)

        assert done.exit_code in {1, 2}
        assert (
            ":6: tenants.acme.connections.integration/webhook#a.config.secret: holds a secret in plain text. Store it with "
            "put of secrets/local and write the reference here that it answers"
        ) in done.stderr
        assert SECRET not in done.stderr + done.stdout
    assert await terminal.export() == before


async def test_a_secret_by_reference_is_applied_shown_and_exported_as_the_reference(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    await terminal.layer.vault.put("acme", "tenant/hooks/a", SECRET)
    receiver = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    text = acme(
        "connections:\n  integration/webhook#a:\n    config:\n"
        f"      url: http://127.0.0.1:{receiver.sockets[0].getsockname()[1]}/hook\n      secret: secret://tenant/hooks/a#1"
    )

    done = await terminal.apply(text)
    assert (done.exit_code, done.stderr) == (0, "")
    assert 'config.secret: "secret://tenant/hooks/a#1"' in done.stdout
    exported = await terminal.export()
    assert "secret: secret://tenant/hooks/a#1\n" in exported
    assert SECRET not in exported
    assert (await terminal.diff(exported)).exit_code == 0

    rotated = await terminal.apply(text.replace("hooks/a#1", "hooks/a"))
    assert 'config.secret: "secret://tenant/hooks/a#1" -> "secret://tenant/hooks/a"' in rotated.stdout
    receiver.close()


async def test_a_file_that_cannot_be_read_and_a_wrong_key_are_explained(terminal: Terminal, tmp_path: Path) -> None:
    missing = await terminal.erp("apply", "-f", str(tmp_path / "none.yaml"))
    assert (missing.exit_code, "The file cannot be read" in missing.stderr) == (1, True)
    wrong = await terminal.apply(acme("name: x"), key="erpk_live_wrong")
    assert (wrong.exit_code, "(unauthenticated)" in wrong.stderr) == (1, True)
    asked = await terminal.diff(acme("name: x"), key="erpk_live_wrong")
    assert asked.exit_code == 2
    none = await terminal.erp("export", "--tenant", "nobody")
    assert (none.exit_code, none.stdout) == (1, "")
    assert "This key sees no tenant nobody. It sees: acme, platform." in none.stderr


async def test_a_developer_changes_nothing(terminal: Terminal) -> None:
    _, key = await terminal.layer.control.api_keys.create("acme", role="developer")
    before = await terminal.export()

    done = await terminal.apply(acme("quotas: {day: 5}"), key=key)

    assert (done.exit_code, "(permission_denied)" in done.stderr) == (1, True)
    assert await terminal.export() == before
