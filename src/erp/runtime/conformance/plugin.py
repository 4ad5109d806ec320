"""The pytest plug-in: conformance cases as tests.

In a test module::

    from erp.runtime.conformance.plugin import provider_tests

    test_conformance = provider_tests("cache/example", config={"url": "redis://127.0.0.1:6379"})

Every case is a test of its own; a gap of the manifest is a strict expected failure.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance.case import Case, cases_for
from erp.runtime.conformance.host import Host
from erp.runtime.conformance.outcome import Outcome
from erp.runtime.conformance.running import Run

T = TypeVar("T")
Hosting = Callable[..., AbstractAsyncContextManager[Host]]

HOST = "erp.cli.conformance_host:hosting"
"""Loaded by its name: a host is a whole layer, and the composition root stands above the runtime."""

_suites: list[Suite] = []


def hosting() -> Hosting:
    """Return what starts a layer for cases."""
    module, _, name = HOST.partition(":")
    found: Hosting = getattr(importlib.import_module(module), name)
    return found


class Suite:
    """One provider in a layer of its own, which runs in a thread until the tests have ended."""

    def __init__(self, ref: str, config: Mapping[str, Any] | None, drop_in: Path | None) -> None:
        self.ref = ref
        self.manifest = ProviderCatalog.load(drop_in).provider(*ref.split("/", 1))
        self._config = config
        self._drop_in = drop_in
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: AbstractAsyncContextManager[Host] | None = None
        self._run: Run | None = None

    def outcome(self, case: Case) -> Outcome:
        """Run one case; the first one starts the layer."""
        if self._run is None:
            self._start()
        return self._wait(self._outcome(case))

    async def _outcome(self, case: Case) -> Outcome:
        assert self._run is not None  # noqa: S101  (started by its only caller)
        return await self._run.outcome(case)

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"conformance of {self.ref}", daemon=True).start()
        self._wait(self._open())
        _suites.append(self)

    async def _open(self) -> None:
        self._context = hosting()(drop_in=self._drop_in)
        host = await self._context.__aenter__()
        config = self.manifest.conformance.get("config") or {} if self._config is None else self._config
        self._run = Run(host, self.manifest, config)

    def close(self) -> None:
        """Stop the layer."""
        if self._context is not None and self._loop is not None:
            self._wait(self._context.__aexit__(None, None, None))
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None  # noqa: S101  (started by every caller)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def provider_tests(
    ref: str, *, config: Mapping[str, Any] | None = None, drop_in: Path | None = None
) -> Callable[..., None]:
    """Return a test function with one parameter set for each case that applies to provider ``ref``.

    Args:
        ref: ``cache/example``.
        config: with which the provider works; None takes ``conformance.config`` of the manifest.
        drop_in: folder that holds ``cache/example/provider.yaml``, for a provider that is not installed.
    """
    suite = Suite(ref, config, drop_in)

    @pytest.mark.parametrize("case", cases_for(suite.manifest), ids=lambda case: case.id)
    def test(case: Case) -> None:
        _judge(suite.outcome(case))

    return test


def _judge(outcome: Outcome) -> None:
    if outcome.status == "not_run":
        pytest.skip(f"{outcome.case.id}: {outcome.reason}")
    if outcome.status == "gap":
        pytest.xfail(f"{outcome.case.id}: {outcome.reason}")
    if outcome.is_bad:
        pytest.fail(f"{outcome.case.id} {outcome.case.rule}\n{outcome.reason}\n{outcome.trace}", pytrace=False)


def pytest_sessionfinish() -> None:
    """Stop the layers that were started."""
    while _suites:
        _suites.pop().close()
