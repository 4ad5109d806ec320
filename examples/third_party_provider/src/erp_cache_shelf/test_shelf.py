"""The conformance suite against cache/shelf as it is installed, and what is special to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from erp.contracts.models.cache import Entry, GetRequest, SetManyRequest, SetRequest
from erp.runtime.conformance.plugin import provider_tests
from erp.runtime.spi import CallContext, ErrorCode, OpenContext, ProviderError
from erp_cache_shelf.provider import ShelfCache

test_conformance = provider_tests("cache/shelf")

CALL = cast("CallContext", None)
"""This provider does not look at it."""


def shelf(folder: Path, max_mebibytes: int = 1) -> ShelfCache:
    return ShelfCache({"max_mebibytes": max_mebibytes}, cast("OpenContext", SimpleNamespace(data_dir=folder)))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def value(cache: ShelfCache, key: str) -> Any:
    found: Any = (await cache.get(GetRequest(key=key), CALL)).value
    return msgspec.json.decode(found)


@pytest.mark.anyio
async def test_entries_outlive_a_restart(tmp_path: Path) -> None:
    first = shelf(tmp_path)
    await first.open()
    await first.set(SetRequest(key="a", value=1), CALL)
    await first.close()

    second = shelf(tmp_path)
    await second.open()

    assert await value(second, "a") == 1
    await second.close()


@pytest.mark.anyio
async def test_the_file_stays_within_its_limit_and_the_oldest_make_room(tmp_path: Path) -> None:
    cache = shelf(tmp_path)
    await cache.open()
    for number in range(100):
        await cache.set(SetRequest(key=f"k{number}", value="x" * 50_000), CALL)

    assert (tmp_path / "shelf.sqlite3").stat().st_size <= 1024 * 1024
    assert not (await cache.get(GetRequest(key="k0"), CALL)).found
    assert (await cache.get(GetRequest(key="k99"), CALL)).found
    await cache.close()


@pytest.mark.anyio
async def test_entries_too_large_for_the_file_are_refused_and_it_goes_on(tmp_path: Path) -> None:
    cache = shelf(tmp_path)
    await cache.open()
    large = [Entry(key=f"l{number}", value="x" * 600_000) for number in range(3)]

    with pytest.raises(ProviderError, match="raise max_mebibytes") as caught:
        await cache.set_many(SetManyRequest(entries=large), CALL)

    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    assert not (await cache.get(GetRequest(key="l0"), CALL)).found
    await cache.set(SetRequest(key="a", value=1), CALL)
    assert await value(cache, "a") == 1
    await cache.close()
