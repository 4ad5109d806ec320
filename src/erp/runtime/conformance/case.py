"""One rule of the provider specification and the code that proves it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from erp.runtime.conformance.bench import Bench
    from erp.runtime.manifest import ProviderManifest

Proof = Callable[["Bench"], Awaitable[None]]
Needs = Literal["server", "credentials", "secrets", "records", "peer", "sql"]
"""What a case cannot do without: a peer that can be unreachable, credentials that can be wrong, secret settings, an
object of the peer whose records may be written, the peer that the kit plays and lets fail as it likes, what a database says of its SQL."""

_ID = re.compile(r"[A-Z]{2,8}-\d{2}\Z")


@dataclass(frozen=True, slots=True)
class Case:
    """A rule with its proof. ``rule`` is the normative text (RFC 2119)."""

    id: str
    rule: str
    proof: Proof
    domain: str | None
    """None: of every domain."""
    capability: str | None
    without: str | None
    """A capability that must not be declared: the case shows what is refused instead."""
    needs: Needs | None
    is_last: bool
    """True when it judges what all other cases have recorded."""
    is_timed: bool
    """True when it measures time, or what the whole process holds: on a busy machine it gets a second and third chance."""

    @property
    def name(self) -> str:
        """What the case shows, in words."""
        return self.proof.__name__.replace("_", " ")

    def applies_to(self, manifest: ProviderManifest) -> bool:
        """Whether the provider has what the case is about."""
        if self.domain not in {None, manifest.domain} or not _has(manifest, self.needs):
            return False
        if self.without is not None and self.without in manifest.capabilities:
            return False
        return self.capability is None or self.capability in manifest.capabilities


def _has(manifest: ProviderManifest, needs: Needs | None) -> bool:
    if needs == "server":
        return bool(manifest.conformance.get("server") or manifest.conformance.get("unreachable"))
    if needs == "credentials":
        return _can_be_refused(manifest) and _has(manifest, "server")
    if needs == "sql":
        return bool(manifest.sql)
    return needs != "secrets" or bool(manifest.secret_fields)


def _can_be_refused(manifest: ProviderManifest) -> bool:
    """Whether the peer can refuse to let the provider in; a signature proves a message, and opens nothing."""
    return any(each.get("profile") not in {"none", "signing_secret"} for each in manifest.authentication)


_known: dict[str, Case] = {}


def case(
    id: str,  # noqa: A002  (the specification calls it id)
    *,
    capability: str | None = None,
    without: str | None = None,
    needs: Needs | None = None,
    last: bool = False,
    timed: bool = False,
) -> Callable[[Proof], Proof]:
    """Make a function the proof of rule ``id``; its docstring is the rule.

    The domain is the first word of the module under ``cases/`` (``bus``, ``bus_failures``); modules that name
    none hold cases of all.
    """

    def register(proof: Proof) -> Proof:
        if not _ID.match(id) or id in _known:
            message = f"{id} is malformed or taken."
            raise ValueError(message)
        rule = " ".join((inspect.getdoc(proof) or "").split())
        _known[id] = Case(id, rule, proof, _domain_of(proof.__module__), capability, without, needs, last, timed)
        return proof

    return register


def _domain_of(module: str) -> str | None:
    from erp.contracts.loading import catalog

    name = module.rpartition(".")[2].partition("_")[0]
    return name if name in catalog()["domains"] else None


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, by id; those that judge the others last."""
    from erp.runtime.conformance import cases

    for module in pkgutil.iter_modules(cases.__path__):
        importlib.import_module(f"{cases.__name__}.{module.name}")
    return tuple(sorted(_known.values(), key=lambda one: (one.is_last, one.id)))


def cases_for(manifest: ProviderManifest) -> list[Case]:
    """Return the cases that apply to a provider, in the order in which they run."""
    return [one for one in all_cases() if one.applies_to(manifest)]
