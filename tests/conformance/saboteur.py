"""Deliberately broken providers, each made from a correct one by one small mutation."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


@dataclass(frozen=True, slots=True)
class Saboteur:
    """A mixin in front of a provider's class that breaks one rule."""

    case: str
    """The case that must catch it."""
    ref: str
    """The provider it is made from."""
    mixin: type[Any]
    also: frozenset[str] = frozenset()
    """Cases that cannot but catch it too."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest says otherwise."""

    @property
    def name(self) -> str:
        return f"{self.case}-{self.mixin.__name__}"

    def broken(self, correct: type[Any]) -> type[Any]:
        return type(self.mixin.__name__, (self.mixin, correct), {})


_known: list[Saboteur] = []


def breaks(
    case: str, *, ref: str, also: tuple[str, ...] = (), manifest: Mapping[str, Any] | None = None
) -> Callable[[T], T]:
    """Make a class a saboteur: its methods come before those of provider ``ref``."""

    def register(mixin: T) -> T:
        _known.append(Saboteur(case, ref, mixin, frozenset(also), manifest or {}))
        return mixin

    return register


def saboteurs() -> list[Saboteur]:
    """Every saboteur under ``saboteurs/``."""
    if not _known:
        from tests.conformance import saboteurs as folder

        for module in pkgutil.iter_modules(folder.__path__):
            importlib.import_module(f"{folder.__name__}.{module.name}")
    return list(_known)
