"""What callers sent and what they were told: the other side of what the files must show."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.durability.effects import Kind

State = Literal["pending", "answered", "unknown"]
REMEMBERED = 200


@dataclass(slots=True, eq=False)
class Sent:
    """One effectful call with its key."""

    mark: str
    kind: Kind
    life: int
    """In which it was sent first."""
    state: State = "pending"
    tries: int = 0
    """How often it was sent; each time under a request id of its own."""
    is_overtaken: bool = False
    """Whether another server was asked for it while the first one was frozen."""
    heard: list[Any] = field(default_factory=list)
    """Every result that anybody was given for its key."""

    @property
    def data(self) -> Any:
        """Its result; None while there is none."""
        return self.heard[0] if self.heard else None

    def next_request_id(self) -> str:
        """Return the request id of one more try."""
        self.tries += 1
        return self.request_ids()[-1]

    def request_ids(self) -> list[str]:
        """Return the request ids under which it was sent."""
        return [f"{self.mark}.{number}" for number in range(1, self.tries + 1)]


@dataclass(slots=True)
class Book:
    """The calls of one caller, who sends the next one only when the last one has an answer."""

    caller: str
    sent: list[Sent] = field(default_factory=list)
    pending: Sent | None = None
    answered: deque[Sent] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """The latest ones, to be repeated."""

    def note(self, sent: Sent) -> None:
        """Write a call down before it is sent."""
        self.sent.append(sent)
        self.pending = sent

    def settle(self, state: State) -> None:
        """Write down what the caller was told about its pending call."""
        assert self.pending is not None
        sent, self.pending = self.pending, None
        sent.state = state
        if state == "answered":
            self.answered.append(sent)


@dataclass(slots=True)
class Allowance:
    """What the tenant with a small quota was told."""

    admitted: int = 0
    refused: int = 0
    unanswered: int = 0


@dataclass(slots=True)
class Ledger:
    """Everything that was sent to one data directory."""

    books: list[Book]
    allowance: Allowance = field(default_factory=Allowance)
    violations: list[str] = field(default_factory=list)

    def violated(self, what: str) -> None:
        """Write a broken promise down."""
        self.violations.append(what)

    def of_life(self, number: int) -> list[Sent]:
        """Return the calls that were first sent in a life."""
        found = []
        for book in self.books:
            for sent in reversed(book.sent):
                if sent.life < number:
                    break
                found.append(sent)
        return found

    def all(self) -> list[Sent]:
        """Return every call."""
        return [sent for book in self.books for sent in book.sent]
