"""HTTP/1.1 as it should not be sent, and as it rarely is."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx2
import pytest
from tests.support.process import Server
from tests.support.wire import Answer, Wire, connected, request

from erp.gateway.bodies import MAX_BODY_BYTES, MAX_DEPTH

SET, GET = "/providers/cache/memory/set", "/providers/cache/memory/get"
CALL = b'{"params":{"key":"wire"}}'


@pytest.fixture
def key(shared: Server) -> str:
    return shared.keys["developer"]


def stored(client: httpx2.Client, key: str) -> Any:
    """What the cache holds under ``key``; None when there is nothing."""
    return client.post(GET, json={"params": {"key": key}}).json()["data"].get("value")


def setting(key: str, value: Any) -> bytes:
    return json.dumps({"params": {"key": key, "value": value}}).encode()


def problem_of(answer: Answer) -> dict[str, Any]:
    """The problem an answer must be."""
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status
    return found


def assert_alive(wire: Wire, key: str) -> None:
    """The connection still serves."""
    wire.send(request(GET, key, CALL))
    assert wire.answer().status == 200


def test_a_head_larger_than_64_kib_is_refused_however_it_arrives(shared: Server, key: str) -> None:
    for parts in (1, 8):
        with connected(shared.address) as wire:
            for number in range(parts):
                head = request("/healthz", key, method="GET", **{f"X_{i}": "a" * 1000 for i in range(70)})
                wire.send(head[number * len(head) // parts : (number + 1) * len(head) // parts])
            refused = wire.answer()
            assert (refused.status, problem_of(refused)["code"]) == (431, "invalid_argument")
            assert refused.headers["connection"] == "close"


def test_a_head_between_the_limits_of_the_call_and_of_the_server_is_a_problem(shared: Server, key: str) -> None:
    with connected(shared.address) as wire:
        wire.send(request(GET, key, CALL, **{f"X_{i}": "a" * 1000 for i in range(40)}))
        refused = wire.answer()
        assert (refused.status, "larger than 32768 bytes" in problem_of(refused)["detail"]) == (431, True)
        assert_alive(wire, key)


def test_pipelined_requests_are_answered_in_their_order(shared: Server, key: str) -> None:
    slow = b'{"params":{"topic":"demo.wire","group":"g","wait_seconds":0.2}}'
    with connected(shared.address) as wire:
        wire.send(
            request("/providers/bus/log/pull", key, slow, X_Request_Id="first")
            + request(GET, key, CALL, X_Request_Id="second")
            + request("/nowhere", key, method="GET", X_Request_Id="third")
        )
        answers = [wire.answer() for _ in range(3)]
    assert [(answer.status, answer.headers["x-request-id"]) for answer in answers] == [
        (200, "first"),
        (200, "second"),
        (404, "third"),
    ]


@pytest.mark.parametrize(
    "nonsense", [b"NONSENSE\r\n\r\n", request("/healthz", method="GET", X=("a" * 70_000))], ids=["no http", "too large"]
)
def test_a_refusal_never_overtakes_the_answer_of_an_earlier_request(shared: Server, key: str, nonsense: bytes) -> None:
    slow = b'{"params":{"topic":"demo.wire","group":"g","wait_seconds":0.2}}'
    with connected(shared.address) as wire:
        wire.send(request("/providers/bus/log/pull", key, slow) + nonsense)
        first = wire.answer()
        assert (first.status, first.headers["connection"]) == (200, "close")
        assert first.json()["data"] == {"deliveries": []}
        assert wire.ends()


def test_a_connection_serves_one_request_after_the_other(shared: Server, key: str) -> None:
    with connected(shared.address) as wire:
        for _ in range(3):
            assert_alive(wire, key)
        wire.send(b"\r\n" + request(GET, key, CALL, Connection="close"))
        last = wire.answer()
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert wire.ends()


@pytest.mark.parametrize("target", ["/healthz", "/providers"])
def test_head_is_answered_without_a_body(shared: Server, key: str, target: str) -> None:
    with connected(shared.address) as wire:
        wire.send(request(target, key, method="HEAD"))
        head = wire.answer(to="HEAD")
        assert head.status == 200
        assert int(head.headers["content-length"]) > 0
        assert_alive(wire, key)


def test_a_chunked_body_is_one_body(shared: Server, key: str, client: httpx2.Client) -> None:
    whole = setting("chunked", "put together")
    chunks = [whole[:1], whole[1:20], whole[20:]]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    with connected(shared.address) as wire:
        wire.send(request(SET, key, body + b"0\r\n\r\n", Transfer_Encoding="chunked"))
        assert wire.answer().status == 200
        assert_alive(wire, key)
    assert stored(client, "chunked") == "put together"


def test_a_body_broken_between_its_chunks_changes_nothing(shared: Server, key: str, client: httpx2.Client) -> None:
    whole = setting("broken", 1)
    with connected(shared.address) as wire:
        wire.send(request(SET, key, b"%x\r\n%b\r\nnot a size\r\n" % (len(whole), whole), Transfer_Encoding="chunked"))
        assert problem_of(wire.answer())["status"] == 400
        assert wire.ends()
    assert stored(client, "broken") is None


def test_a_body_that_is_expected_is_asked_for(shared: Server, key: str, client: httpx2.Client) -> None:
    body = setting("expected", True)
    with connected(shared.address) as wire:
        wire.send(request(SET, key, body, Expect="100-continue")[: -len(body)])
        assert wire.answer().status == 100
        wire.send(body)
        assert wire.answer().status == 200
        assert_alive(wire, key)
    assert stored(client, "expected") is True


def test_a_body_nobody_wants_is_not_asked_for_and_cannot_become_a_request(shared: Server) -> None:
    hidden = request("/healthz", method="GET")
    with connected(shared.address) as wire:
        wire.send(request(SET, "erpk_live_wrong", hidden, Expect="100-continue")[: -len(hidden)])
        refused = wire.answer()
        assert (refused.status, refused.headers["connection"]) == (401, "close")
        assert wire.ends()


def test_http_1_0_is_answered_and_closed(shared: Server, key: str) -> None:
    with connected(shared.address) as wire:
        wire.send(request(GET, key, CALL, version="1.0"))
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert wire.ends()


def test_a_stream_to_http_1_0_has_no_chunks(shared: Server, key: str) -> None:
    with connected(shared.address) as wire:
        body = b'{"params":{"sql":"select 1 as one"}}'
        wire.send(request("/providers/db/sqlite/stream", key, body, version="1.0"))
        answer = wire.answer()
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert [json.loads(line) for line in answer.body.splitlines()] == [{"columns": [{"name": "one"}]}, {"rows": [[1]]}]


def test_a_body_cut_off_by_its_sender_leaves_nothing_done(shared: Server, key: str, client: httpx2.Client) -> None:
    body = b'{"params":{"sql":"create table half (a)"}}'
    with connected(shared.address) as wire:
        wire.send(request("/providers/db/sqlite/execute", key, body, Content_Length=str(len(body) + 1)))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.ends()
    found = client.post("/providers/db/sqlite/metadata", json={"params": {"table": "half"}})
    assert found.status_code == 404


def test_a_body_that_says_it_is_too_large_is_not_read(shared: Server, key: str) -> None:
    with connected(shared.address) as wire:
        wire.send(request(SET, key, b"{", Content_Length=str(MAX_BODY_BYTES + 1)))
        refused = wire.answer()
        assert (refused.status, problem_of(refused)["code"]) == (413, "invalid_argument")


def test_a_body_that_turns_out_too_large_is_refused(shared: Server, key: str, client: httpx2.Client) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with connected(shared.address) as wire:
        wire.send(request(SET, key, b"", Transfer_Encoding="chunked"))
        for _ in range(MAX_BODY_BYTES // 0x100000 + 1):
            wire.send(chunk)
        refused = wire.answer()
        assert (refused.status, problem_of(refused)["code"]) == (413, "invalid_argument")
        wire.send(b"0\r\n\r\n")
        assert_alive(wire, key)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: 4\r\nContent-Length: 5\r\n", b"{}   "),
        ("Content-Length: 4, 5\r\n", b"{}   "),
        ("Content-Length: +2\r\n", b"{}"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"0\r\n\r\n"),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        ("Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        ("Content-Length: 2\r\n folded: header\r\n", b"{}"),
    ],
)
def test_a_body_whose_length_can_be_read_in_two_ways_is_refused(
    shared: Server, key: str, headers: str, body: bytes
) -> None:
    """RFC 9112, section 6.3: what a proxy in front may understand otherwise is never passed on."""
    head = f"POST {SET} HTTP/1.1\r\nHost: layer.test\r\nAuthorization: Bearer {key}\r\n{headers}\r\n"
    with connected(shared.address) as wire:
        wire.send(head.encode() + body + request("/healthz", method="GET"))
        assert problem_of(wire.answer())["status"] == 400
        assert wire.ends()


def test_json_is_read_down_to_the_limit_and_no_deeper(shared: Server, key: str) -> None:
    with connected(shared.address) as wire:
        for nesting, status in ((MAX_DEPTH - 2, 200), (MAX_DEPTH - 1, 400), (1_000_000, 400)):
            value = b"[" * nesting + b"]" * nesting
            wire.send(request(SET, key, b'{"params":{"key":"deep","value":' + value + b"}}"))
            answer = wire.answer()
            assert answer.status == status, (nesting, answer.body[:200])
            assert status == 200 or "nested deeper than 64 levels" in problem_of(answer)["detail"]


def test_of_two_equal_names_in_an_object_the_last_one_counts(shared: Server, key: str, client: httpx2.Client) -> None:
    with connected(shared.address) as wire:
        wire.send(request(SET, key, b'{"params":{"key":"one","value":1,"value":2,"key":"two"}}'))
        assert wire.answer().status == 200
    assert (stored(client, "one"), stored(client, "two")) == (None, 2)


@pytest.mark.parametrize(
    "body",
    [
        b'{"params":{"key":"\xff","value":1}}',
        b'{"params":{"key":"\xed\xa0\x80","value":1}}',
        b"\xff\xfe{\x00}\x00",
        b"",
    ],
    ids=["no utf-8", "surrogate", "utf-16", "empty"],
)
def test_what_is_no_json_text_is_refused_with_the_reason(shared: Server, key: str, body: bytes) -> None:
    with connected(shared.address) as wire:
        wire.send(request(SET, key, body))
        refused = wire.answer()
        assert (refused.status, problem_of(refused)["code"]) == (400, "invalid_argument")
        assert problem_of(refused)["detail"].startswith("The body is not valid JSON: ")
        assert_alive(wire, key)


@pytest.mark.parametrize(
    "target", ["/%ff%fe/x", "/providers/cache/memory/%00", "/" + "a" * 20_000, "//", "/providers//x/y"]
)
def test_no_path_is_more_than_not_found(shared: Server, key: str, target: str) -> None:
    with connected(shared.address) as wire:
        wire.send(request(target, key, CALL))
        assert problem_of(wire.answer())["code"] == "not_found"
        assert_alive(wire, key)


@pytest.mark.parametrize("line", ["OPTIONS *", "CONNECT layer.test:443", "GET http://", "GET /\x80"])
def test_a_request_line_without_a_path_is_refused(shared: Server, key: str, line: str) -> None:
    with connected(shared.address) as wire:
        wire.send(f"{line} HTTP/1.1\r\nHost: layer.test\r\n\r\n".encode("latin-1"))
        assert wire.answer().status in {400, 404, 405}


def test_an_upgrade_is_not_taken_up(shared: Server, key: str) -> None:
    with connected(shared.address) as wire:
        wire.send(request("/healthz", key, method="GET", Connection="Upgrade", Upgrade="websocket"))
        assert wire.answer().status == 200
        wire.send(request("/healthz", key, method="GET", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c"))
        assert wire.answer().status == 200


def test_the_server_logged_no_failure_for_any_of_this(shared: Server) -> None:
    assert "Traceback" not in shared.log, shared.log
