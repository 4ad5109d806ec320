"""Orders in UBL, and how to break them."""

from __future__ import annotations

from pathlib import Path

import pytest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.services.order import ubl

ORDER = (Path(__file__).parent / "order.xml").read_text()
SMALL = (Path(__file__).parent / "small.xml").read_text()


def changed(document: str, before: str, after: str) -> str:
    """Replace what stands in a document exactly once."""
    assert document.count(before) == 1, before
    return document.replace(before, after)


async def refused(document: str) -> list[str]:
    """Return what is said to be wrong with a document."""
    with pytest.raises(ProviderError) as caught:
        await ubl.read(document)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert {item.pointer for item in caught.value.errors} == {"/params/document"}
    return [item.message for item in caught.value.errors]
