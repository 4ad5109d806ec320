"""The quality scale: bronze is sound, silver reliable, gold proven, platinum proven against the real thing.

A level is reached when every rule of it and of those below holds. A rule that does not fit a provider, or that no
machine can check, is exempt only with a written reason in ``conformance.exempt`` of its manifest.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import jsonschema_rs

from erp.runtime.conformance.folder import ProviderFolder, manifest_schema

Level = Literal["none", "bronze", "silver", "gold", "platinum"]
LEVELS: tuple[Level, ...] = get_args(Level)

Check = Callable[[ProviderFolder], Iterable[str]]
"""Says what breaks the rule; nothing when it holds."""

MANIFEST_RULE = "BRONZE-01"
"""All others rely on a manifest of the right shape."""

ATTESTED = "no machine can check this, and the manifest gives no reason to believe it"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the scale."""

    id: str
    level: Level
    sentence: str
    fix: str
    check: Check

    @property
    def is_attested(self) -> bool:
        """Whether only a written reason in the manifest can meet it."""
        return self.check is _unattested


@dataclass(frozen=True, slots=True)
class Finding:
    """What breaks a rule, and the mend."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        fix = "" if "How to fix:" in self.text else f" How to fix: {self.rule.fix}"
        return f"{self.rule.id} {self.text.rstrip('.')}.{fix}"


@dataclass(frozen=True, slots=True)
class Assessment:
    """Where a provider stands on the scale, and what keeps it from the next level."""

    ref: str
    level: Level
    findings: tuple[Finding, ...]
    exempt: dict[str, str]
    """Rule -> reason."""

    @property
    def errors(self) -> list[Finding]:
        """What has to be mended in any case: a provider without bronze is not fit for use."""
        return [finding for finding in self.findings if finding.rule.level == "bronze"]

    def upto(self, level: Level) -> list[Finding]:
        """Everything that stands between the provider and ``level``."""
        return [item for item in self.findings if LEVELS.index(item.rule.level) <= LEVELS.index(level)]

    @property
    def next_level(self) -> Level | None:
        """The level after the one reached; None at the top."""
        position = LEVELS.index(self.level) + 1
        return LEVELS[position] if position < len(LEVELS) else None


_known: dict[str, Rule] = {}


def rule(number: int, *, fix: str) -> Callable[[Check], Check]:
    """Make a function the check of a rule; its docstring is the rule, its module the level."""

    def register(check: Check) -> Check:
        level = _level(check.__module__)
        _add(Rule(f"{level.upper()}-{number:02}", level, " ".join((inspect.getdoc(check) or "").split()), fix, check))
        return check

    return register


def attested(number: int, sentence: str, *, module: str) -> None:
    """Add a rule that no machine can check: it is met by a written reason in the manifest alone."""
    level = _level(module)
    name = f"{level.upper()}-{number:02}"
    fix = f"write in provider.yaml, under conformance.exempt, rule: {name} and reason: how you know."
    _add(Rule(name, level, sentence, fix, _unattested))


def _add(made: Rule) -> None:
    if made.id in _known:
        message = f"{made.id} is taken."
        raise ValueError(message)
    _known[made.id] = made


def _level(module: str) -> Level:
    name = module.rpartition(".")[2]
    return next(level for level in LEVELS if level == name)


def _unattested(_: ProviderFolder) -> Iterable[str]:
    return [ATTESTED]


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, the lowest level first."""
    from erp.runtime.conformance import rules

    for module in pkgutil.iter_modules(rules.__path__):
        importlib.import_module(f"{rules.__name__}.{module.name}")
    return tuple(sorted(_known.values(), key=lambda one: (LEVELS.index(one.level), one.id)))


def assess(folder: ProviderFolder) -> Assessment:
    """Hold a provider to every rule."""
    is_readable = jsonschema_rs.Draft202012Validator(manifest_schema()).is_valid(folder.manifest)
    exempt = _exempt(folder) if is_readable else {}
    held = [one for one in all_rules() if one.id not in exempt and (is_readable or one.id == MANIFEST_RULE)]
    findings = tuple(Finding(one, text) for one in held for text in dict.fromkeys(one.check(folder)))
    broken = {finding.rule.level for finding in findings}
    reached: Level = "none"
    for level in LEVELS[1:]:
        if level in broken:
            break
        reached = level
    return Assessment(folder.ref, reached, findings, exempt)


def _exempt(folder: ProviderFolder) -> dict[str, str]:
    reasons = {item["rule"]: item["reason"] for item in folder.conformance.get("exempt") or []}
    return {one.id: reasons[one.id] for one in all_rules() if one.level != "bronze" and one.id in reasons}
