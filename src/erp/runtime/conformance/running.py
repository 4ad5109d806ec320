"""Runs cases, one after the other, and says what became of each."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from erp.errors import ProviderError
from erp.runtime.conformance.bench import Bench, Recording
from erp.runtime.conformance.case import Case, cases_for
from erp.runtime.conformance.outcome import Outcome
from erp.runtime.conformance.peers import uses_kit

if TYPE_CHECKING:
    from erp.runtime.conformance.host import Host
    from erp.runtime.manifest import ProviderManifest

CASE_SECONDS = 30.0
KIT = "the kit's own peer"
CHANCES = 3
"""Of cases that measure time."""


_DECLARED = {
    "server": ("unreachable", "with which settings the peer cannot be reached"),
    "credentials": ("wrong_credentials", "which credentials the peer refuses"),
    "records": ("records", "of which object of the peer records may be written"),
}
"""What the manifest has to say for a case, and what is not known when it does not."""


class Run:
    """One provider's cases and what they have recorded."""

    def __init__(
        self,
        host: Host,
        manifest: ProviderManifest,
        config: Mapping[str, Any],
        *,
        case_seconds: float = CASE_SECONDS,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self._credentials = credentials
        self._host = host
        self._case_seconds = case_seconds
        self._manifest = manifest
        self._config = config
        secrets = {str(config[name]) for name in manifest.secret_fields if name in config}
        self.recording = Recording(secrets=secrets | set((credentials or {}).values()))
        gaps = manifest.conformance.get("gaps") or []
        self._gaps = {gap["case"]: gap for gap in gaps}

    async def outcomes(self, only: Sequence[str] = ()) -> AsyncGenerator[Outcome]:
        """Run the cases of the provider, or those with these ids, and yield each outcome as it is known."""
        for one in cases_for(self._manifest):
            if not only or one.id in only:
                yield await self.outcome(one)

    async def outcome(self, one: Case) -> Outcome:
        """Run one case."""
        if missing := self._missing(one):
            return Outcome(one, "not_run", reason=missing)
        started = time.perf_counter()
        failure = await self._failure(one)
        for _ in range(CHANCES - 1 if one.is_timed else 0):
            if failure is None or isinstance(failure, TimeoutError):
                break
            failure = await self._failure(one)
        seconds = time.perf_counter() - started
        gap = self._gaps.get(one.id)
        if gap is not None:
            text = f"{gap['kind']}: {gap['reason']}"
            if failure is None:
                return Outcome(
                    one, "closed_gap", seconds, f"It passes now: remove the gap ({text}) from provider.yaml."
                )
            return Outcome(one, "gap", seconds, text)
        if failure is None:
            return Outcome(one, "passed", seconds)
        trace = "".join(traceback.format_exception(failure))
        return Outcome(one, "failed", seconds, _explained(failure), trace)

    async def server(self) -> str | None:
        """Return name and version of what answers, as it says itself, else the name in the manifest."""
        bench = Bench(self._host, self._manifest, self._config, self.recording)
        provider = bench.bare()
        try:
            async with asyncio.timeout(self._case_seconds):
                await provider.open()
                said = await self._said(bench, provider)
        except Exception:  # noqa: BLE001  (what it does wrong the cases have found)
            said = ""
        finally:
            await provider.close()
            await bench.close()
        if uses_kit(self._config):
            return KIT
        return said or self._manifest.conformance.get("server")

    async def _said(self, bench: Bench, provider: Any) -> str:
        """What its health says; a database says it in its metadata too."""
        health = await provider.health()
        versions = [f"{one.name} {one.version}" for one in health.dependencies if one.version is not UNSET]
        if versions or self._manifest.domain != "db":
            return ", ".join(versions)
        told = await bench.bare_call(provider, "metadata", {"limit": 1})
        return f"{told.engine} {told.version}"

    def _missing(self, one: Case) -> str:
        conformance = self._manifest.conformance
        if one.needs == "peer" and not uses_kit(self._config):
            return "its peer is not the one that the kit plays, which could be made to fail (settings with {peer})"
        if one.needs == "records" and "upsert" not in self._manifest.capabilities:
            return "upsert is not declared, without which the suite has no records of its own to read"
        key, missing = _DECLARED.get(one.needs or "", ("", ""))
        return f"provider.yaml does not say (conformance.{key}) {missing}" if key and not conformance.get(key) else ""

    async def _failure(self, one: Case) -> BaseException | None:
        bench = Bench(self._host, self._manifest, self._config, self.recording, self._credentials)
        try:
            with _captured(self.recording.logs):
                async with asyncio.timeout(self._case_seconds):
                    await one.proof(bench)
        except Exception as failure:  # noqa: BLE001  (whatever a provider raises is a finding)
            return failure
        finally:
            await bench.close()
        return None


def _explained(failure: BaseException) -> str:
    if isinstance(failure, AssertionError):
        return str(failure)
    if isinstance(failure, ProviderError):
        detail = f" ({failure.detail})" if failure.detail else ""
        return f"a call was answered {failure.code}: {failure.message}{detail}"
    if isinstance(failure, TimeoutError):
        return "the case did not end in time"
    return f"{type(failure).__name__}: {failure}"


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextmanager
def _captured(lines: list[str]) -> Iterator[None]:
    """Keep what is logged meanwhile."""
    handler, root = _Lines(lines), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
