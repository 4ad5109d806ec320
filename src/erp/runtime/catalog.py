"""The immutable list of what can be called: domains, services, providers. Imports no provider."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.resources
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.action import Action, Area
from erp.runtime.manifest import ProviderManifest

ENTRY_POINT_GROUP = "erp.providers"

_log = logging.getLogger(__name__)


class ProviderCatalog:
    """Every domain, service and provider known to this process."""

    def __init__(
        self,
        domains: Mapping[str, Mapping[str, Any]],
        services: Mapping[str, Mapping[str, Any]],
        manifests: Iterable[ProviderManifest],
    ) -> None:
        self.domains = MappingProxyType(dict(domains))
        self.services = MappingProxyType(dict(services))
        self.providers = MappingProxyType({manifest.ref: manifest for manifest in manifests})
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
        """Read the generated catalog, then entry points, then ``drop_in``; a later ref replaces none."""
        from erp.contracts.loading import catalog

        data = catalog()
        built_in = [_built_in(ref, manifest) for ref, manifest in data["providers"].items()]
        found = {manifest.ref: manifest for manifest in built_in}
        for manifest in (*_from_entry_points(), *_from_folder(drop_in)):
            if manifest.ref in found:
                _log.warning("provider %s is already known; the second one is ignored", manifest.ref)
            elif manifest.domain not in data["domains"]:
                _log.warning("provider %s names an unknown domain and is ignored", manifest.ref)
            else:
                found[manifest.ref] = manifest
        return cls(data["domains"], data["services"], found.values())

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

        The first known wins (built in, then installed, then dropped in), so that adding a provider
        never moves a tenant's data to it.
        """
        found = (item for item in self.providers.values() if item.domain == domain)
        return next((item for item in found if not item.needs_configuration), None)

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


def _from_entry_points() -> list[ProviderManifest]:
    found = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            text = importlib.resources.files(point.value).joinpath("provider.yaml").read_bytes()
            found.append(_parse(text, package=point.value))
        except Exception as error:  # noqa: BLE001  (importing foreign code may raise anything)
            _log.warning("entry point %s of group %s is ignored: %s", point.name, ENTRY_POINT_GROUP, error)
    return found


def _from_folder(folder: Path | None) -> list[ProviderManifest]:
    if folder is None or not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*/*/provider.yaml")):
        try:
            found.append(_in_its_folder(_parse(path.read_bytes(), folder=path.parent), path.parent))
        except (OSError, ValueError) as error:
            _log.warning("%s is ignored: %s", path, error)
    return found


def _in_its_folder(manifest: ProviderManifest, folder: Path) -> ProviderManifest:
    expected = f"{folder.parent.name}/{folder.name}"
    if manifest.ref != expected:
        message = f"its ref is {manifest.ref!r} but its folder says {expected!r}"
        raise ValueError(message)
    return manifest


def _parse(text: bytes, *, package: str | None = None, folder: Path | None = None) -> ProviderManifest:
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = f"not valid YAML: {error}"
        raise ValueError(message) from error
    if not isinstance(data, dict):
        message = "provider.yaml is not a mapping"
        raise ValueError(message)  # noqa: TRY004  (a malformed file, not a programming error)
    known = {key: value for key, value in data.items() if key not in {"package", "folder"}}
    manifest = msgspec.convert(known, ProviderManifest)
    return msgspec.structs.replace(manifest, package=package, folder=folder)
