"""Runs every saboteur past the cases of its own kind and prints which cases caught it, as JSON.

A process of its own, so that it can work beside the rest of the suite: python -m tests.conformance.sabotage

With --all each is held to every case of its provider, which takes several times as long; then nothing is printed but
what was caught by other cases than it should be, and the status is 1 when there is such a thing.
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
CROWD = 60
"""Saboteurs in one layer when each is held to every case: what cases record stays in memory."""
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

    def __init__(self, wanted: list[Saboteur], *, every_case: bool = False) -> None:
        catalog = ProviderCatalog.load()
        self.saboteurs = wanted
        self._every_case = every_case
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
            pairs = zip(self.saboteurs, self.manifests, strict=True)
            trials = [Trial(host, *pair, every_case=self._every_case) for pair in pairs]
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

    def __init__(self, host: Host, saboteur: Saboteur, manifest: ProviderManifest, *, every_case: bool) -> None:
        self.saboteur = saboteur
        wanted = {saboteur.case, *saboteur.also}
        kinds = {kind(case) for case in all_cases() if every_case or case.id in wanted}
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


def unexpected(saboteur: Saboteur, caught: dict[str, str]) -> dict[str, str]:
    """What other cases said of a saboteur than should, and that its own said nothing."""
    others = {case: said for case, said in caught.items() if case not in {saboteur.case, *saboteur.also}}
    return others if saboteur.case in caught else {**others, saboteur.case: "did not catch it"}


def held_to_every_case() -> int:
    """Print what is unexpected as it is found; return the exit status."""
    status, everyone = 0, saboteurs()
    for start in range(0, len(everyone), CROWD):
        some = everyone[start : start + CROWD]
        caught = asyncio.run(Sabotage(some, every_case=True).caught())
        for one in some:
            for case, said in unexpected(one, caught[one.name]).items():
                sys.stdout.write(f"{one.name}: {case} {said}\n")
                status = 1
    return status


if __name__ == "__main__":
    if "--all" in sys.argv:
        sys.exit(held_to_every_case())
    json.dump(asyncio.run(Sabotage(saboteurs()).caught()), sys.stdout)
