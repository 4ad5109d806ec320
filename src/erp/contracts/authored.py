"""Reads what people wrote: contracts, errors, gateway operations and provider manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PACKAGE = HERE.parent


class AuthoredError(Exception):
    """An authored file is wrong. The message names the file, the place and the mend."""


@dataclass(frozen=True)
class Contract:
    """One domain or service as authored."""

    kind: str
    """``domain`` or ``service``."""
    name: str
    path: Path
    document: dict[str, Any]

    @property
    def definitions(self) -> dict[str, Any]:
        """Schemas that the file's other schemas refer to."""
        found: dict[str, Any] = self.document.get("$defs", {})
        return found

    @property
    def actions(self) -> dict[str, dict[str, Any]]:
        """Actions by name."""
        found: dict[str, dict[str, Any]] = self.document["actions"]
        return found

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        """Events by name."""
        found: dict[str, dict[str, Any]] = self.document.get("events") or {}
        return found


@dataclass(frozen=True)
class Authored:
    """Everything people wrote."""

    errors: dict[str, dict[str, Any]]
    gateway: dict[str, Any]
    domains: dict[str, Contract]
    services: dict[str, Contract]
    manifests: dict[str, dict[str, Any]]
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def contracts(self) -> list[Contract]:
        """Domains, then services."""
        return [*self.domains.values(), *self.services.values()]


_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C, where PyYAML has it, reads the same about six times as fast."""


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, or raise ``AuthoredError`` naming line and column."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506  (a safe one)
    except yaml.YAMLError as error:
        message = f"{path}: not YAML: {error}. How to fix: quote texts that contain ': ' or start with a symbol."
        raise AuthoredError(message) from error
    if not isinstance(document, dict):
        message = f"{path}: the file must hold a mapping."
        raise AuthoredError(message)
    return document


def contract(path: Path) -> Contract:
    """Return one contract file."""
    document = load_yaml(path)
    kind = "service" if "service" in document else "domain"
    name = document.get(kind)
    if name != path.stem:
        message = f"{path}: {kind}: {name!r} must equal the file's name. How to fix: write {kind}: {path.stem}."
        raise AuthoredError(message)
    return Contract(kind, path.stem, path, document)


def read(package: Path = PACKAGE) -> Authored:
    """Return everything authored in a source tree."""
    here = package / "contracts"
    domains = [contract(path) for path in sorted((here / "domains").glob("*.yaml"))]
    services = [contract(path) for path in sorted((here / "services").glob("*.yaml"))]
    manifests = {
        str(path.parent.relative_to(package / "providers")): load_yaml(path)
        for path in sorted((package / "providers").glob("*/*/provider.yaml"))
    }
    return Authored(
        errors=load_yaml(here / "errors.yaml")["errors"],
        gateway=load_yaml(here / "gateway.yaml"),
        domains={item.name: item for item in domains},
        services={item.name: item for item in services},
        manifests=manifests,
        schemas={path.stem: load_yaml(path) for path in sorted((here / "schemas").glob("*.yaml"))},
    )
