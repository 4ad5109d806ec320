"""Bodies are bounded in size, time and depth before anything reads them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from erp.errors import ProviderError
from erp.gateway import bodies
from erp.gateway.inbound import Inbound

pytestmark = pytest.mark.anyio


def receiving(*parts: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return receive


async def test_a_body_in_parts_arrives_whole() -> None:
    assert await bodies.read_json(Inbound([]), receiving(b'{"pa', b'rams"', b": {}}")) == b'{"params": {}}'


async def test_a_body_that_is_not_json_by_its_own_word_is_415() -> None:
    with pytest.raises(ProviderError) as refused:
        await bodies.read_json(Inbound([(b"content-type", b"text/xml")]), receiving(b"<a/>"))
    assert (refused.value.status, refused.value.code) == (415, "invalid_argument")


async def test_a_declared_length_over_the_limit_is_refused_before_reading() -> None:
    async def never() -> dict[str, Any]:
        raise AssertionError("the body was read")

    headers = [(b"content-length", str(bodies.MAX_BODY_BYTES + 1).encode())]
    with pytest.raises(ProviderError) as refused:
        await bodies.read_json(Inbound(headers), never)
    assert refused.value.status == 413


async def test_an_undeclared_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 10)
    with pytest.raises(ProviderError) as refused:
        await bodies.read_json(Inbound([]), receiving(b"123456", b"789012"))
    assert refused.value.status == 413
    assert await bodies.read_json(Inbound([]), receiving(b"1234567890")) == b"1234567890"


async def test_a_slow_body_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.02)

    async def forever() -> dict[str, Any]:
        await asyncio.sleep(30)
        raise AssertionError

    with pytest.raises(ProviderError) as refused:
        await bodies.read_json(Inbound([]), forever)
    assert refused.value.status == 408


async def test_a_caller_who_goes_away_cancels_the_call() -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ProviderError) as refused:
        await bodies.read_json(Inbound([]), gone)
    assert refused.value.code == "cancelled"


@pytest.mark.parametrize(
    ("_case", "body"),
    [
        ("exactly the limit", b"[" * 64 + b"]" * 64),
        ("wide", b'{"a": [' + b"[]," * 500 + b"[]]}"),
        ("brackets in strings", b'{"a": "' + b"[" * 500 + b'"}'),
        ("escaped quotes", b'{"a": "' + b'\\"[[' * 200 + b'"}'),
        ("empty", b""),
    ],
)
def test_shallow_bodies_pass(_case: str, body: bytes) -> None:
    bodies.check_depth(body)


@pytest.mark.parametrize(
    ("_case", "body"),
    [
        ("one more than the limit", b"[" * 65 + b"]" * 65),
        ("never closed", b"[" * 100_000),
        ("objects", b'{"a":' * 65 + b"1" + b"}" * 65),
        ("deep after shallow", b'{"s": "]]]", "a": ' + b"[" * 64 + b"]" * 64 + b"}"),
    ],
)
def test_deep_bodies_are_refused(_case: str, body: bytes) -> None:
    with pytest.raises(ProviderError) as refused:
        bodies.check_depth(body)
    assert "64 levels" in refused.value.message


def test_brackets_inside_strings_neither_make_nor_hide_depth() -> None:
    hidden = b'["]",' * 65 + b"0" + b',"["]' * 65
    with pytest.raises(ProviderError, match="nested deeper than 64 levels"):
        bodies.check_depth(hidden)
    bodies.check_depth(b'["]",' * 64 + b"0" + b',"["]' * 64)
    bodies.check_depth(json.dumps(["[{" * 100, '\\"[' * 100, "\\", "[" * 100, "\n[" * 100, '"' + "[" * 100]).encode())
