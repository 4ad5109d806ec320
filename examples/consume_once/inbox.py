"""Take every event of a topic into account exactly once, over any bus of the layer.

A bus delivers at least once: what was confirmed in the moment a process died comes again. The effect of an event and
the fact that it was taken into account are therefore written in one transaction of the consumer's own database
(``erp.sdk.inbox``).

Usage: ERP_URL=... ERP_KEY=... python inbox.py PROVIDER TOPIC DATABASE, for example: python inbox.py bus/log stock.changed totals.db
It adds the ``quantity`` of each event's data to a total for its ``sku``, until the topic has no more.
"""

from __future__ import annotations

import functools
import json
import os
import sqlite3
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

from erp.sdk.inbox import Inbox

Event = dict[str, Any]
Call = Callable[[str, dict[str, Any]], dict[str, Any]]
"""``call(action, params)``: the result of an action of the bus."""


def consume(
    call: Call, topic: str, group: str, inbox: Inbox, effect: Callable[[sqlite3.Connection, Event], None]
) -> int:
    """Take what a topic has for a group into account; return how many deliveries there were.

    Confirmed after the transaction: killed in between, the event comes again and changes nothing.
    """
    params = {"topic": topic, "group": group, "max_events": 100, "wait_seconds": 2}
    deliveries = call("pull", params)["deliveries"]
    for delivery in deliveries:
        event = delivery["event"]
        inbox.handle(event, functools.partial(_given, effect, event))
        call("ack", {"ack_ids": [delivery["ack_id"]]})
    return len(deliveries)


def _given(effect: Callable[[sqlite3.Connection, Event], None], event: Event, database: sqlite3.Connection) -> None:
    effect(database, event)


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
    database = sqlite3.connect(path, timeout=30)
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS totals (sku TEXT PRIMARY KEY, quantity INTEGER NOT NULL)")
    return database


def prepared(database: sqlite3.Connection) -> Inbox:
    """Return the consumer's inbox."""
    inbox = Inbox(database, consumer="totals")
    inbox.prepare()
    return inbox


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
    inbox = prepared(database)
    while consume(call, topic, "totals", inbox, add_to_total):
        pass
    for sku, quantity in database.execute("SELECT sku, quantity FROM totals ORDER BY sku"):
        print(sku, quantity)


if __name__ == "__main__":
    main()
