"""A consumer with an inbox is killed again and again amid events of a real bus: each is handled exactly once."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.support.process import Server
from tests.system.conftest import StartServer

EVENTS, KILLS, SEED = 300, 12, 4
PATIENCE_SECONDS = 60.0
CONSUMER = """
import json, os, sqlite3, sys
from urllib.request import Request, urlopen
from erp.sdk.inbox import Inbox

def call(action, params):
    request = Request(
        os.environ["ERP_URL"] + "/providers/bus/log/" + action,
        json.dumps({"params": params}).encode(),
        {"Authorization": "Bearer " + os.environ["ERP_KEY"], "Content-Type": "application/json"},
    )
    with urlopen(request) as answer:
        return json.load(answer)["data"]

own = sqlite3.connect(sys.argv[1], timeout=30)
inbox = Inbox(own, consumer="billing")
while True:
    pulled = call("pull", {"topic": "sales", "group": "billing", "max_events": 20, "visibility_seconds": 0.3, "wait_seconds": 1})
    for item in pulled["deliveries"]:
        event = item["event"]
        inbox.handle(event, lambda c: c.execute("update total set n = n + ?", (event["data"]["n"],)) and c.execute(
            "insert into handled values (?)", (event["id"],)))
        call("ack", {"ack_ids": [item["ack_id"]]})
"""


def publish(server: Server) -> None:
    with server.client() as client:
        for start in range(0, EVENTS, 100):
            events = [
                {"event": {"id": f"e{number}", "source": "/shop", "type": "sold", "data": {"n": number}}}
                for number in range(start, start + 100)
            ]
            params = {"topic": "sales", "events": events}
            assert client.post("/providers/bus/log/publish_batch", json={"params": params}).status_code == 200


def handled(path: Path) -> list[str]:
    with closing(sqlite3.connect(path, timeout=30)) as own:
        return [row[0] for row in own.execute("select event from handled")]


def consumer(server: Server, path: Path) -> subprocess.Popen[bytes]:
    environment = {"ERP_URL": server.address, "ERP_KEY": server.keys["developer"]}
    return subprocess.Popen([sys.executable, "-c", CONSUMER, str(path)], env=environment)


def test_every_event_is_handled_once_however_often_its_consumer_is_killed(
    furnished: Path, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(furnished)
    publish(server)
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path)) as own:
        own.executescript(
            "create table handled (event text); create table total (n integer); insert into total values (0);"
        )
        from erp.sdk.inbox import Inbox

        Inbox(own, consumer="billing").prepare()
    dice = random.Random(SEED)
    ends = time.monotonic() + PATIENCE_SECONDS
    for _ in range(KILLS):
        before = len(handled(path))
        running = consumer(server, path)
        while len(handled(path)) == before and before < EVENTS and time.monotonic() < ends:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.03))
        running.kill()
        running.wait()
    assert len(handled(path)) >= KILLS / 2

    last = consumer(server, path)
    while len(handled(path)) < EVENTS and time.monotonic() < ends:
        time.sleep(0.02)
    time.sleep(0.5)
    last.kill()
    last.wait()

    assert sorted(handled(path)) == sorted(f"e{number}" for number in range(EVENTS))
    with closing(sqlite3.connect(path)) as own:
        assert own.execute("select n from total").fetchone() == (sum(range(EVENTS)),)
