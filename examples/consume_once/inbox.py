"""Take every event of a topic into account exactly once, over any bus of the layer.

A bus delivers at least once: what was confirmed in the moment a process died comes again. The effect of an event and
the fact that it was taken into account are therefore written in one transaction of the consumer's own database.

Usage: ERP_URL=... ERP_KEY=... python inbox.py PROVIDER TOPIC DATABASE, for example: python inbox.py bus/log stock.changed totals.db
It adds the ``quantity`` of each event's data to a total for its ``sku``, until the topic has no more.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
Call = Callable[[str, dict[str, Any]], dict[str, Any]]
"""``call(action, params)``: the result of an action of the bus."""


class Inbox:
    """Remembers in the consumer's own database which events it has taken into account."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """``database``: opened with ``isolation_level=None``, so that transactions are the ones below."""
        self._database = database
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS inbox (topic TEXT, source TEXT, id TEXT, taken_at TEXT DEFAULT CURRENT_TIMESTAMP,"
            " PRIMARY KEY (topic, source, id)) WITHOUT ROWID"
        )

    def once(self, topic: str, event: Event, effect: Callable[[sqlite3.Connection, Event], None]) -> bool:
        """Let an event take effect unless it has; return whether it did now.

        CloudEvents are the same when source and id are. What ``effect`` writes with the connection is durable together
        with the fact that the event was taken, or neither is.
        """
        self._database.execute("BEGIN IMMEDIATE")
        try:
            known = "INSERT INTO inbox (topic, source, id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            is_new = self._database.execute(known, (topic, event["source"], event["id"])).rowcount == 1
            if is_new:
                effect(self._database, event)
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        return is_new

    def forget(self, days: int) -> None:
        """Forget older events: later than any bus repeats one, so not before its retention has passed."""
        self._database.execute("DELETE FROM inbox WHERE taken_at < datetime('now', ?)", (f"-{days} days",))


def consume(
    call: Call, topic: str, group: str, inbox: Inbox, effect: Callable[[sqlite3.Connection, Event], None]
) -> int:
    """Take what a topic has for a group into account; return how many deliveries there were.

    Confirmed after the transaction: killed in between, the event comes again and changes nothing.
    """
    params = {"topic": topic, "group": group, "max_events": 100, "wait_seconds": 2}
    deliveries = call("pull", params)["deliveries"]
    for delivery in deliveries:
        inbox.once(topic, delivery["event"], effect)
        call("ack", {"ack_ids": [delivery["ack_id"]]})
    return len(deliveries)


def add_to_total(database: sqlite3.Connection, event: Event) -> None:
    """Add what was sold; doing it twice would be wrong, and nothing in the total would show it."""
    data = event["data"]
    database.execute(
        "INSERT INTO totals (sku, quantity) VALUES (?, ?)"
        " ON CONFLICT (sku) DO UPDATE SET quantity = quantity + excluded.quantity",
        (data["sku"], data["quantity"]),
    )


def opened(path: str) -> sqlite3.Connection:
    """Open the consumer's database."""
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    database.execute("CREATE TABLE IF NOT EXISTS totals (sku TEXT PRIMARY KEY, quantity INTEGER NOT NULL)")
    return database


def main() -> None:
    """Consume until nothing comes any more."""
    provider, topic, path = sys.argv[1:]
    headers = {"Authorization": f"Bearer {os.environ['ERP_KEY']}", "Content-Type": "application/json"}

    def call(action: str, params: dict[str, Any]) -> dict[str, Any]:
        url = f"{os.environ['ERP_URL']}/providers/{provider}/{action}"
        request = urllib.request.Request(url, json.dumps({"params": params}).encode(), headers)  # noqa: S310  (the layer's)
        with urllib.request.urlopen(request) as answer:  # noqa: S310  (the layer's)
            result: dict[str, Any] = json.load(answer)["data"]
            return result

    database = opened(path)
    inbox = Inbox(database)
    while consume(call, topic, "totals", inbox, add_to_total):
        pass
    for sku, quantity in database.execute("SELECT sku, quantity FROM totals ORDER BY sku"):
        print(sku, quantity)


if __name__ == "__main__":
    main()
