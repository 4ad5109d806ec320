"""Callers: each sends effectful calls one after the other until the server is gone, and holds it to its answers."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from tests.durability.effects import chosen
from tests.durability.ledger import Allowance, Book, Ledger, Sent

REPEATED = 3
"""Earlier answers that each caller asks for again at the beginning of a life."""
TRIES = 40
PAUSE_SECONDS = 0.05
GONE = (OSError, http.client.HTTPException)
LIMITED_PATH = "/providers/db/sqlite/query"
LIMITED_PARAMS = {"sql": "SELECT 1"}
LIMITED_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the server."""

    status: int
    body: dict[str, Any]

    @property
    def code(self) -> str:
        """The code of a problem; ``ok`` of a result."""
        return "ok" if self.status == 200 else str(self.body.get("code"))

    @property
    def is_replay(self) -> bool:
        """Whether it is the stored answer of an earlier call."""
        return self.body.get("meta", {}).get("replayed") is True


class Client:
    """One connection to a server with the key of a tenant."""

    def __init__(self, address: str, key: str, *, seconds: float = 30.0) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=seconds)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def call(self, path: str, params: dict[str, Any], **headers: str) -> Reply:
        """Call.

        Raises:
            OSError, http.client.HTTPException: the server is gone.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("POST", path, json.dumps({"params": params}), self._headers | named)
        response = self._connection.getresponse()
        return Reply(response.status, json.loads(response.read()))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Tally:
    """Counts the answers of a life; the killer waits for a number of them."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self) -> None:
        """Count one more."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, count: int, seconds: float) -> bool:
        """Wait until there are ``count``; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count >= count, seconds)


class Caller:
    """One life of one caller."""

    def __init__(self, client: Client, book: Book, ledger: Ledger, tally: Tally) -> None:
        self._client = client
        self._book = book
        self._ledger = ledger
        self._tally = tally

    def run(self, life: int, dice: random.Random) -> None:
        """Settle what is pending, ask for earlier answers again, then go on with new calls until the server is gone."""
        try:
            self.settle()
            self.repeat(dice)
            for number in itertools.count():
                if not self.send(Sent(f"{self._book.caller}.{life}.{number}", chosen(dice), life)):
                    return
        except GONE:
            return

    def send(self, sent: Sent) -> bool:
        """Send a new call; False when its answer is with a server that overtook this one and may have been killed."""
        self._book.note(sent)
        reply = self._call(sent)
        if sent.is_overtaken and reply.code in {"conflict", "unavailable"}:
            return False
        if reply.code == "ok" and reply.is_replay <= sent.is_overtaken:
            self._book.settle("answered")
        else:
            self._book.settle("unknown")
            if sent.is_overtaken and reply.code == "outcome_unknown" and not sent.kind.idempotent:
                return True
            self._ledger.violated(f"{sent.mark}: the first call of a key was answered {reply}")
        return True

    def settle(self) -> None:
        """Repeat the call whose answer never came until there is one, and once more."""
        sent = self._book.pending
        if sent is None:
            return
        reply = self._insistent(sent)
        if sent.is_overtaken and reply.code in {"conflict", "unavailable"}:
            return
        if reply.code == "ok":
            self._book.settle("answered")
            self._expect_replay(sent)
        elif reply.code == "outcome_unknown" and not sent.kind.idempotent:
            self._book.settle("unknown")
            if (again := self._call(sent)).code != "outcome_unknown":
                self._ledger.violated(f"{sent.mark}: of unknown outcome, then {again}")
        else:
            self._book.settle("unknown")
            self._ledger.violated(f"{sent.mark}: a {sent.kind.name} without answer ended in {reply}")

    def repeat(self, dice: random.Random) -> None:
        """Ask again for answers that were given."""
        for sent in dice.sample(list(self._book.answered), min(REPEATED, len(self._book.answered))):
            self._expect_replay(sent)

    def _expect_replay(self, sent: Sent) -> None:
        reply = self._call(sent)
        if not reply.is_replay:
            self._ledger.violated(f"{sent.mark}: answered {sent.data}, then on repetition {reply}")

    def _insistent(self, sent: Sent) -> Reply:
        for _ in range(TRIES):
            reply = self._call(sent)
            if reply.code not in {"conflict", "unavailable"}:
                return reply
            time.sleep(PAUSE_SECONDS)
        return self._call(sent)

    def _call(self, sent: Sent) -> Reply:
        reply = called(self._client, sent, self._ledger)
        self._tally.add()
        return reply


def called(client: Client, sent: Sent, ledger: Ledger, **headers: str) -> Reply:
    """Send a call with its key; whoever is given a result is given the same one."""
    params, request_id = sent.kind.params(sent.mark), sent.next_request_id()
    reply = client.call(sent.kind.path, params, idempotency_key=sent.mark, x_request_id=request_id, **headers)
    if reply.code == "ok":
        sent.heard.append(reply.body["data"])
        if reply.body["data"] != sent.data:
            ledger.violated(f"{sent.mark}: one was told {sent.data}, another {reply}")
    return reply


def overtake(client: Client, ledger: Ledger) -> None:
    """Repeat what is pending on another server while the first one is frozen in the middle of it."""
    for sent in [book.pending for book in ledger.books if book.pending is not None]:
        sent.is_overtaken = True
        # The frozen server may hold a file for as long as it is frozen.
        reply = called(client, sent, ledger, prefer="wait=1")
        if reply.code not in {"ok", "outcome_unknown", "unavailable", "timeout"}:
            ledger.violated(f"{sent.mark}: repeated on another server, a {sent.kind.name} was answered {reply}")


def spend(client: Client, allowance: Allowance, ledger: Ledger) -> None:
    """Call as the tenant with the small quota until the server is gone."""
    while True:
        try:
            reply = client.call(LIMITED_PATH, LIMITED_PARAMS)
        except GONE:
            allowance.unanswered += 1
            return
        if reply.code == "ok":
            allowance.admitted += 1
        elif reply.code == "quota_exhausted":
            allowance.refused += 1
        else:
            ledger.violated(f"a call within the quota was answered {reply}")
        time.sleep(LIMITED_PAUSE_SECONDS)
