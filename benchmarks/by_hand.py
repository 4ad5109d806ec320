"""The order journey as one would write it by hand: FastAPI, sqlite3, everything synchronous, no guarantees.

Usage: python benchmarks/by_hand.py FOLDER WEBHOOK_URL full|normal

``POST /orders`` checks and prices the order, writes it with its lines and its event, tells the webhook, has the order
annotated by the same model as the layer's, writes the annotation with its event, and answers. There is no key, tenant,
idempotency, audit, retry or quota, and what follows an order is lost with the process. With ``full``, SQLite's own
default, an answered order is on the disk, with ``normal`` it is lost with the machine.
"""

from __future__ import annotations

import base64
import datetime
import hmac
import json
import socket
import sqlite3
import sys
import threading
import time
import uuid
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from erp.contracts.models.ai import ClassifyRequest, Label
from erp.providers.ai.local import zero_shot
from erp.providers.ai.local.hashing import HashingEmbedder
from erp.services.order.annotation import CATEGORIES, URGENCIES

CENT = Decimal("0.01")
SECRET = base64.b64decode("d2Vha2x5LWtlcHQtc2VjcmV0LW9mLWEtYmVuY2htYXJr")
TABLES = """
create table if not exists orders (
  order_id text primary key, customer_reference text not null unique, customer_id text not null, customer_name text not null,
  currency text not null, order_date text not null, net_total text not null, tax_total text not null, total text not null,
  note text, submitted_at text not null, category text, urgency text, annotation_note text);
create table if not exists order_lines (
  order_id text not null, line_number integer not null, sku text not null, description text, quantity text not null,
  unit_price text not null, discount text not null, tax_rate text not null, net text not null, tax text not null,
  primary key (order_id, line_number));
create table if not exists events (position integer primary key, topic text not null, body text not null);
"""


class Customer(BaseModel):
    """Who orders."""

    id: str = Field(min_length=1, max_length=128)
    name: str = Field(min_length=1, max_length=256)


class Line(BaseModel):
    """One article."""

    sku: str = Field(min_length=1, max_length=128)
    description: str | None = None
    quantity: Decimal = Field(gt=0)
    unit_price: Decimal = Field(ge=0)
    discount: Decimal = Field(default=Decimal(0), ge=0)
    tax_rate: Decimal = Field(default=Decimal(0), ge=0, le=1)


class Order(BaseModel):
    """What is submitted."""

    customer_reference: str = Field(min_length=1, max_length=128)
    customer: Customer
    currency: str = Field(pattern="^[A-Z]{3}$")
    order_date: datetime.date
    lines: list[Line] = Field(min_length=1, max_length=1000)
    total: Decimal
    note: str | None = None


class Answer(BaseModel):
    """What came of it."""

    order_id: str
    net_total: Decimal
    tax_total: Decimal
    total: Decimal


class Model:
    """The layer's own fallback model, with the directions of its labels worked out once."""

    def __init__(self) -> None:
        self._embedder = HashingEmbedder()
        self._known = [(labels, self._centres(labels)) for labels in (CATEGORIES, URGENCIES)]

    def _centres(self, labels: list[Label]) -> zero_shot.Centres:
        texts = [zero_shot.label_texts(label) for label in labels]
        encoded = self._embedder.encode([text for group in texts for text in group])
        return zero_shot.centres(encoded, [len(group) for group in texts])

    def judge(self, described: str, note: str) -> list[str | None]:
        """Return category and urgency."""
        found = []
        for text, (labels, centres) in zip((described, note), self._known, strict=True):
            request = ClassifyRequest(texts=[text], labels=labels)
            encoded = self._embedder.encode([text])[0]
            found.append(zero_shot.classify(encoded, centres, request, self._embedder.sharpness).label)
        return found


def priced(order: Order) -> list[tuple[Decimal, Decimal]]:
    """Return net and tax of each line, or refuse."""
    found = []
    for line in order.lines:
        net = (line.quantity * line.unit_price - line.discount).quantize(CENT, ROUND_HALF_UP)
        found.append((net, (net * line.tax_rate).quantize(CENT, ROUND_HALF_UP)))
    total = sum((net + tax for net, tax in found), Decimal(0))
    if total != order.total:
        raise HTTPException(400, f"the lines add up to {total}")
    return found


