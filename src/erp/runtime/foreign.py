"""Providers that this distribution does not bring: installed wheels and folders dropped in."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from erp.runtime.evidence import digest
from erp.runtime.manifest import ProviderManifest

ENTRY_POINT_GROUP = "erp.providers"
MANIFEST = "provider.yaml"


@dataclass(frozen=True, slots=True)
class Unusable:
    """A place where a provider should be, and why there is none."""

    place: str
    """``domain/name`` of a folder, or the package of a wheel."""
    reason: str


Found = list[ProviderManifest | Unusable]


def installed() -> Found:
    """Return the providers of installed wheels: entry points of the group ``erp.providers``, value = package."""
    importlib.invalidate_caches()
    return [_of_package(point.value) for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)]


def _of_package(package: str) -> ProviderManifest | Unusable:
    try:
        folder = importlib.resources.files(package)
        manifest = _parsed(folder.joinpath(MANIFEST).read_bytes())
        build = digest(folder) if isinstance(folder, Path) else manifest.version
    except Exception as error:  # noqa: BLE001  (importing foreign code may raise anything)
        return Unusable(package, f"{type(error).__name__}: {error}")
    return msgspec.structs.replace(manifest, package=package, build=build)


def dropped_in(folder: Path | None) -> Found:
    """Return the providers in ``folder/domain/name/``."""
    if folder is None or not folder.is_dir():
        return []
    return [_of_folder(path.parent) for path in sorted(folder.glob(f"*/*/{MANIFEST}"))]


def _of_folder(folder: Path) -> ProviderManifest | Unusable:
    expected = f"{folder.parent.name}/{folder.name}"
    try:
        manifest = _parsed((folder / MANIFEST).read_bytes())
        build = digest(folder)
    except (OSError, ValueError) as error:
        return Unusable(expected, f"{folder / MANIFEST}: {error}")
    if manifest.ref != expected:
        return Unusable(expected, f"{folder / MANIFEST}: its ref is {manifest.ref!r} but its folder says {expected!r}")
    return msgspec.structs.replace(manifest, folder=folder, build=build)


def _parsed(text: bytes) -> ProviderManifest:
    import yaml

    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = f"not valid YAML: {error}"
        raise ValueError(message) from error
    if not isinstance(data, dict):
        message = f"{MANIFEST} is not a mapping"
        raise ValueError(message)  # noqa: TRY004  (a malformed file, not a programming error)
    known = {key: value for key, value in data.items() if key not in {"package", "folder", "build"}}
    return msgspec.convert(known, ProviderManifest)
