"""The kinds of effect that are driven, and how each is found again in the files: nothing of the layer is asked.

An effect is known by its mark, which is also the idempotency key of its call.
"""

from __future__ import annotations

import base64
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

TENANT, LIMITED = "acme", "tiny"
TABLES = "CREATE TABLE marks (mark TEXT)", "CREATE TABLE pairs (mark TEXT, side TEXT)"
OBJECT_LINES = 400
TOPIC = "marks"
ORDER_STEPS = {"event", "integration", "annotation"}

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of effects: how often each is there whole, and what there is of halves."""

    whole: Counter[str]
    halves: tuple[str, ...] = ()


class Evidence:
    """The files of a data directory, read while a server may be writing them."""

    def __init__(self, data_dir: Path) -> None:
        self.control_file = data_dir / "control.db"
        self._tenant_dir = data_dir / "tenants" / TENANT
        self.database_file = self._tenant_dir / "db/sqlite/default/database.sqlite3"
        self.log_file = next(self._tenant_dir.glob("bus/log/default/*.sqlite3"), self._tenant_dir / "none")
        self.objects = self._tenant_dir / "storage/filesystem/default/objects"

    def control(self, sql: str, *values: Any) -> list[Any]:
        """Query the control plane."""
        return _rows(self.control_file, sql, values)

    def database(self, sql: str, *values: Any) -> list[Any]:
        """Query the tenant's database."""
        return _rows(self.database_file, sql, values)

    def log(self, sql: str, *values: Any) -> list[Any]:
        """Query the tenant's event log."""
        return _rows(self.log_file, sql, values)


