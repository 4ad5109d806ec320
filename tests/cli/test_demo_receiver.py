"""The example receiver, run as its users run it."""

from __future__ import annotations

import datetime
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from standardwebhooks import Webhook

RECEIVER = Path(__file__).parents[2] / "src" / "erp" / "cli" / "demo" / "receiver.py"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@contextmanager
def receiving(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, str(RECEIVER), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"WEBHOOK_SECRET": SECRET}) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("receiver http://127.0.0.1:")
            yield process, int(address.rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(timeout=5)


def deliver(port: int, message_id: str, *, secret: str = SECRET, **changes: str) -> int:
    body = '{"type":"order.submitted","data":{"id":"ord_1"}}'
    moment = datetime.datetime.now(tz=datetime.UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, moment, body),
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/", body, headers | {name.replace("_", "-"): value for name, value in changes.items()})
    status = connection.getresponse().status
    connection.close()
    return status


def test_it_accepts_a_signed_message_once_and_confirms_repetitions(tmp_path: Path) -> None:
    log = tmp_path / "deliveries.jsonl"
    with receiving("--log", str(log)) as (process, port):
        assert deliver(port, "msg_1") == 200
        assert deliver(port, "msg_1") == 200
        assert deliver(port, "msg_2") == 200
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(3)]
    assert lines == [
        ["200", "accepted", "msg_1", "order.submitted"],
        ["200", "repeated", "msg_1", "order.submitted"],
        ["200", "accepted", "msg_2", "order.submitted"],
    ]
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(entry["outcome"], entry["id"]) for entry in entries] == [
        ("accepted", "msg_1"),
        ("repeated", "msg_1"),
        ("accepted", "msg_2"),
    ]
    assert entries[0]["message"] == {"type": "order.submitted", "data": {"id": "ord_1"}}


def test_it_fails_as_often_as_told_and_then_accepts() -> None:
    with receiving("--fail-first", "2") as (_, port):
        assert [deliver(port, "msg_1") for _ in range(3)] == [503, 503, 200]


def test_it_refuses_what_is_not_signed_with_its_secret() -> None:
    with receiving() as (_, port):
        assert deliver(port, "msg_1", secret=OTHER_SECRET) == 401
        assert deliver(port, "msg_1", webhook_timestamp="1600000000") == 401
        assert deliver(port, "msg_1", webhook_signature="v1,a,b nonsense") == 401
        assert deliver(port, "msg_1") == 200
