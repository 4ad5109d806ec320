"""The typed view of a ``provider.yaml``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec


class ProviderManifest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a provider is. Authored in YAML, run from the generated catalog."""

    ref: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]*/[a-z][a-z0-9_]*$")]
    title: str
    summary: str
    version: str
    contract: str
    stability: Literal["experimental", "alpha", "beta", "stable", "deprecated"]
    implementation: str
    config: dict[str, Any]
    capabilities: list[str] = []
    homepage: str | None = None
    extra: str | None = None
    embedded: bool = False
    default: bool = False
    """Serves its domain where a tenant has configured nothing."""
    scope: Literal["process", "host", "shared"] = "shared"
    authentication: list[dict[str, Any]] = []
    limits: dict[str, float] = {}
    idempotency_keys: bool = False
    sql: dict[str, Any] = {}
    """Of databases: the SQL that the engine speaks."""
    conformance: dict[str, Any] = {}
    package: str | None = None
    """Importable package of the folder; None for a drop-in directory."""
    folder: Path | None = None
    """The folder itself, for a drop-in directory."""
    build: str | None = None
    """Digest of the code of a provider that this distribution does not bring: a new one is a new provider."""

    @property
    def domain(self) -> str:
        """``cache`` of ``cache/redis``."""
        return self.ref.partition("/")[0]

    @property
    def name(self) -> str:
        """``redis`` of ``cache/redis``."""
        return self.ref.partition("/")[2]

    @cached_property
    def secret_fields(self) -> tuple[str, ...]:
        """Configuration properties whose values are stored as secrets."""
        properties = self.config.get("properties", {})
        return tuple(name for name, schema in properties.items() if schema.get("x-erp-secret"))

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Configuration values used where a connection states none."""
        properties = self.config.get("properties", {})
        return {name: schema["default"] for name, schema in properties.items() if "default" in schema}

    @property
    def needs_configuration(self) -> bool:
        """False when a tenant can use the provider without configuring it."""
        return not self.embedded or bool(self.config.get("required"))