class Shop:
    """The journey."""

    def __init__(self, folder: Path, webhook: str, synchronous: str) -> None:
        self._path, self._webhook, self._synchronous = folder / "shop.db", webhook, synchronous
        self._local = threading.local()
        self._http = httpx2.Client(timeout=15)
        self._model = Model()
        self._db().executescript(TABLES)

    def _db(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is None:
            found = self._local.db = sqlite3.connect(self._path, timeout=30)
            found.execute("pragma journal_mode = wal")
            found.execute(f"pragma synchronous = {self._synchronous}")
        return found

    def submit(self, order: Order) -> Answer:
        """Do everything there is to do about an order."""
        prices = priced(order)
        net, tax = (sum(column, Decimal(0)) for column in zip(*prices, strict=True))
        id_ = f"ord_{uuid.uuid4().hex}"
        self._write(id_, order, prices, net, tax)
        self._tell(id_, order, prices)
        self._annotate(id_, order)
        return Answer(order_id=id_, net_total=net, tax_total=tax, total=net + tax)

    def _write(self, id_: str, order: Order, prices: list[tuple[Decimal, Decimal]], net: Decimal, tax: Decimal) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        row: tuple[str | None, ...] = (
            id_,
            order.customer_reference,
            order.customer.id,
            order.customer.name,
            order.currency,
        )
        row += (order.order_date.isoformat(), str(net), str(tax), str(order.total), order.note, now)
        lines = [
            (id_, number, line.sku, line.description, *map(str, (*_amounts(line), *price)))
            for number, (line, price) in enumerate(zip(order.lines, prices, strict=True), start=1)
        ]
        database = self._db()
        with database:
            database.execute(
                "insert into orders (order_id, customer_reference, customer_id, customer_name, currency, order_date,"
                " net_total, tax_total, total, note, submitted_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            database.executemany("insert into order_lines values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", lines)
            _publish(database, "order.submitted", {"order_id": id_, "total": str(order.total), "lines": len(lines)})

    def _tell(self, id_: str, order: Order, prices: list[tuple[Decimal, Decimal]]) -> None:
        lines = [
            {"sku": line.sku, "quantity": str(line.quantity), "net": str(net), "tax": str(tax)}
            for line, (net, tax) in zip(order.lines, prices, strict=True)
        ]
        data = {"order_id": id_, "customer_reference": order.customer_reference, "total": str(order.total)}
        body = json.dumps({"type": "order.submitted", "data": {**data, "lines": lines}}).encode()
        stamp = str(int(time.time()))
        signature = base64.b64encode(hmac.digest(SECRET, f"{id_}.{stamp}.".encode() + body, "sha256")).decode()
        headers = {"webhook-id": id_, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}
        self._http.post(self._webhook, content=body, headers=headers).raise_for_status()

    def _annotate(self, id_: str, order: Order) -> None:
        described = ". ".join(line.description or line.sku for line in order.lines)
        note = order.note or described
        category, urgency = self._model.judge(f"{note} {described}", note)
        database = self._db()
        with database:
            database.execute(
                "update orders set category = ?, urgency = ?, annotation_note = ? where order_id = ?",
                (category, urgency, f"{note} {described}"[:200], id_),
            )
            _publish(database, "order.annotated", {"order_id": id_, "category": category, "urgency": urgency})


def _amounts(line: Line) -> tuple[Decimal, ...]:
    return line.quantity, line.unit_price, line.discount, line.tax_rate


def _publish(database: sqlite3.Connection, topic: str, data: dict[str, Any]) -> None:
    event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/orders", "type": topic, "data": data}
    database.execute("insert into events (topic, body) values (?, ?)", (topic, json.dumps(event)))


def main() -> None:
    """Serve on a free loopback port under the same server as the layer."""
    app = FastAPI()
    app.post("/orders", response_model=Answer)(Shop(Path(sys.argv[1]), sys.argv[2], sys.argv[3]).submit)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http="httptools", loop="uvloop", access_log=False, log_config=None, log_level="warning", lifespan="off"
    )
    print(f"ready http://127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)
    uvicorn.Server(config).run([sock])


if __name__ == "__main__":
    main()
