"""The list of what can be called: domains, services, providers. Imports no provider."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import foreign
from erp.runtime.action import Action, Area
from erp.runtime.foreign import Unusable
from erp.runtime.manifest import ProviderManifest

_log = logging.getLogger(__name__)


class ProviderCatalog:
    """Every domain, service and provider known to this process."""

    def __init__(
        self,
        domains: Mapping[str, Mapping[str, Any]],
        services: Mapping[str, Mapping[str, Any]],
        manifests: Iterable[ProviderManifest],
        drop_in: Path | None = None,
    ) -> None:
        self.domains = MappingProxyType(dict(domains))
        self.services = MappingProxyType(dict(services))
        self._drop_in = drop_in
        self.processes = 1
        """How many processes of the layer share one memory of the platform."""
        self.replace(manifests)
        areas: tuple[tuple[Area, Mapping[str, Mapping[str, Any]]], ...] = (
            ("providers", domains),
            ("services", services),
        )
        self._actions = {
            (area, group, name): Action(area, group, name, action)
            for area, groups in areas
            for group, contract in groups.items()
            for name, action in contract["actions"].items()
        }

    @classmethod
    def load(cls, drop_in: Path | None = None) -> ProviderCatalog:
        """Read the generated catalog, then installed wheels, then ``drop_in``; a later ref replaces none."""
        from erp.contracts.loading import catalog

        data = catalog()
        made = cls(data["domains"], data["services"], (), drop_in=drop_in)
        manifests, unusable = made.discover()
        for one in unusable:
            _log.warning("provider %s is ignored: %s", one.place, one.reason)
        made.replace(manifests)
        return made

    def discover(self) -> tuple[list[ProviderManifest], list[Unusable]]:
        """Look for providers anew, without taking any into use; return them, and what cannot be used."""
        from erp.contracts.loading import catalog

        found = {ref: _built_in(ref, manifest) for ref, manifest in catalog()["providers"].items()}
        unusable = []
        for one in (*foreign.installed(), *foreign.dropped_in(self._drop_in)):
            if isinstance(one, Unusable):
                unusable.append(one)
            elif one.ref in found:
                unusable.append(Unusable(one.ref, "a provider of this name is already known"))
            elif one.domain not in self.domains:
                unusable.append(Unusable(one.ref, f"it names an unknown domain, {one.domain}"))
            else:
                found[one.ref] = one
        return list(found.values()), unusable

    def replace(self, manifests: Iterable[ProviderManifest]) -> None:
        """Know exactly these providers from now on."""
        self.providers = MappingProxyType({manifest.ref: manifest for manifest in manifests})
        self._embedded: dict[tuple[str, int], ProviderManifest | None] = {}

    def action(self, area: Area, group: str, name: str) -> Action:
        """Return an action.

        Raises:
            ProviderError: ``not_found`` naming the nearest existing names.
        """
        try:
            return self._actions[area, group, name]
        except KeyError:
            raise self._unknown_action(area, group, name) from None

    def _unknown_action(self, area: Area, group: str, name: str) -> ProviderError:
        groups = self.domains if area == "providers" else self.services
        kind = "domain" if area == "providers" else "service"
        if group not in groups:
            return unknown(kind, group, groups)
        return unknown(f"action of {kind} {group}", name, groups[group]["actions"])

    def provider(self, domain: str, name: str) -> ProviderManifest:
        """Return a manifest, or raise ``not_found`` naming the nearest providers."""
        manifest = self.providers.get(f"{domain}/{name}")
        if manifest is not None:
            return manifest
        if domain not in self.domains:
            raise unknown("domain", domain, self.domains)
        raise unknown(f"provider of domain {domain}", name, [item.name for item in self.of_domain(domain)])

    def of_domain(self, domain: str) -> list[ProviderManifest]:
        """The providers of a domain, by name."""
        return sorted((item for item in self.providers.values() if item.domain == domain), key=lambda item: item.name)

    def embedded(self, domain: str) -> ProviderManifest | None:
        """The provider of ``domain`` that works without configuration, if there is one.

        Of several, the one that says so in its manifest; else the first known wins (built in, then installed, then dropped in), so that adding a provider
        never moves a tenant's data to it.
        """
        known = (domain, self.processes)
        if known not in self._embedded:
            self._embedded[known] = self._first_embedded(domain)
        return self._embedded[known]

    def _first_embedded(self, domain: str) -> ProviderManifest | None:
        found = (item for item in self.providers.values() if item.domain == domain and self._is_whole(item))
        able = [item for item in found if not item.needs_configuration]
        return next((item for item in able if item.default), next(iter(able), None))

    def _is_whole(self, manifest: ProviderManifest) -> bool:
        """Whether all processes see the same data in it."""
        return self.processes == 1 or manifest.scope != "process"

    def check_reach(self, manifest: ProviderManifest) -> None:
        """Refuse a provider of which every process would have another one.

        Raises:
            ProviderError: ``failed_precondition``.
        """
        if not self._is_whole(manifest):
            message = (
                f"{manifest.ref} keeps its data in the memory of one process, and this layer runs {self.processes}: each would "
                "know something else. Configure a provider whose scope is host or shared, or run one process."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)

    def actions_of(self, manifest: ProviderManifest) -> list[Action]:
        """The actions this provider offers: all of its domain without an undeclared capability."""
        names = self.domains[manifest.domain]["actions"]
        found = (self._actions["providers", manifest.domain, name] for name in names)
        return [item for item in found if item.capability is None or item.capability in manifest.capabilities]


def unknown(kind: str, name: str, known: Iterable[str]) -> ProviderError:
    """Say that ``name`` does not exist and which names come nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:100], names, n=3, cutoff=0.5) or names[:10]
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return ProviderError(ErrorCode.NOT_FOUND, f"There is no {kind} named {name[:100]!r}.{hint}")


def _built_in(ref: str, manifest: Mapping[str, Any]) -> ProviderManifest:
    package = f"erp.providers.{ref.replace('/', '.')}"
    return msgspec.convert({**manifest, "package": package}, ProviderManifest)
