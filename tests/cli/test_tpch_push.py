"""Pushing goes on until every submission is answered for good, whatever happens to the layer."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from erp.cli.demo.client import DemoClient
from erp.cli.demo.tpch.generated import Submission
from erp.cli.demo.tpch.push import Push, PushError

Reply = tuple[int, dict[str, Any]] | None
"""Status and problem; None: the connection ends without an answer."""
TAKEN: Reply = (200, {"data": {"created": True}})
BUSY: Reply = (409, {"code": "conflict", "retryable": False})


@dataclass
class Peer:
    """A layer that answers as it is told: the replies of a key one after the other, then always 200."""

    address: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, key: str, body: dict[str, Any]) -> Reply:
        with self.lock:
            assert key == f"order:{body['params']['customer_reference']}"
            self.seen[key] += 1
            return self.replies[key].pop(0) if self.replies.get(key) else TAKEN


def handler_for(peer: Peer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with peer.lock:
                peer.at_once += 1
                peer.most_at_once = max(peer.most_at_once, peer.at_once)
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            reply = peer.reply(self.headers["idempotency-key"], body)
            with peer.lock:
                peer.at_once -= 1
            if reply is None:
                self.close_connection = True
                return
            text = json.dumps(reply[1]).encode()
            self.send_response(reply[0])
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Tests are quiet."""

    return Handler


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(made))
    made.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def submissions(count: int) -> Iterator[Submission]:
    return (Submission(f"T-{number}", {"customer_reference": f"T-{number}"}) for number in range(count))


def pushing(peer: Peer, count: int, concurrency: int = 3, **more: Any) -> tuple[Push, list[None]]:
    answered: list[None] = []
    client: Callable[[], DemoClient] = lambda: DemoClient(peer.address, "key")  # noqa: E731
    push = Push(client, submissions(count), concurrency=concurrency, on_answer=lambda: answered.append(None), **more)
    return push, answered


def test_every_submission_is_sent_once_with_its_own_key(peer: Peer) -> None:
    push, answered = pushing(peer, 20)
    push.run()
    assert peer.seen == Counter({f"order:T-{number}": 1 for number in range(20)})
    assert (len(answered), push.attempts_repeated) == (20, 0)


def test_no_more_are_under_way_than_wanted(peer: Peer) -> None:
    push, _ = pushing(peer, 30, concurrency=2)
    push.run()
    assert peer.most_at_once <= 2


def test_a_lost_answer_is_asked_for_again_with_the_same_key(peer: Peer) -> None:
    peer.replies["order:T-1"] = [None, None]
    push, answered = pushing(peer, 5)
    push.run()
    assert (peer.seen["order:T-1"], len(answered), push.attempts_repeated) == (3, 5, 2)


@pytest.mark.parametrize(
    "busy",
    [BUSY, (503, {"code": "unavailable", "retryable": True}), (500, {"code": "outcome_unknown", "retryable": False})],
)
def test_what_may_still_become_right_is_tried_again_while_others_go_on(peer: Peer, busy: Reply) -> None:
    peer.replies["order:T-0"] = [busy, busy]
    push, answered = pushing(peer, 4, concurrency=1)
    push.run()
    assert (peer.seen["order:T-0"], len(answered)) == (3, 4)


def test_a_refusal_ends_the_push_and_says_why(peer: Peer) -> None:
    errors = [{"pointer": "/params/total", "message": "is a cent off"}]
    peer.replies["order:T-2"] = [(400, {"code": "invalid_argument", "errors": errors})]
    push, answered = pushing(peer, 100, concurrency=1)
    with pytest.raises(PushError, match="The order T-2 was refused with 400: /params/total is a cent off"):
        push.run()
    assert (len(answered), sum(peer.seen.values())) == (2, 3)


def test_a_layer_that_takes_nothing_in_is_given_up(peer: Peer) -> None:
    peer.replies["order:T-0"] = [BUSY] * 1000
    push, answered = pushing(peer, 1, patience_seconds=0.1)
    with pytest.raises(PushError, match="has not taken in an order"):
        push.run()
    assert answered == []


def test_a_layer_that_is_gone_ends_the_push_with_its_reason(peer: Peer) -> None:
    class GoneError(Exception):
        pass

    def check() -> None:
        raise GoneError

    peer.replies["order:T-0"] = [BUSY] * 1000
    push, _ = pushing(peer, 1, check=check)
    with pytest.raises(GoneError):
        push.run()
