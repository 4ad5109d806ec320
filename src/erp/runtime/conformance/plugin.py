"""The pytest plug-in: conformance cases as tests.

In a test module::

    from erp.runtime.conformance.plugin import provider_tests

    test_conformance = provider_tests("cache/example", config={"url": "redis://127.0.0.1:6379"})

or without a test module::

    pytest --pyargs erp.runtime.conformance.suite --erp-provider cache/example --erp-config settings.yaml

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

from erp.errors import ProviderError
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance.case import Case, cases_for
from erp.runtime.conformance.certifying import ProofLevel, proven, reached
from erp.runtime.conformance.host import Host
from erp.runtime.conformance.outcome import Outcome, Report
from erp.runtime.conformance.running import Run

T = TypeVar("T")
Hosting = Callable[..., AbstractAsyncContextManager[Host]]

HOST = "erp.cli.conformance_host:hosting"
"""Loaded by its name: a host is a whole layer, and the composition root stands above the runtime."""

SUITE = "erp.runtime.conformance.suite"

PROVEN = "proven in this run"

_suites: list[Suite] = []
_lines: list[str] = []


def hosting() -> Hosting:
    """Return what starts a layer for cases."""
    module, _, name = HOST.partition(":")
    found: Hosting = getattr(importlib.import_module(module), name)
    return found


class Suite:
    """One provider in a layer of its own, which runs in a thread until the tests have ended."""

    def __init__(
        self,
        ref: str,
        config: Mapping[str, Any] | None = None,
        drop_in: Path | None = None,
        *,
        level: ProofLevel | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.ref = ref
        self._credentials = credentials
        domain, _, name = ref.partition("/")
        self.manifest = ProviderCatalog.load(drop_in).provider(domain, name)
        self.level: ProofLevel = level or reached(self.manifest, config)
        """What a passed case proves: P2 when a simulator answers, for example."""
        self._config = config
        self._drop_in = drop_in
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._context: AbstractAsyncContextManager[Host] | None = None
        self._run: Run | None = None
        self._server: str | None = None
        self._outcomes: dict[str, Outcome] = {}

    def outcome(self, case: Case) -> Outcome:
        """Run one case, once; the first one starts the layer."""
        if self._run is None:
            self._start()
        if case.id not in self._outcomes:
            self._outcomes[case.id] = self._wait(self._outcome(case))
        return self._outcomes[case.id]

    def report(self) -> Report:
        """Return the outcomes of all cases, running those that have not run."""
        for case in cases_for(self.manifest):
            self.outcome(case)
        return self.so_far()

    def so_far(self) -> Report:
        """Return the outcomes of the cases that have run, and what answered them."""
        outcomes = list(self._outcomes.values())
        return Report(self.ref, self.manifest.version, self.manifest.contract, outcomes, self._server)

    def line(self) -> str:
        """Return in a line what this session has proven: ``cache/redis  P4  6 of 6 capabilities  Redis 8.0.2``."""
        report = self.so_far()
        levels = proven(report, self.manifest, self.level)
        shown = "/".join(sorted(set(levels.values()))) or "--"
        count = f"{len(levels)} of {len(self.manifest.capabilities)} capabilities"
        return f"{self.ref:28} {shown:3} {count:22} {report.server or 'itself':28} {report.counted}"

    async def _outcome(self, case: Case) -> Outcome:
        assert self._run is not None  # noqa: S101  (started by its only caller)
        return await self._run.outcome(case)

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"conformance of {self.ref}", daemon=True)
        self._thread.start()
        self._wait(self._open())
        _suites.append(self)

    async def _open(self) -> None:
        self._context = hosting()(drop_in=self._drop_in)
        host = await self._context.__aenter__()
        config = self.manifest.conformance.get("config") or {} if self._config is None else self._config
        self._run = Run(host, self.manifest, config, credentials=self._credentials)
        self._server = await self._run.server()  # now: what lets a test reach it may be gone in the end

    def close(self) -> None:
        """Stop the layer."""
        if self._context is not None and self._loop is not None:
            self._wait(self._context.__aexit__(None, None, None))
            self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None and self._loop is not None:
            self._thread.join()
            self._loop.close()

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
    return cases_of(Suite(ref, config, drop_in))


def cases_of(suite: Suite) -> Callable[..., None]:
    """Return a test function with one parameter set for each case of a suite."""

    @pytest.mark.parametrize("case", cases_for(suite.manifest), ids=lambda case: case.id)
    def test(case: Case) -> None:
        judge(suite.outcome(case))

    return test


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say which provider ``erp.runtime.conformance.suite`` is run against."""
    group = parser.getgroup("erp", "conformance of a provider of the ERP Provider Layer")
    group.addoption("--erp-provider", metavar="DOMAIN/NAME", help="the provider, for example cache/example")
    group.addoption("--erp-config", metavar="FILE", help="JSON or YAML file with the configuration to use")
    group.addoption("--erp-folder", metavar="DIR", help="drop-in folder that holds the provider's folder")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the suite one parameter set for each case that applies to the provider of the command line."""
    if metafunc.function.__module__ != SUITE:
        return
    suite = _asked_for(metafunc.config)
    pairs = [(suite, case) for case in cases_for(suite.manifest)] if suite else []
    metafunc.parametrize(("suite", "case"), pairs, ids=[case.id for _, case in pairs])


def _asked_for(config: pytest.Config) -> Suite | None:
    ref, folder = config.getoption("--erp-provider"), config.getoption("--erp-folder")
    if ref is None:
        return None
    try:
        return Suite(ref, _settings(config.getoption("--erp-config")), Path(folder) if folder else None)
    except ProviderError as error:
        raise pytest.UsageError(f"--erp-provider: {error.message}") from None


def _settings(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise pytest.UsageError(f"--erp-config: {path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise pytest.UsageError(f"--erp-config: {path} must hold one object, the configuration")
    return found


def judge(outcome: Outcome) -> None:
    """End the running test as the case ended."""
    if outcome.status == "not_run":
        pytest.skip(f"{outcome.case.id}: {outcome.reason}")
    if outcome.status == "gap":
        pytest.xfail(f"{outcome.case.id}: {outcome.reason}")
    if outcome.is_bad:
        pytest.fail(f"{outcome.case.id} {outcome.case.rule}\n{outcome.reason}\n{outcome.trace}", pytrace=False)


def pytest_sessionfinish() -> None:
    """Stop the layers that were started, and keep what they have proven."""
    while _suites:
        suite = _suites.pop()
        _lines.append(suite.line())
        suite.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what this session has proven, a provider a line."""
    if _lines:
        terminalreporter.section(PROVEN)
        for line in sorted(_lines):
            terminalreporter.write_line(line)
