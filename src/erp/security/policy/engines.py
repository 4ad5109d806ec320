"""Who evaluates the platform's policy: this process, or an Open Policy Agent."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import httpx2

from erp.runtime.question import Decision
from erp.security.policy.document import encoded
from erp.security.policy.process import NoAnswerError, RegoProcess

ENTRY = "erp/decision/verdict"
SECONDS = 10.0
ATTEMPTS = 2
UNDECIDED = Decision(allow=False, reason="the policy gave no answer")
FOLDER = Path(__file__).parent.parent / "policies"


class Engine(Protocol):
    """Answers a question that stands in an input document."""

    name: str

    async def start(self) -> None:
        """Be ready before the first question."""

    async def decide(self, input_: dict[str, Any]) -> Decision:
        """Return the decision; a failure denies."""

    async def close(self) -> None:
        """Release everything."""


@cache
def platform_modules() -> dict[str, str]:
    """Return the platform's policy, file name -> source, without its tests."""
    found = sorted(FOLDER.glob("*.rego"))
    return {path.name: path.read_text(encoding="utf-8") for path in found if not path.stem.endswith("_test")}


class EmbeddedEngine:
    """Rego in a process of its own; one that dies is started again, and asked once more."""

    name = "embedded"

    def __init__(self, process: RegoProcess | None = None) -> None:
        self._process = process or RegoProcess(seconds=SECONDS)

    async def start(self) -> None:
        """Be ready before the first question."""
        await self._process.start()

    async def decide(self, input_: dict[str, Any]) -> Decision:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(NoAnswerError):
                found = await self._process.evaluate("platform", platform_modules(), ENTRY, encoded(input_))
                return verdict(found)
        return UNDECIDED

    async def close(self) -> None:
        await self._process.close()


class OpaEngine:
    """An Open Policy Agent, asked over its REST API (https://www.openpolicyagent.org/docs/rest-api)."""

    name = "opa"

    def __init__(self, url: str, *, token: str | None = None, seconds: float = 1.0) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._client = httpx2.AsyncClient(base_url=url, headers=headers, timeout=seconds)

    async def start(self) -> None:
        """Nothing to do: the agent is there or not."""

    async def push(self) -> None:
        """Give the agent the platform's policy.

        Raises:
            httpx2.HTTPError: it does not take it.
        """
        # The agent refuses a module that calls one it has not seen yet; so those come again behind the others.
        waiting = dict(platform_modules())
        while waiting:
            answers = {name: await self._put(name, source) for name, source in waiting.items()}
            refused = {name: answer for name, answer in answers.items() if answer.is_error}
            if len(refused) == len(waiting):
                next(iter(refused.values())).raise_for_status()
            waiting = {name: waiting[name] for name in refused}

    async def _put(self, name: str, source: str) -> httpx2.Response:
        return await self._client.put(f"/v1/policies/erp/{name}", content=source.encode())

    async def decide(self, input_: dict[str, Any]) -> Decision:
        try:
            answer = await self._client.post(f"/v1/data/{ENTRY}", json={"input": input_})
            answer.raise_for_status()
            return verdict(answer.json().get("result"))
        except (httpx2.HTTPError, ValueError, AttributeError):
            return UNDECIDED

    async def close(self) -> None:
        await self._client.aclose()


def verdict(found: Any) -> Decision:
    """Return the decision in what an engine answered; anything but a whole verdict denies."""
    match found:
        case {"allow": bool(allow), "reason": str(reason), "grants": [*grants], "denials": [*denials]}:
            agrees = allow == (bool(grants) and not denials)
            return Decision(allow, reason, _texts(grants), _texts(denials)) if agrees else UNDECIDED
    return UNDECIDED


def _texts(found: list[Any]) -> tuple[str, ...]:
    return tuple(sorted(map(str, found)))
