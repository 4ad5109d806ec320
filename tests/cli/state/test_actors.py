"""Service accounts, their certificates and their keys in a state file."""

from __future__ import annotations

import pytest
from tests.cli.state.conftest import Terminal
from tests.cli.state.test_apply import STATE

pytestmark = pytest.mark.anyio

PRINT = "fingerprint:" + 32 * "ab"
OTHER = "fingerprint:" + 32 * "cd"


def state(accounts: str = "", certificates: str = "", keys: str = "") -> str:
    """A file about the tenant ``acme``; sections that are not given are not in it."""
    sections = {"service_accounts": accounts, "certificates": certificates, "keys": keys}
    lines = [f"    {name}: {{{text}}}\n" for name, text in sections.items() if text]
    return "version: 1\ntenants:\n  acme:\n" + "".join(lines)


SHOP = "shop: {role: developer}"


async def test_what_was_applied_lets_the_machine_in_and_is_its_account(terminal: Terminal) -> None:
    done = await terminal.apply(STATE, "--create-keys")
    key = done.stdout.partition("(shown only now): ")[2].splitlines()[0]

    assert "+ service account import of acme" in done.stdout
    assert f'+ certificate {PRINT} of acme\n    service_account: "import"\n' in done.stdout
    assert (await terminal.layer.identity.authenticate(key)).id == "account_import"
    holders = await terminal.layer.control.client_certificates.holders([("fingerprint", 32 * "ab")])
    assert [(one.tenant, one.service_account) for one in holders] == [("acme", "import")]


async def test_an_account_is_disabled_and_enabled_in_place(terminal: Terminal) -> None:
    await terminal.apply(state(SHOP))
    for is_disabled in (True, False):
        text = state(f"shop: {{role: developer, disabled: {str(is_disabled).lower()}}}")
        assert "~ service account shop of acme\n    disabled: " in (await terminal.diff(text)).stdout
        assert "1 change made" in (await terminal.apply(text)).stdout
        account = await terminal.layer.control.service_accounts.get("acme", "shop")
        assert (account.disabled_at is not None) is is_disabled
        assert (await terminal.diff(text)).exit_code == 0


async def test_an_account_is_made_disabled_when_the_file_says_so(terminal: Terminal) -> None:
    await terminal.apply(state("shop: {role: developer, disabled: true}"))
    assert (await terminal.layer.control.service_accounts.get("acme", "shop")).disabled_at is not None


async def test_a_certificate_moves_to_another_account(terminal: Terminal) -> None:
    accounts = f"{SHOP}, store: {{role: developer}}"
    await terminal.apply(state(accounts, f"'{PRINT}': {{service_account: shop}}"))

    done = await terminal.apply(state(accounts, f"'{PRINT}': {{service_account: store}}"))

    assert 'service_account: "shop" -> "store"' in done.stdout
    items, _ = await terminal.layer.control.client_certificates.list("acme")
    assert [(item.service_account, item.value) for item in items] == [("store", 32 * "ab")]


async def test_only_prune_removes_and_the_account_goes_last(terminal: Terminal) -> None:
    await terminal.apply(STATE, "--create-keys")
    empty = "version: 1\ntenants:\n  acme: {service_accounts: {}, certificates: {}, keys: {}}\n"
    assert "3 changes left: only with --prune" in (await terminal.apply(empty)).stdout

    pruned = await terminal.apply(empty, "--prune")

    assert [line for line in pruned.stdout.splitlines() if line.startswith("- ")] == [
        "- key robot of acme",
        f"- certificate {PRINT} of acme",
        "- service account import of acme",
    ]
    assert "import" not in await terminal.export()


WRONG = {
    "unknown-owner-of-a-certificate": (
        state(SHOP, f"'{PRINT}': {{service_account: nobody}}"),
        f"certificates.{PRINT}.service_account: There is no service account nobody; name it in service_accounts",
    ),
    "unknown-owner-of-a-key": (
        state(SHOP, keys="k: {role: developer, service_account: nobody}"),
        "keys.k.service_account: There is no service account nobody; name it in service_accounts",
    ),
    "key-with-another-role": (
        state(SHOP, keys="k: {role: admin, service_account: shop}"),
        "keys.k.role: is not that of the service account: developer",
    ),
    "key-with-more-scopes": (
        state(
            "shop: {role: developer, scopes: ['providers:cache/*:*']}",
            keys="k: {role: developer, service_account: shop}",
        ),
        "keys.k.scopes: has to be those of the service account or some of them: providers:cache/*:*",
    ),
    "fingerprint-with-colons": (
        state(SHOP, f"'fingerprint:{':'.join(32 * ['AB'])}': {{service_account: shop}}"),
        "is no name that can be here",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
async def test_what_cannot_be_made_is_refused_and_nothing_is(terminal: Terminal, text: str, said: str) -> None:
    before = await terminal.export()
    done = await terminal.apply(text, "--create-keys")
    assert (done.exit_code, said in done.stderr) == (1, True), done.stderr
    assert done.stderr.endswith("nothing was changed\n")
    assert await terminal.export() == before


async def test_what_is_fixed_of_an_account_or_a_key_is_refused_with_the_remedy(terminal: Terminal) -> None:
    made = state(SHOP, keys="k: {role: developer, service_account: shop}")
    await terminal.apply(made, "--create-keys")
    before = await terminal.export()
    for text, said in (
        (state("shop: {role: operator}"), "service_accounts.shop.role: is fixed when it is made: developer now."),
        (
            state(keys="k: {role: admin, service_account: shop}"),
            "keys.k.role: is not that of the service account: developer",
        ),
        (state(keys="k: {role: developer}"), "keys.k.service_account: is fixed when it is made: shop now."),
    ):
        done = await terminal.apply(text)
        assert (done.exit_code, said in done.stderr) == (1, True), done.stderr
    assert await terminal.export() == before


async def test_names_in_certificates_are_for_the_platform_alone(terminal: Terminal) -> None:
    _, admin = await terminal.layer.control.api_keys.create("acme", role="admin", name="admin")
    named = state(SHOP, "'uri:spiffe://example.com/shop': {service_account: shop}")

    refused = await terminal.apply(named, key=admin)
    assert refused.exit_code == 1
    assert "can be registered by administrators of the platform alone" in refused.stderr
    own = await terminal.apply(state(SHOP, f"'{OTHER}': {{service_account: shop}}"), key=admin)
    assert (own.exit_code, own.stderr) == (0, "")

    done = await terminal.apply(named)
    assert (done.exit_code, "1 change left: only with --prune" in done.stdout) == (0, True)
    text = await terminal.export()
    assert "uri:spiffe://example.com/shop:\n        service_account: shop" in text
    assert (await terminal.diff(text)).exit_code == 0


async def test_nobody_locks_the_command_out_by_its_own_account(terminal: Terminal) -> None:
    await terminal.layer.control.service_accounts.create("acme", "pipeline", role="admin")
    _, key = await terminal.layer.control.api_keys.create("acme", role="admin", name="p", service_account="pipeline")
    for text in (
        state("pipeline: {role: admin, disabled: true}"),
        "version: 1\ntenants:\n  acme: {service_accounts: {}}\n",
    ):
        done = await terminal.apply(text, "--prune", key=key)
        assert (done.exit_code, "is whose key this command uses" in done.stderr) == (1, True), done.stderr
    assert (await terminal.layer.identity.authenticate(key)).id == "account_pipeline"
