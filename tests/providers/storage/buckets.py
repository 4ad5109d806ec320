"""Where the object stores are that tests may use, and providers opened on them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.runtime import loader
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

CATALOG = ProviderCatalog.load()
HOSTILE = [
    "../../beta/default/k", "..", "a/../../../x", "/../x", "a//b", "//", "/", "a/", "...", "a/.", "%2e%2e/x", "%E", "a/%E", "a%",
    "\\..\\x", "\u0000", "a\r\nx-amz-acl: public-read", "ключ/🔑", "e\u0301", "é", "\uff0e\uff0e/x", "?versionId=1#f", "x" * 1024, "ж" * 600,
    "x" * 1000 + "/tail", ".hidden", "a.", "\ufffe",
]  # fmt: skip


def bucket_of(live: Any) -> dict[str, Any]:
    """The configuration of a bucket on a running server; without one the asking test is skipped by name."""
    address = os.environ.get(live.VARIABLE)
    if not address:
        pytest.skip(f"{live.REF} needs {live.VARIABLE}")
    config: dict[str, Any] = live.config(address)
    return config


def server_of(config: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port."""
    url = urlsplit(config["endpoint"])
    assert url.hostname
    assert url.port
    return url.hostname, url.port


def made(ref: str, config: Mapping[str, Any], context: OpenContext, **place: Any) -> Any:
    """A provider that is not open yet."""
    manifest = CATALOG.provider(*ref.split("/"))
    return loader.load(manifest)({**manifest.defaults, **config}, dataclasses.replace(context, **place))


@asynccontextmanager
async def opened(ref: str, config: Mapping[str, Any], context: OpenContext, **place: Any) -> AsyncIterator[Any]:
    """A provider at work."""
    provider = made(ref, config, context, **place)
    await provider.open()
    try:
        yield provider
    finally:
        await provider.close()


class Store:
    """A provider with a context for each call, spoken to briefly."""

    def __init__(self, provider: Any, context: Any) -> None:
        self.provider = provider
        self._context = context

    async def put(
        self, key: str, content: bytes = b"content", *, facts: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        return await self.provider.put(api.PutRequest(key=key, content=content, **more), self.context(**(facts or {})))

    async def get(self, key: str, **more: Any) -> bytes:
        content: bytes = (await self.provider.get(api.GetRequest(key=key, **more), self.context())).content
        return content

    async def head(self, key: str) -> Any:
        return await self.provider.head(api.HeadRequest(key=key), self.context())

    async def keys(self, **more: Any) -> list[str]:
        page = await self.provider.list(api.ListRequest(limit=1000, **more), self.context())
        return [one.key for one in page.objects]

    async def refusal(self, action: str, request: Any, **facts: Any) -> ProviderError:
        """What a call is refused with."""
        with pytest.raises(ProviderError) as caught:
            await getattr(self.provider, action)(request, self.context(**facts))
        return caught.value

    def context(self, **facts: Any) -> CallContext:
        made: CallContext = self._context(**{"seconds": 30.0, **facts})
        return made