def _rows(file: Path, sql: str, values: Sequence[Any]) -> list[Any]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql, values).fetchall()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of effect."""

    name: str
    path: str
    second_run: Literal["same", "doubtful", "none"]
    """What comes of a call that was cut off and is repeated: the same result, perhaps a failure, or no second run."""
    weight: int
    params: Callable[[str], Params]
    find: Callable[[Evidence, Sequence[str]], Found] | None
    """None: there is a check of its own."""

    @property
    def idempotent(self) -> bool:
        """Whether every repetition ends in the same result."""
        return self.second_run == "same"

    @property
    def target(self) -> str:
        """What audit records call it."""
        area, *names = self.path.strip("/").split("/")
        return ".".join(names) if area == "services" else f"{names[0]}/{names[1]}.{names[2]}"


def caller_of(mark: str) -> str:
    """Return whose mark it is: marks are ``CALLER.LIFE.NUMBER``."""
    return mark.partition(".")[0]


def _insertion(mark: str) -> Params:
    return {"sql": "INSERT INTO marks (mark) VALUES (?)", "parameters": [mark]}


def _find_insertions(evidence: Evidence, marks: Sequence[str]) -> Found:
    return Found(Counter(dict(evidence.database(_counted("marks", "mark", marks), *marks))))


def _pair(mark: str) -> Params:
    sql = "INSERT INTO pairs (mark, side) VALUES (?, ?)"
    return {"statements": [{"sql": sql, "parameters": [mark, side]} for side in ("left", "right")]}


def _find_pairs(evidence: Evidence, marks: Sequence[str]) -> Found:
    sides: dict[str, Counter[str]] = {}
    chosen = f"mark IN ({', '.join('?' * len(marks))})"
    for mark, side in evidence.database(f"SELECT mark, side FROM pairs WHERE {chosen}", *marks):
        sides.setdefault(mark, Counter())[side] += 1
    halves = tuple(mark for mark, counts in sides.items() if counts["left"] != counts["right"])
    return Found(Counter({mark: counts["left"] for mark, counts in sides.items()}), halves)


def _publication(mark: str) -> Params:
    event = {"id": mark, "source": "/harness", "type": "marked", "data": {"mark": mark}}
    return {"topic": TOPIC, "event": event, "key": caller_of(mark)}


def _find_publications(evidence: Evidence, marks: Sequence[str]) -> Found:
    sql = _counted("events", "event_id", marks, f"topic = '{TOPIC}'")
    return Found(Counter(dict(evidence.log(sql, *marks))))


def content_of(mark: str) -> bytes:
    """Return the content of an object: a torn one is recognised."""
    return f"{mark}\n".encode() * OBJECT_LINES


def _object(mark: str) -> Params:
    content = base64.b64encode(content_of(mark)).decode()
    return {"key": f"objects/{mark}", "content": content, "content_type": "text/plain"}


def _creation(mark: str) -> Params:
    return {**_object(mark), "key": f"created/{mark}", "if_none_match": "*"}


def _find_objects(evidence: Evidence, marks: Sequence[str], *, folder: str = "objects") -> Found:
    whole: Counter[str] = Counter()
    halves = []
    for mark in marks:
        named = evidence.objects / f"o-{folder}%2f{mark.replace('.', '%2e')}"
        if named.exists():
            whole[mark] += 1
            head, found, rest = named.read_bytes().partition(content_of(mark))
            if not found or rest or not head.rstrip(b" ").endswith(b"}"):
                halves.append(mark)
    return Found(whole, tuple(halves))


def _order(mark: str) -> Params:
    lines = [{"sku": f"S-{number}", "quantity": "2", "unit_price": "19.90"} for number in (1, 2)]
    facts = {"currency": "EUR", "order_date": "2026-11-23", "lines": lines, "total": "79.60"}
    return {"customer_reference": mark, "customer": {"id": "C-1", "name": "Ada"}, **facts}


def _find_orders(evidence: Evidence, marks: Sequence[str]) -> Found:
    chosen = f"customer_reference IN ({', '.join('?' * len(marks))})"
    lines = "(SELECT count(*) FROM order_lines l WHERE l.order_id = o.order_id)"
    steps = "(SELECT group_concat(name) FROM order_steps s WHERE s.order_id = o.order_id)"
    rows = evidence.database(f"SELECT customer_reference, {lines}, {steps} FROM orders o WHERE {chosen}", *marks)
    halves = [mark for mark, lines, steps in rows if lines != 2 or {*(steps or "").split(",")} != ORDER_STEPS]
    return Found(Counter(mark for mark, *_ in rows), tuple(halves))


def _secret(mark: str) -> Params:
    return {"path": f"marks/{mark.replace('.', '-')}", "value": mark}


def _find_secrets(evidence: Evidence, marks: Sequence[str]) -> Found:
    paths = {f"tenant/{_secret(mark)['path']}": mark for mark in marks}
    sql = _counted("secrets", "path", marks, f"tenant = '{TENANT}'")
    return Found(Counter({paths[path]: count for path, count in evidence.control(sql, *paths)}))


def rotated_path(caller: str) -> str:
    """Return the path of the secret that a caller rotates; ``furnish`` makes its first version."""
    return f"rotated/{caller}"


def _rotation(mark: str) -> Params:
    return {"path": rotated_path(caller_of(mark)), "value": mark}


def _counted(table: str, column: str, marks: Sequence[str], where: str = "true") -> str:
    chosen = f"{column} IN ({', '.join('?' * len(marks))})"
    return f"SELECT {column}, count(*) FROM {table} WHERE {where} AND {chosen} GROUP BY {column}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("insertion", "/providers/db/sqlite/execute", "none", 6, _insertion, _find_insertions),
        Kind("pair", "/providers/db/sqlite/execute_batch", "none", 3, _pair, _find_pairs),
        Kind("publication", "/providers/bus/log/publish", "same", 6, _publication, _find_publications),
        Kind("object", "/providers/storage/filesystem/put", "same", 4, _object, _find_objects),
        Kind(
            "creation",
            "/providers/storage/filesystem/put",
            False,
            3,
            _creation,
            partial(_find_objects, folder="created"),
        ),
        Kind("order", "/services/order/submit", "same", 1, _order, _find_orders),
        Kind("secret", "/providers/secrets/local/put", "none", 2, _secret, _find_secrets),
        Kind("rotation", "/providers/secrets/local/rotate", "none", 3, _rotation, None),
    )
}


def chosen(dice: random.Random) -> Kind:
    """Return a kind by weight."""
    return dice.choices(list(KINDS.values()), [kind.weight for kind in KINDS.values()])[0]
