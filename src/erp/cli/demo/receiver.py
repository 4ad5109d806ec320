"""A webhook receiver in the standard library: verifies signatures, drops repetitions, prints what it got.

    python -m erp.cli.demo.receiver --secret whsec_... --port 0

prints ``receiver http://127.0.0.1:PORT`` when it listens, then one line per delivery. ``--fail-first 2`` answers the
first two requests with 503 to show retries; ``--log FILE`` writes each line as JSON too.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import json
import os
import signal
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1_048_576


class Inbox:
    """What was received, safe for many threads."""

    def __init__(self, secret: str, *, fail_first: int = 0, log: IO[str] | None = None) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._failures_left = fail_first
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._log = log

    def accept(self, headers: dict[str, str], body: bytes) -> int:
        """Judge one delivery, report it and return the HTTP status to answer with."""
        with self._lock:
            status, outcome = self._judge(headers, body)
            self._report(status, outcome, headers.get("webhook-id", ""), body)
        return status

    def _judge(self, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        if self._failures_left > 0:
            self._failures_left -= 1
            return 503, "failed on purpose"
        if not self._is_authentic(headers, body):
            return 401, "refused: signature"
        if headers["webhook-id"] in self._seen:
            return 200, "repeated"
        self._seen.add(headers["webhook-id"])
        return 200, "accepted"

    def _is_authentic(self, headers: dict[str, str], body: bytes) -> bool:
        message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message_id or not (timestamp.isascii() and timestamp.isdigit()):
            return False
        if abs(time.time() - int(timestamp[:12])) > TOLERANCE_SECONDS:
            return False
        expected = hmac.digest(self._key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
        offered = headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(expected, _decoded(entry)) for entry in offered)

    def _report(self, status: int, outcome: str, message_id: str, body: bytes) -> None:
        message = _json_object(body)
        print(f"{status} {outcome:20} {message_id} {message.get('type', '-')}", flush=True)
        if self._log is not None:
            entry = {"status": status, "outcome": outcome, "id": message_id, "message": message}
            self._log.write(json.dumps(entry) + "\n")
            self._log.flush()


def _decoded(signature: str) -> bytes:
    version, _, encoded = signature.partition(",")
    try:
        return base64.b64decode(encoded, validate=True) if version == "v1" else b""
    except (binascii.Error, ValueError):
        return b""


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def handler_for(inbox: Inbox) -> type[BaseHTTPRequestHandler]:
    """Return the request handler of a server that fills ``inbox``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                self._answer(413)
                return
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._answer(inbox.accept(headers, body))

        def _answer(self, status: int) -> None:
            self.send_response(status)
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name is http.server's)
            """The inbox reports; one line per request is enough."""

    return Handler


def main() -> None:
    """Run from the command line until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Receive, verify and show webhooks.")
    known = os.environ.get("WEBHOOK_SECRET")
    parser.add_argument("--secret", default=known, required=not known, help="whsec_...; default $WEBHOOK_SECRET")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 chooses a free port")
    parser.add_argument("--fail-first", type=int, default=0, metavar="N", help="answer the first N requests with 503")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append each delivery as a line of JSON")
    options = parser.parse_args()
    log = options.log.open("a", encoding="utf-8") if options.log else None
    inbox = Inbox(options.secret, fail_first=options.fail_first, log=log)
    server = ThreadingHTTPServer((options.host, options.port), handler_for(inbox))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"receiver http://{options.host}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        if log is not None:
            log.close()


if __name__ == "__main__":
    main()
