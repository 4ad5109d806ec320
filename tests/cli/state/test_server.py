"""What a server says, or does not say, reaches who typed the command in words."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from erp.cli.state import server as module
from erp.cli.state.server import Server, ServerError, connected


def server(answer: Callable[[httpx2.Request], httpx2.Response]) -> Server:
    """A server that answers as told."""
    return Server(httpx2.Client(transport=httpx2.MockTransport(answer), base_url="http://layer.test"))


def lost(request: httpx2.Request) -> httpx2.Response:
    message = "the peer closed the connection"
    raise httpx2.ReadError(message, request=request)


def test_nobody_there_is_told_with_what_to_do() -> None:
    with (
        connected("http://127.0.0.1:1", "") as nobody,
        pytest.raises(ServerError, match=r"cannot be reached.*erp serve"),
    ):
        nobody.get("/tenants")


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://layer.test"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with connected(url, "") as nobody, pytest.raises(ServerError, match="cannot be reached"):
        nobody.get("/tenants")


def test_a_change_without_an_answer_may_have_been_made() -> None:
    with pytest.raises(ServerError, match=r"got no answer.*It may have been done all the same: `erp diff` shows"):
        server(lost).send("PUT", "/quotas/day", {"limit": 1})
    with pytest.raises(ServerError) as found:
        server(lost).get("/quotas")
    assert "may have been done" not in str(found.value)


def test_an_answer_of_other_software_is_told() -> None:
    with pytest.raises(ServerError, match="answered 502; is it this software"):
        server(lambda _: httpx2.Response(502, text="<html>")).get("/tenants")


def test_every_field_of_a_refusal_is_told() -> None:
    problem: dict[str, object] = {"detail": "Two errors.", "code": "invalid_argument"}
    problem |= {"errors": [{"pointer": "/a", "message": "is wrong"}, {"pointer": "/b", "message": "as well"}]}

    with pytest.raises(ServerError) as found:
        server(lambda _: httpx2.Response(400, json=problem)).get("/tenants")

    assert (str(found.value), found.value.code) == (
        "Two errors. (invalid_argument)\n  /a: is wrong\n  /b: as well",
        "invalid_argument",
    )


def test_all_pages_are_read() -> None:
    asked: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.params.get("cursor"))
        page = {"items": [{"number": len(asked)}]}
        return httpx2.Response(200, json=page if len(asked) == 3 else {**page, "next_cursor": f"after {len(asked)}"})

    assert [item["number"] for item in server(answer).pages("/tenants")] == [1, 2, 3]
    assert asked == [None, "after 1", "after 2"]


def operation(state: str, **more: object) -> dict[str, object]:
    """What a server answers of a change that takes long."""
    return {"id": "op_1", "state": state, **more}


def test_a_change_that_takes_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    states = iter(["queued", "running", "succeeded"])
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(f"{request.method} {request.url.path} {request.headers.get('prefer')}")
        return httpx2.Response(200, json=operation(next(states)))

    layer = server(answer)
    assert layer.settled(layer.send("POST", "/providers/cache/memory/configure", {}))["state"] == "succeeded"

    assert asked == ["POST /providers/cache/memory/configure None", *["GET /operations/op_1 wait=20"] * 2]
    assert layer.settled({"provider": "cache/memory"}) == {"provider": "cache/memory"}


def test_a_change_that_fails_late_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    problem = {"detail": "It is down.", "code": "unavailable"}
    layer = server(lambda _: httpx2.Response(200, json=operation("failed", problem=problem)))

    with pytest.raises(ServerError, match=r"It is down\. \(unavailable\)"):
        layer.settled(operation("running"))
    with pytest.raises(ServerError, match="cancelled"):
        layer.settled(operation("cancelled"))


def test_a_change_without_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(module, "LONGEST_SECONDS", -1.0)

    with pytest.raises(ServerError, match=r"The operation op_1 is still running\. `erp diff` shows"):
        server(lambda _: httpx2.Response(200, json=operation("running"))).settled(operation("running"))
