"""Providers that do, or seem to do, what they have not declared."""

from __future__ import annotations

from typing import Any

from tests.conformance.saboteur import breaks

from erp.runtime.catalog import ProviderCatalog
from erp.runtime.spi import UNSET

AI, DB, STORAGE = "ai/local", "db/sqlite", "storage/filesystem"


def without(ref: str, capability: str) -> dict[str, Any]:
    """The manifest of ``ref`` with a capability withdrawn."""
    declared = ProviderCatalog.load().provider(*ref.split("/")).capabilities
    return {"capabilities": [one for one in declared if one != capability]}


@breaks("STORE-23", ref=STORAGE, manifest=without(STORAGE, "conditional_writes"))
class ConditionsAreTakenAndNotDeclared:
    """Nothing else is wrong with it."""


@breaks("STORE-31", ref=STORAGE, manifest=without(STORAGE, "ranges"))
class PartsAreReadAndNotDeclared:
    """Nothing else is wrong with it."""


@breaks("STORE-41", ref=STORAGE, manifest=without(STORAGE, "metadata"))
class MetadataAreTakenAndNotDeclared:
    """Nothing else is wrong with it."""


@breaks("DB-42", ref=DB, manifest=without(DB, "isolation_levels"))
class LevelsAreTakenAndNotDeclared:
    """Nothing else is wrong with it."""


@breaks("AI-24", ref=AI, manifest=without(AI, "multi_label"))
class SeveralLabelsAreGivenAndNotDeclared:
    """Nothing else is wrong with it."""


@breaks("AI-15", ref=AI)
class DimensionsAreOverlooked:
    async def embed(self, request: Any, context: Any) -> Any:
        request.dimensions = UNSET
        return await super().embed(request, context)  # type: ignore[misc]


@breaks("AI-33", ref=AI)
class MoneyIsOverlooked:
    async def generate(self, request: Any, context: Any) -> Any:
        request.budget = UNSET
        return await super().generate(request, context)  # type: ignore[misc]
