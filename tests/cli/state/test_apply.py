"""A state file is what the server has after it was applied: all of it, once, or with a word on what is missing."""

from __future__ import annotations

import json

import pytest
from tests.cli.state.conftest import Terminal

from erp.cli.state.resources import Keys, Routes
from erp.cli.state.server import Server

pytestmark = pytest.mark.anyio

STATE = """\
version: 1
tenants:
  acme:
    name: Acme
    region: eu
    policy:
      timeout_seconds: 5
    quotas:
      day: 1000
    budgets:
      money:USD tenant:
        month: 5000
      tokens provider:ai/local:
        day: 20000
        month: 200000
    connections:
      cache/memory#main:
        config:
          max_bytes: 2000000
        default: true
      cache/memory#spare: {}
    routes:
      cache/both-caches:
        kind: failover
        targets:
          - provider: memory
            connection: main
          - provider: memory
            connection: spare
    service_accounts:
      import:
        description: Brings the shop's stock
        role: developer
        scopes: ['providers:cache/*:*']
    certificates:
      fingerprint:abababababababababababababababababababababababababababababababab:
        service_account: import
    keys:
      robot:
        role: developer
        scopes: ['providers:cache/*:*']
        expires_at: '2099-01-01T00:00:00Z'
        rate:
          burst: 10
          requests: 5
        service_account: import
  globex: {}
"""


async def test_a_second_apply_changes_nothing_and_says_so(terminal: Terminal) -> None:
    first = await terminal.apply(STATE, "--create-keys")
    assert (first.exit_code, first.stderr) == (0, "")
    assert "+ tenant globex" in first.stdout
    assert '~ tenant acme\n    region: (none) -> "eu"\n    policy.timeout_seconds: (none) -> 5\n' in first.stdout
    assert "+ connection cache/memory#main of acme\n    config.max_bytes: 2000000\n    default: true\n" in first.stdout
    assert "12 changes made" in first.stdout
    before = await terminal.export()

    second = await terminal.apply(STATE, "--create-keys")

    assert second.exit_code == 0
    assert second.stdout.splitlines()[0] == "nothing to change: the server has what the file says"
    assert await terminal.export() == before


async def test_what_was_applied_works(terminal: Terminal) -> None:
    done = await terminal.apply(STATE, "--create-keys")
    key = done.stdout.partition("(shown only now): ")[2].splitlines()[0]
    actor = await terminal.layer.identity.authenticate(key)

    assert (actor.tenant, set(actor.roles), set(actor.scopes)) == ("acme", {"developer"}, {"providers:cache/*:*"})
    assert (await terminal.layer.control.quotas.list("acme"))[0].limit == 1000
    assert await terminal.layer.control.connections.domain_default("acme", "cache") == ("memory", "main")


@pytest.mark.slow
async def test_an_export_applied_to_an_empty_server_exports_as_the_same_text(
    terminal: Terminal, empty: Terminal
) -> None:
    await terminal.apply(STATE, "--create-keys")
    text = await terminal.export()

    done = await empty.apply(text, "--create-keys")

    assert (done.exit_code, done.stderr) == (0, "")
    assert await empty.export() == text
    assert "#" not in text.replace("cache/memory#", "")  # no comments
    assert (await empty.diff(text)).exit_code == 0


async def test_an_export_says_nothing_that_is_so_anyway(terminal: Terminal) -> None:
    await terminal.apply(STATE, "--create-keys")

    done = await terminal.erp("export", "--tenant", "acme")

    listed = STATE.replace("scopes: ['providers:cache/*:*']", "scopes:\n          - providers:cache/*:*")
    listed = listed.replace("    keys:\n", "    secret_schedules: {}\n    keys:\n")
    assert done.stdout == listed.replace("  globex: {}\n", "")


