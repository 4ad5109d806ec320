"""A secret that is kept at a secrets provider is used where a configuration asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.vault_double import Double

from erp.errors import ProviderError
from erp.main import Settings, running
from erp.runtime.ports import Connection

pytestmark = pytest.mark.anyio


def connection(domain: str, provider: str, config: dict[str, str], secrets: dict[str, str]) -> Connection:
    return Connection(
        tenant="acme",
        domain=domain,
        provider=provider,
        name="main",
        revision="",
        config=config,
        secrets=secrets,
        policy={},
    )


async def test_a_configuration_uses_a_secret_that_a_vault_server_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    double = Double()
    async with running(Settings(data_dir=tmp_path, database_url=None)) as layer:
        await layer.control.tenants.create("acme")
        await layer.control.tenants.create("globex")
        await layer.vault.put("acme", "vault-token", double.vault.root_token)
        vault = connection("secrets", "vault", {"address": double.address}, {"token": "secret://vault-token#1"})
        await layer.control.connections.put(vault)
        space = "|erp/acme/main/crm/key"
        double.vault._data_post(space, {}, {"data": {"value": "first"}})
        double.vault._data_post(space, {}, {"data": {"value": "second"}})

        read = layer.pool.secrets.read
        path = "secrets/vault/main/crm/key"
        assert await read("acme", path, 1, domain="integration") == "first"
        assert await read("acme", path, None, domain="integration") == "second"
        opened = await layer.pool.open_unpooled(
            connection("integration", "http_api", {"base_url": double.address}, {"token": f"secret://{path}#2"})
        )
        assert opened.provider._config["token"] == "second"
        await opened.provider.close()

        refusals = {
            "not_found": [("globex", path, "db"), ("acme", "secrets/vault/other/x", "db"), ("acme", "secrets/x", "db")],
            "failed_precondition": [("acme", path, "secrets")],
        }
        for code, asked in refusals.items():
            for tenant, where, domain in asked:
                with pytest.raises(ProviderError) as refused:
                    await read(tenant, where, None, domain=domain)
                assert refused.value.code == code
    double.close()
