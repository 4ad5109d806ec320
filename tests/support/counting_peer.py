"""A JSON interface that takes its time, and knows when it was asked and by how many at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = b'{"id": "1", "name": "one"}'


class CountingPeer:
    """What it was asked."""

    def __init__(self, seconds: float) -> None:
        self.address = ""
        self.seconds = seconds
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.inside = self.most_at_once = 0
            self.asked_at: list[float] = []

    def most_within(self, seconds: float) -> int:
        """The most requests that came in any such time."""
        moments = sorted(self.asked_at)
        return max(
            sum(begin <= moment < begin + seconds for moment in moments[number:])
            for number, begin in enumerate(moments)
        )

    def answer(self) -> bytes:
        with self._lock:
            self.asked_at.append(time.monotonic())
            self.inside += 1
            self.most_at_once = max(self.most_at_once, self.inside)
        time.sleep(self.seconds)
        with self._lock:
            self.inside -= 1
        return ANSWER


@contextlib.contextmanager
def counting_peer(*, seconds: float = 0.05) -> Iterator[CountingPeer]:
    """Run one in threads for the length of a block."""
    peer = CountingPeer(seconds)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = peer.answer()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  (the library's name)
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Listener(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    peer.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
