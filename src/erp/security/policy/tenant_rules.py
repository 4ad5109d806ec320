"""Tenants' own policies: what they say against a question. One that fails, or is too slow, denies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from erp.security.policy.process import NoAnswerError, RegoProcess
from erp.security.policy.rego import Finding

ENTRY = "tenant/deny"
MODULE = "policy.rego"
SECONDS = 0.5
PAUSE_SECONDS = 10.0
"""For which a policy that was too slow denies without being asked again."""
MAX_PAUSED = 1000
MAX_DENIALS, LONGEST_DENIAL = 20, 300

UNDECIDED = "the tenant's policy gave no answer"
TOO_SLOW = "the tenant's policy did not answer in time"

SHAPE = Finding(
    module=MODULE,
    line=1,
    problem="It answers no set of texts at `data.tenant.deny`.",
    remedy='Begin with `package tenant` and `import rego.v1`, and write rules such as `deny contains "reason" if { ... }`.',
)


class TenantRules:
    """Asks a process of its own, so that no tenant's policy delays the platform's."""

    def __init__(self, process: RegoProcess | None = None) -> None:
        self._process = process or RegoProcess(seconds=SECONDS)
        self._paused: dict[str, float] = {}

    async def denials(self, revision: str, source: str, input_: str) -> list[str]:
        """Return what the policy says against a question.

        Args:
            revision: names the source, uniquely.
            source: the policy.
            input_: the question as JSON.
        """
        if self._paused.get(revision, 0.0) > time.monotonic():
            return [TOO_SLOW]
        try:
            found = await self._process.evaluate(revision, _modules(source), ENTRY, input_)
        except NoAnswerError:
            if len(self._paused) >= MAX_PAUSED:
                self._paused.clear()
            self._paused[revision] = time.monotonic() + PAUSE_SECONDS
            return [TOO_SLOW]
        denials = texts(found)
        return [UNDECIDED] if denials is None else denials

    async def lint(self, source: str, input_: str) -> list[Finding]:
        """Return what is wrong with a policy, tried on a question."""
        try:
            findings, value = await self._process.findings(f"lint/{hash(source)}", _modules(source), ENTRY, input_)
        except NoAnswerError:
            problem = f"It does not answer one question within {self._process.seconds:g} s."
            return [Finding(module=MODULE, line=1, problem=problem, remedy="Compare less: no products of large sets.")]
        if findings:
            return findings
        return [SHAPE] if texts(value) is None else []

    async def close(self) -> None:
        """End the process."""
        await self._process.close()


def _modules(source: str) -> Mapping[str, str]:
    return {MODULE: source}


def texts(found: Any) -> list[str] | None:
    """Return the denials in what a policy answered; None when it is no set of texts."""
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        return None
    return [text[:LONGEST_DENIAL] for text in sorted(found)[:MAX_DENIALS]]