async def test_a_dry_run_shows_everything_and_changes_nothing(terminal: Terminal) -> None:
    before = await terminal.export()

    done = await terminal.apply(STATE, "--dry-run", "--create-keys", "--prune")

    assert done.exit_code == 0
    assert "+ route cache/both-caches of acme" in done.stdout
    assert "dry run: 11 to create, 1 to change, 0 to remove; nothing was changed" in done.stdout
    assert await terminal.export() == before


async def test_missing_keys_are_reported_and_made_only_when_asked_for(terminal: Terminal) -> None:
    done = await terminal.apply(STATE)
    assert done.exit_code == 0
    assert "1 change left: only with --create-keys" in done.stdout
    assert "robot" not in await terminal.export()

    again = await terminal.apply(STATE, "--create-keys")
    key = again.stdout.partition("(shown only now): ")[2].splitlines()[0]
    assert key.startswith("erpk_")
    assert key not in await terminal.export()
    assert key not in (await terminal.apply(STATE, "--create-keys")).stdout


async def test_only_prune_removes_and_only_from_sections_that_the_file_has(terminal: Terminal) -> None:
    await terminal.apply(STATE, "--create-keys")
    smaller = "version: 1\ntenants:\n  acme:\n    quotas: {}\n    routes: {}\n    keys: {}\n"
    before = await terminal.export()

    kept = await terminal.apply(smaller)
    assert kept.exit_code == 0
    assert "3 changes left: only with --prune" in kept.stdout
    assert "2 tenants of the server not named in the file: globex" not in kept.stdout
    assert "1 tenant of the server not named in the file: globex" in kept.stdout
    assert await terminal.export() == before

    pruned = await terminal.apply(smaller, "--prune")
    assert [line for line in pruned.stdout.splitlines() if line.startswith("- ")] == [
        "- key robot of acme",
        "- route cache/both-caches of acme",
        "- quota day of acme",
    ]
    after = await terminal.export()
    assert "cache/memory#main" in after
    assert "globex" in after
    assert "robot" not in after


async def test_connections_go_after_the_routes_that_lead_to_them(terminal: Terminal) -> None:
    await terminal.apply(STATE)

    done = await terminal.apply("version: 1\ntenants: {acme: {connections: {}, routes: {}}}", "--prune")

    assert (done.exit_code, done.stderr) == (0, "")
    assert await terminal.layer.control.connections.list("acme") == []


async def test_whole_tenants_go_only_when_that_is_asked_for_and_the_platform_never(terminal: Terminal) -> None:
    await terminal.apply(STATE)
    none = "version: 1\ntenants: {acme: {}}"

    assert (await terminal.apply(none, "--prune")).stdout.startswith("nothing to change")
    gone = await terminal.apply(none, "--prune", "--prune-tenants")

    assert (gone.exit_code, gone.stdout) == (0, "- tenant globex\n1 change made\n")
    assert await terminal.layer.control.tenants.ids() == ["acme", "platform"]


