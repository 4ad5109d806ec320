"""Imports the implementation a manifest names. The only place that says what to install."""

from __future__ import annotations

import hashlib
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from erp.runtime.manifest import ProviderManifest


DROPPED_IN = "erp_drop_in_"
"""Begins the names of packages that are folders dropped in."""


def load(manifest: ProviderManifest) -> type[Any]:
    """Return the provider class.

    Raises:
        ProviderError: ``failed_precondition`` naming the extra to install, or ``internal`` when
            the folder does not hold what its manifest says.
    """
    module_name, _, class_name = manifest.implementation.partition(":")
    try:
        module = _module(manifest, module_name)
        found: type[Any] = getattr(module, class_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(DROPPED_IN):
            raise _missing(manifest, error) from error
        message = f"The provider {manifest.ref} is broken: {manifest.implementation} cannot be loaded."
        raise ProviderError(ErrorCode.INTERNAL, message, detail=f"{type(error).__name__}: {error}") from error
    return found


def _module(manifest: ProviderManifest, name: str) -> ModuleType:
    if "." in name or manifest.folder is None:
        return importlib.import_module(name if "." in name else f"{manifest.package}.{name}")
    return importlib.import_module(f"{_package(manifest, manifest.folder)}.{name}")


def _package(manifest: ProviderManifest, folder: Path) -> str:
    """Make the folder a package of its own for each build of it: two builds can be at work at a time."""
    build = hashlib.sha256(f"{folder}\0{manifest.build}".encode()).hexdigest()[:16]
    name = f"{DROPPED_IN}{manifest.domain}_{manifest.name}_{build}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    importlib.invalidate_caches()
    return name


def forget(manifest: ProviderManifest) -> dict[str, ModuleType]:
    """Take the modules of an installed provider out of use, and return them: the next load reads its files anew."""
    package = manifest.package
    if package is None:
        return {}
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


def restore(modules: Mapping[str, ModuleType]) -> None:
    """Take modules back into use."""
    sys.modules.update(modules)


def _missing(manifest: ProviderManifest, error: ModuleNotFoundError) -> ProviderError:
    hint = f"pip install 'erp-provider-layer[{manifest.extra}]'" if manifest.extra else "reinstall the provider"
    return ProviderError(
        ErrorCode.FAILED_PRECONDITION,
        f"The provider {manifest.ref} needs the module {error.name!r}, which is not installed. Mend: {hint}.",
        detail=str(error),
    )
