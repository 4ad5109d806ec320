"""Pages, as far as no store has to answer for them."""

from __future__ import annotations

from typing import Any

import pytest

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.vendor_clients.object_store.failures import Refusal, RefusedError
from erp.vendor_clients.object_store.keys import KeySpace
from erp.vendor_clients.object_store.objects import Objects
from erp.vendor_clients.object_store.s3_rest import Page

pytestmark = pytest.mark.anyio
SPACE = KeySpace.of("erp", "acme", "default", longest_bytes=1024)
NO_BODIES: Any = None


class Refusing:
    """A store that refuses every page."""

    async def page(self, prefix: str, **_: Any) -> Page:
        raise RefusedError(Refusal(400, "InvalidArgument"))


@pytest.mark.parametrize(("more", "code"), [({"cursor": "junk"}, "invalid_argument"), ({}, "failed_precondition")])
async def test_a_cursor_that_the_store_does_not_know_is_named(
    call_context: Any, more: dict[str, Any], code: str
) -> None:
    objects = Objects(NO_BODIES, SPACE, timeout_seconds=5)

    with pytest.raises(ProviderError) as caught:
        await objects.page(Refusing(), api.ListRequest(**more), call_context())

    assert caught.value.code == code
    assert [one.pointer for one in caught.value.errors] == (["/params/cursor"] if more else [])