async def test_a_change_by_somebody_else_meanwhile_is_a_conflict_and_the_rest_is_not_tried(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await terminal.apply(STATE)
    changed = STATE.replace("max_bytes: 2000000", "max_bytes: 3000000").replace("kind: failover", "kind: weighted")
    changed = changed.replace("day: 1000", "day: 2000")
    present = Routes.present

    def and_somebody_else(self: Routes, server: Server, tenant: str) -> object:
        found = present(self, server, tenant)
        if tenant == "acme":
            body = {"connection": "main", "config": {"max_bytes": 9_000_000}}
            server.send("POST", "/providers/cache/memory/configure", body, tenant="acme")
        return found

    monkeypatch.setattr(Routes, "present", and_somebody_else)
    done = await terminal.apply(changed)
    monkeypatch.undo()

    assert done.exit_code == 1
    assert (
        "connection cache/memory#main of acme could not be changed: The connection was changed meanwhile" in done.stderr
    )
    assert "(conflict)" in done.stderr
    assert "1 change made, 1 failed, 1 not tried:\n  ~ route cache/both-caches of acme\n" in done.stderr
    assert "~ quota day of acme" in done.stdout
    after = await terminal.export()
    assert "max_bytes: 9000000" in after
    assert "day: 2000" in after
    assert "kind: failover" in after

    assert (await terminal.apply(changed)).exit_code == 0
    assert (await terminal.diff(changed)).stdout.count("+ key robot") == 1


async def test_a_connection_that_does_not_open_ends_the_run_with_what_was_made(terminal: Terminal) -> None:
    text = """\
version: 1
tenants:
  acme:
    quotas: {day: 1}
    connections:
      integration/webhook#away: {config: {url: 'http://10.0.0.1/', secret: 'secret://tenant/hooks/away#1'}}
    keys: {}
"""
    before = await terminal.export()

    done = await terminal.apply(text)

    assert done.exit_code == 1
    assert "+ quota day of acme" in done.stdout, done.stderr
    assert "connection integration/webhook#away of acme could not be created: A secret cannot be found." in done.stderr
    assert "/config/secret: There is no secret 'tenant/hooks/away'" in done.stderr
    assert "1 change made, 1 failed, 0 not tried" in done.stderr
    assert await terminal.export() == before.replace("quotas: {}", "quotas:\n      day: 1", 1)


async def test_what_is_absent_of_a_tenant_is_left_alone_and_null_takes_it_away(terminal: Terminal) -> None:
    await terminal.apply(STATE)

    await terminal.apply("version: 1\ntenants: {acme: {name: Acme Ltd}}")
    assert "name: Acme Ltd\n    region: eu\n" in await terminal.export()

    done = await terminal.apply("version: 1\ntenants: {acme: {region: null, policy: {}}}")
    assert 'region: "eu" -> (none)' in done.stdout
    assert "region" not in await terminal.export()


async def test_the_facts_of_a_key_change_and_the_key_stays(terminal: Terminal) -> None:
    before, _, after = STATE.partition("    service_accounts:\n")
    own = before + "    keys:\n" + after.partition("    keys:\n")[2].replace("        service_account: import\n", "")
    done = await terminal.apply(own, "--create-keys")
    key = done.stdout.partition("(shown only now): ")[2].splitlines()[0]

    changed = await terminal.apply(own.replace("role: developer", "role: operator").replace("2099", "2098"))

    assert '~ key robot of acme\n    role: "developer" -> "operator"\n' in changed.stdout
    assert set((await terminal.layer.identity.authenticate(key)).roles) == {"operator"}


async def test_the_default_moves_from_one_connection_to_another(terminal: Terminal) -> None:
    await terminal.apply(STATE)
    moved = STATE.replace("        default: true\n", "").replace("spare: {}", "spare: {default: true}")

    done = await terminal.apply(moved)

    assert "default: true -> false" in done.stdout
    assert await terminal.layer.control.connections.domain_default("acme", "cache") == ("memory", "spare")
    assert (await terminal.apply(moved)).stdout.startswith("nothing to change")


async def test_an_administrator_of_a_tenant_keeps_its_own_part(terminal: Terminal) -> None:
    _, key = await terminal.layer.control.api_keys.create("acme", role="admin", name="gitops")
    own = STATE.replace("  globex: {}\n", "").replace("    keys:\n", "    keys:\n      gitops: {role: admin}\n")

    done = await terminal.apply(own, "--prune", key=key)
    assert (done.exit_code, done.stderr) == (0, "")
    exported = await terminal.erp("export", key=key)
    assert [line for line in exported.stdout.splitlines() if line.startswith("  ") and line[2] != " "] == ["  acme:"]

    before = await terminal.export()
    refused = await terminal.apply(STATE, key=key)
    assert refused.exit_code == 1
    assert ":47: tenants.globex: is not the tenant of this key (acme). Use a key of the platform" in refused.stderr
    assert await terminal.export() == before


async def test_the_key_that_is_used_is_never_revoked(terminal: Terminal) -> None:
    before = await terminal.export()

    done = await terminal.apply("version: 1\ntenants: {platform: {keys: {}, quotas: {day: 5}}}", "--prune")

    assert done.exit_code == 1
    assert "tenants.platform.keys.first administrator: would be revoked, and it is the key that this" in done.stderr
    assert await terminal.export() == before


async def test_a_key_that_somebody_made_meanwhile_is_not_made_twice(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = Keys.present

    def and_somebody_else(self: Keys, server: Server, tenant: str) -> object:
        found = present(self, server, tenant)
        server.send("POST", "/keys", {"name": "robot", "tenant": "acme", "role": "developer"})
        return found

    text = "version: 1\ntenants: {acme: {keys: {robot: {role: developer}}}}"
    monkeypatch.setattr(Keys, "present", and_somebody_else)
    done = await terminal.apply(text, "--create-keys")
    monkeypatch.undo()

    assert done.exit_code == 1
    assert "key robot of acme could not be created: The API key was created meanwhile" in done.stderr
    assert len((await terminal.layer.control.api_keys.list("acme"))[0]) == 1
    assert (await terminal.apply(text, "--create-keys")).stdout.startswith("nothing to change")


async def test_a_state_comes_from_standard_input_as_well(terminal: Terminal) -> None:
    await terminal.apply(STATE)
    text = await terminal.export()

    done = await terminal.erp("diff", "-f", "-", stdin=text)

    assert (done.exit_code, done.stdout) == (0, "no difference\n")


async def test_a_name_cannot_move_the_cursor_of_who_looks_at_it(terminal: Terminal) -> None:
    await terminal.layer.control.api_keys.create("acme", role="developer", name="\x1b[2Jhidden\u202e")
    await terminal.layer.control.tenants.update("acme", name="\x9b31mred")

    done = await terminal.diff("version: 1\ntenants: {acme: {name: Acme, keys: {}}}")

    assert "- key \\x1b[2Jhidden\\u202e of acme" in done.stdout
    assert 'name: "\\x9b31mred" -> "Acme"' in done.stdout
    assert (await terminal.export()).replace("\n", "").isprintable()


async def test_the_schema_that_editors_read_is_printed_without_a_server(terminal: Terminal) -> None:
    done = await terminal.erp("export", "--schema")

    assert json.loads(done.stdout)["title"] == "State"


async def test_a_connection_that_a_route_leads_to_is_not_removed_from_under_it(terminal: Terminal) -> None:
    await terminal.apply(STATE)
    before = await terminal.export()
    unmanaged = "version: 1\ntenants: {acme: {quotas: {}, connections: {cache/memory#main: {}}}}"
    route = "cache/both-caches: {kind: single, targets: [{provider: memory, connection: spare}]}"
    managed = unmanaged.replace("}}}}", "}}, routes: {" + route + "}}}")

    for text, said in [
        (unmanaged, "cache/memory#spare would be removed, and the route cache/both-caches leads to it."),
        (managed, "routes.cache/both-caches.targets.0: There is no connection cache/memory#spare"),
    ]:
        refused = await terminal.apply(text, "--prune")
        assert refused.exit_code == 1
        assert said in refused.stderr
        assert await terminal.export() == before

    assert (await terminal.apply(managed)).exit_code == 0  # it stays as long as nothing is removed


async def test_a_domain_whose_default_moves_is_never_without_one(terminal: Terminal) -> None:
    await terminal.apply(STATE)
    moved = STATE.replace("        default: true\n", "").replace("spare: {}", "spare: {default: true}")

    done = await terminal.apply(moved)

    names = [line for line in done.stdout.splitlines() if line.startswith("~ connection")]
    assert names == ["~ connection cache/memory#spare of acme", "~ connection cache/memory#main of acme"]
