"""Links to objects, over HTTP, without a key."""

from __future__ import annotations

import base64
import datetime
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

KEY = "reports/2026/übersicht.txt"
CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than one part


def in_seconds(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


def link(site: Site, method: str, *, key: str = KEY, tenant: str = "acme", seconds: float = 60, **claims: str) -> str:
    made = site.layer.links.of(tenant, "storage", "filesystem", "default")
    url = made.make("objects", {"method": method, "key": key, **claims}, expires_at=in_seconds(seconds))
    return urlsplit(url).path


@pytest.fixture
async def stored(client: httpx2.AsyncClient) -> None:
    content = base64.b64encode(CONTENT).decode()
    params = {"key": KEY, "content": content, "content_type": "text/html"}
    answer = await client.post("/providers/storage/filesystem/put", json={"params": params})
    assert answer.status_code == 200


async def exists(client: httpx2.AsyncClient, key: str) -> bool:
    answer = await client.post("/providers/storage/filesystem/head", json={"params": {"key": key}})
    return bool(answer.json()["data"]["found"])


@pytest.mark.usefixtures("stored")
async def test_a_link_reads_the_whole_object_without_a_key_and_no_browser_would_run_it(site: Site) -> None:
    async with site.client(None) as anybody:
        answer = await anybody.get(link(site, "GET"))
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=1048570-1048589", 1048570, 1048590),
        ("bytes=2097100-", 2097100, 2097152),
        ("bytes=-5", 2097147, 2097152),
        ("bytes=2097150-9999999", 2097150, 2097152),
    ],
)
async def test_a_link_reads_one_range(site: Site, asked: str, start: int, end: int) -> None:
    async with site.client(None) as anybody:
        answer = await anybody.get(link(site, "GET"), headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    "asked", ["bytes=9999999-", "bytes=5-1", "bytes=-0", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4"]
)
async def test_a_range_that_cannot_be_answered_is_416_with_the_size(site: Site, asked: str) -> None:
    async with site.client(None) as anybody:
        answer = await anybody.get(link(site, "GET"), headers={"range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.usefixtures("stored")
async def test_head_describes_the_object_and_sends_nothing_of_it(site: Site) -> None:
    async with site.client(None) as anybody:
        answer = await anybody.head(link(site, "GET"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))


async def test_a_link_writes_the_object_it_was_made_for(site: Site, client: httpx2.AsyncClient) -> None:
    url = link(site, "PUT", key="in/a.bin", content_type="image/png")
    async with site.client(None) as anybody:
        refused = await anybody.put(url, content=b"x", headers={"content-type": "text/html"})
        assert refused.status_code == 415
        assert not await exists(client, "in/a.bin")
        written = await anybody.put(url, content=b"\x89PNG", headers={"content-type": "image/png"})
        assert (written.status_code, written.content) == (204, b"")
    read = await client.post("/providers/storage/filesystem/get", json={"params": {"key": "in/a.bin"}})
    assert read.json()["data"]["content"] == base64.b64encode(b"\x89PNG").decode()
    assert read.json()["data"]["content_type"] == "image/png"


@pytest.mark.usefixtures("stored")
async def test_a_link_is_good_for_its_method_and_its_time_alone(site: Site, client: httpx2.AsyncClient) -> None:
    async with site.client(None) as anybody:
        assert (await anybody.put(link(site, "GET", key="new"), content=b"x")).status_code == 403
        assert (await anybody.get(link(site, "PUT"))).status_code == 403
        late = await anybody.get(link(site, "GET", seconds=-1))
        assert (late.status_code, late.json()["code"]) == (403, "permission_denied")
        assert "expired" in late.json()["detail"]
    assert not await exists(client, "new")


@pytest.mark.usefixtures("stored")
async def test_a_changed_or_foreign_link_leads_nowhere(site: Site) -> None:
    good = link(site, "GET")
    token = good.rsplit("/", 1)[1]
    flipped = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
    async with site.client(None) as anybody:
        for path in (
            f"/objects/{flipped}",
            "/objects/x",
            "/objects/%C3%BC",
            f"/webhooks/{token}",
            f"/objects/{token}=",
        ):
            answer = await anybody.get(path)
            assert (path, answer.status_code, answer.json()["detail"]) == (path, 404, "There is no such link.")
        assert (await anybody.get(good)).status_code == 200


async def test_a_link_of_another_tenant_reads_that_tenants_object_and_no_other(
    site: Site, client: httpx2.AsyncClient
) -> None:
    await site.layer.control.tenants.create("globex")
    params = {"key": "shared-name", "content": base64.b64encode(b"acme's").decode()}
    await client.post("/providers/storage/filesystem/put", json={"params": params})
    async with site.client(None) as anybody:
        theirs = link(site, "GET", key="shared-name", tenant="globex")
        assert (await anybody.get(theirs)).status_code == 404
        assert (await anybody.get(link(site, "GET", key="shared-name"))).content == b"acme's"
        await site.layer.control.tenants.delete("globex")
        assert (await anybody.get(theirs)).status_code == 404


async def test_links_count_against_the_quota_of_their_tenant(site: Site) -> None:
    async with site.client("admin") as admin:
        await admin.put("/quotas/day", json={"limit": 1})
    async with site.client(None) as anybody:
        statuses = [(await anybody.get(link(site, "GET"))).status_code for _ in range(3)]
    assert statuses == [404, 429, 429]


async def test_a_webhook_link_of_a_provider_that_receives_nothing_says_so(site: Site) -> None:
    made = site.layer.links.of("acme", "storage", "filesystem", "default").make("webhooks", {"receiver": "r"})
    async with site.client(None) as anybody:
        assert (await anybody.post(urlsplit(made).path, content=b"{}")).status_code == 404
