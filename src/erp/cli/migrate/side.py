"""One side of a migration: a connection of a provider, called through a running server as any caller would."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from httpx2 import Client, Response

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
"""How long one step is tried again while nothing gets on."""
LONGEST_PAUSE_SECONDS = 5.0
AGAIN = frozenset(
    {"unavailable", "timeout", "outcome_unknown", "rate_limited", "conflict", "already_exists", "not_found"}
)
"""After these a step is made anew: it looks first at what is there, so that nothing is done twice. What was found a
moment ago may be gone, and what was missing may have come: both sides are in use meanwhile."""


class CallError(Exception):
    """A call was refused, or nobody knows what it did."""

    def __init__(self, code: str, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class Side:
    """One connection. ``name`` is how reports call it: ``db/sqlite#default``."""

    def __init__(self, client: Client, ref: str, connection: str) -> None:
        self._client = client
        self.ref = ref
        self.connection = connection
        self.name = f"{ref}#{connection}"
        self.capabilities: frozenset[str] = frozenset()

    @property
    def domain(self) -> str:
        """``db`` of ``db/sqlite``."""
        return self.ref.partition("/")[0]

    @property
    def provider(self) -> str:
        """``sqlite`` of ``db/sqlite``."""
        return self.ref.partition("/")[2]

    def look(self) -> None:
        """Learn what the provider can do, and that the connection works.

        Raises:
            CallError: there is no such provider, or it does not answer.
        """
        described = self._answered(self._client.get(f"/providers/{self.ref}"))
        self.capabilities = frozenset(described["capabilities"])
        health = self._client.get(f"/providers/{self.ref}/health", headers={"x-connection": self.connection})
        found = health.json()
        if found.get("status") == "down":
            raise CallError("unavailable", f"{self.name} is down: {found.get('message', 'it does not say why')}")
        if "code" in found:
            self._answered(health)

    def call(self, action: str, params: Mapping[str, Any]) -> Any:
        """Call an action and return its result.

        Raises:
            CallError: what it was refused with; ``outcome_unknown`` when there was no answer.
        """
        import httpx2

        path, headers = f"/providers/{self.ref}/{action}", {"x-connection": self.connection}
        try:
            answer = self._client.post(path, json={"params": dict(params)}, headers=headers)
        except httpx2.HTTPError as error:
            raise CallError("outcome_unknown", f"{self.name} {action}: no answer: {error}") from None
        return self._answered(answer)["data"]

    def items(self, action: str, params: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the items of a streaming action.

        Raises:
            CallError: as ``call``, also in the middle.
        """
        import httpx2

        path, headers = f"/providers/{self.ref}/{action}", {"x-connection": self.connection}
        try:
            with self._client.stream("POST", path, json={"params": dict(params)}, headers=headers) as answer:
                if not answer.is_success:
                    answer.read()
                    self._answered(answer)
                for line in answer.iter_lines():
                    yield from self._item(line)
        except httpx2.HTTPError as error:
            raise CallError("unavailable", f"{self.name} {action}: the stream broke: {error}") from None

    def _item(self, line: str) -> list[Any]:
        if not line.strip():
            return []
        item = json.loads(line)
        if isinstance(item, dict) and "problem" in item:
            raise CallError(item["problem"]["code"], f"{self.name}: {item['problem']['detail']}")
        return [item]

    def _answered(self, answer: Response) -> Any:
        try:
            body = answer.json()
        except ValueError:
            raise CallError(
                "unavailable", f"{answer.url} answered {answer.status_code}; is it this software?"
            ) from None
        if answer.is_success:
            return body
        faults = "".join(f" {one['pointer']}: {one['message']}" for one in body.get("errors", []))
        pause = float(answer.headers.get("retry-after", 0))
        raise CallError(body["code"], f"{self.name}: {body['detail']}{faults}", pause)


def persevere(step: Callable[..., T], *arguments: Any) -> T:
    """Make a step with these arguments, again after failures that may pass, with longer pauses each time.

    Raises:
        CallError: it went on failing for two minutes, or cannot succeed.
    """
    ends, pause = time.monotonic() + PATIENCE_SECONDS, 0.1
    while True:
        try:
            return step(*arguments)
        except CallError as error:
            if error.code not in AGAIN or time.monotonic() > ends:
                raise
            time.sleep(max(pause, min(error.retry_after_seconds, LONGEST_PAUSE_SECONDS)))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
