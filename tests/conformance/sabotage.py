"""Runs every saboteur past the cases of its own kind and prints which cases caught it, as JSON.

A process of its own, so that it can work beside the rest of the suite: python -m tests.conformance.sabotage
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import msgspec
from tests.conformance.saboteur import Saboteur, saboteurs

from erp.cli.conformance_host import hosting
from erp.runtime import loader
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance import Case, Host, all_cases, cases_for
from erp.runtime.conformance.running import Run
from erp.runtime.manifest import ProviderManifest

AT_ONCE = 12
CASE_SECONDS = 10.0
"""A saboteur that hangs is caught all the same."""
ALONE = {"LIFE-01", "LIFE-06"}
"""Cases that count what the whole process holds."""
COVERAGE = "CALL-06"
"""Judges whether all cases of a provider have run, which a saboteur's are not."""


def variant(saboteur: Saboteur, number: int, correct: ProviderManifest) -> ProviderManifest:
    """The manifest of a saboteur: the correct one's under another name."""
    ref = f"{correct.domain}/saboteur_{number}"
    return msgspec.structs.replace(correct, ref=ref, embedded=correct.embedded, **saboteur.manifest)


class Sabotage:
    """All saboteurs in one layer, each a provider of its own."""

    def __init__(self) -> None:
        catalog = ProviderCatalog.load()
        self.saboteurs = saboteurs()
        self.manifests = [
            variant(one, number, catalog.provider(*one.ref.split("/"))) for number, one in enumerate(self.saboteurs)
        ]
        self._classes = {
            manifest.ref: one.broken(loader.load(catalog.provider(*one.ref.split("/"))))
            for one, manifest in zip(self.saboteurs, self.manifests, strict=True)
        }

    def load(self, manifest: ProviderManifest) -> type[Any]:
        return self._classes.get(manifest.ref) or loader.load(manifest)

    async def caught(self) -> dict[str, dict[str, str]]:
        """Run every saboteur; return which cases caught it, and how."""
        async with hosting(load=self.load) as host:
            variants = {manifest.ref: manifest for manifest in self.manifests}
            host.catalog.providers = MappingProxyType({**host.catalog.providers, **variants})
            trials = [Trial(host, *pair) for pair in zip(self.saboteurs, self.manifests, strict=True)]
            # Cases that measure time run beside nothing but each other.
            await together(trials, lambda case: not (case.is_timed or case.is_last or case.id in ALONE))
            await together(trials, lambda case: case.is_timed)
            for trial in trials:
                await trial.end()
            return {trial.saboteur.name: trial.caught for trial in trials}


APART = {"integration"}
"""Domains whose modules of cases have nothing in common: records, webhooks out, webhooks in."""


def kind(case: Case) -> str | None:
    """What cases have in common that one saboteur could be caught by."""
    return case.proof.__module__ if case.domain in APART else case.domain


class Trial:
    """One saboteur before the cases of its own kind: those of its domain (or its part of it), or of every domain."""

    def __init__(self, host: Host, saboteur: Saboteur, manifest: ProviderManifest) -> None:
        self.saboteur = saboteur
        wanted = {saboteur.case, *saboteur.also}
        kinds = {kind(case) for case in all_cases() if case.id in wanted}
        self.cases = [
            case for case in cases_for(manifest) if kind(case) in kinds and (case.id != COVERAGE or COVERAGE in wanted)
        ]
        self.caught: dict[str, str] = {}
        self._run = Run(host, manifest, manifest.conformance.get("config") or {}, case_seconds=CASE_SECONDS)

    async def hold(self, case: Case) -> None:
        """Run one case and note whether it caught the saboteur."""
        outcome = await self._run.outcome(case)
        self.caught.pop(case.id, None)
        if outcome.is_bad:
            self.caught[case.id] = outcome.reason

    async def end(self) -> None:
        """Run what has to be alone, then again what ended as it should not have: it may have lacked time."""
        for case in self.cases:
            if case.is_last or case.id in ALONE:
                await self.hold(case)
        unexpected = (self.caught.keys() ^ {self.saboteur.case}) - self.saboteur.also
        for case in self.cases:
            if case.id in unexpected and not case.is_last:
                await self.hold(case)


async def together(trials: list[Trial], is_wanted: Callable[[Case], bool]) -> None:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(trial: Trial, case: Case) -> None:
        async with free:
            await trial.hold(case)

    await asyncio.gather(*(one(trial, case) for trial in trials for case in trial.cases if is_wanted(case)))


if __name__ == "__main__":
    json.dump(asyncio.run(Sabotage().caught()), sys.stdout)
