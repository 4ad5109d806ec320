"""Imports the implementation a manifest names. The only place that says what to install."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from types import ModuleType

    from erp.runtime.manifest import ProviderManifest


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
    except ModuleNotFoundError as error:
        raise _missing(manifest, error) from error
    except Exception as error:
        message = f"The provider {manifest.ref} is broken: {manifest.implementation} cannot be loaded."
        raise ProviderError(ErrorCode.INTERNAL, message, detail=f"{type(error).__name__}: {error}") from error
    return found


def _module(manifest: ProviderManifest, name: str) -> ModuleType:
    if "." in name or manifest.folder is None:
        return importlib.import_module(name if "." in name else f"{manifest.package}.{name}")
    unique = f"erp_drop_in.{manifest.domain}.{manifest.name}.{name}".replace(".", "_")
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, manifest.folder / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def _missing(manifest: ProviderManifest, error: ModuleNotFoundError) -> ProviderError:
    hint = f"pip install 'erp-provider-layer[{manifest.extra}]'" if manifest.extra else "reinstall the provider"
    return ProviderError(
        ErrorCode.FAILED_PRECONDITION,
        f"The provider {manifest.ref} needs the module {error.name!r}, which is not installed. Mend: {hint}.",
        detail=str(error),
    )
