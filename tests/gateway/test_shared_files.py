"""Tenants that share a file see their own rows over HTTP; a provider that shares no tables says so."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import httpx2
import pytest
from tests.gateway.conftest import Site
from tests.support.contract_client import contract_client
from typer.testing import CliRunner

from erp.cli import app
from erp.cli.db.servers import URL

pytestmark = pytest.mark.anyio
POOL = """
create table sales (tenant varchar, id integer, amount integer, primary key (tenant, id));
insert into sales values ('acme', 1, 10), ('globex', 1, 77), ('globex', 2, 88);
create table erp_isolation as select 'sales' as table_name, 'tenant' as tenant_column;
"""


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared files lie with the models, which may be in a folder of all layers of a machine."""
    monkeypatch.delenv("ERP_MODELS_DIR", raising=False)


@pytest.fixture
def pool(site: Site) -> Path:
    path = site.layer.settings.models_dir / "db-duckdb" / "shop.duckdb"
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute(POOL)
    return path


async def globex(site: Site) -> httpx2.AsyncClient:
    await site.layer.control.tenants.create("globex", name="Globex")
    _, key = await site.layer.control.api_keys.create("globex", role="operator")
    return contract_client(site.layer.application(), key)


async def configured(client: httpx2.AsyncClient, provider: str, config: dict[str, Any]) -> httpx2.Response:
    return await client.post(f"/providers/db/{provider}/configure", json={"config": config})


async def rows(client: httpx2.AsyncClient, sql: str, provider: str = "duckdb") -> Any:
    answer = await client.post(f"/providers/db/{provider}/query", json={"params": {"sql": sql}})
    return answer.json()["data"]["rows"] if answer.status_code == 200 else answer.json()["code"]


async def test_tenants_that_share_a_file_of_duckdb_meet_nowhere(site: Site, pool: Path) -> None:
    async with site.client("operator") as mine, await globex(site) as theirs:
        for client in (mine, theirs):
            answer = await configured(client, "duckdb", {"mode": "pooled", "file": pool.stem})
            assert answer.status_code == 200, answer.text
        assert [await rows(client, "select sum(amount) from sales") for client in (mine, theirs)] == [[[10]], [[165]]]
        body = {"params": {"sql": "update sales set amount = amount + 1 where true"}}
        changed = await mine.post("/providers/db/duckdb/execute", json=body)
        assert changed.json()["data"]["rows_affected"] == 1
        assert [await rows(client, "select sum(amount) from sales") for client in (mine, theirs)] == [[[11]], [[165]]]
        assert await rows(mine, "select tenant from sales") == "invalid_argument"


async def test_tenants_share_a_file_of_sqlite_once_the_command_has_listed_its_tables(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.layer.settings.models_dir / "db-sqlite" / "shop.sqlite3"
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(POOL.partition("create table erp_isolation")[0].replace("varchar", "text not null"))
    monkeypatch.setenv(URL, f"sqlite://{path}")
    words = ["db", "isolate", "sales", "--dialect", "sqlite", "--apply", "--check"]
    config = {"mode": "pooled", "file": path.stem}
    async with site.client("operator") as mine, await globex(site) as theirs:
        early = await configured(mine, "sqlite", config)
        assert (early.status_code, "erp db isolate" in early.json()["detail"]) == (412, True)
        done = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert (done.exit_code, done.output) == (0, "the listed tables keep tenants apart\n")
        for client in (mine, theirs):
            assert (await configured(client, "sqlite", config)).status_code == 200
        sums = [await rows(client, "select sum(amount) from sales", "sqlite") for client in (mine, theirs)]
        assert sums == [[[10]], [[165]]]
        assert await rows(mine, "select tenant from sales", "sqlite") == "invalid_argument"


@pytest.mark.parametrize("provider", ["duckdb", "sqlite"])
async def test_a_shared_file_that_is_not_there_is_refused_with_who_makes_it(site: Site, provider: str) -> None:
    async with site.client("operator") as client:
        answer = await configured(client, provider, {"mode": "pooled", "file": "missing"})
    assert (answer.status_code, answer.json()["code"]) == (412, "failed_precondition")
    assert "The operator makes it" in answer.json()["detail"]


async def test_snowflake_shares_no_tables_and_names_what_it_offers(site: Site) -> None:
    config = {"mode": "pooled", "account": "acme", "user": "erp", "password": "not used", "database": "SHOP"}
    async with site.client("operator") as client:
        answer = await configured(client, "snowflake", config)
        described = (await client.get("/providers/db/snowflake")).json()
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    (wrong,) = answer.json()["errors"]
    assert wrong["pointer"] == "/config/mode"
    assert '"siloed" or "schema"' in wrong["message"]
    assert "Not pooled: row access policies do not hold for inserted rows." in str(described)
