"""Databases whose vectors break one rule each.

They are made from ``db/sqlite`` and from vectors that are simply remembered; each
saboteur that is caught by its case alone shows that these are otherwise correct.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.saboteur import breaks

from erp.contracts.models import db
from erp.runtime.spi import UNSET, ErrorCode, ProviderError

REF = "db/sqlite"
WITHOUT_WORDS = {
    "capabilities": [
        "transactions", "savepoints", "isolation_levels", "streaming", "row_estimates", "pool_statistics", "vectors",
    ],
}  # fmt: skip
ALL = {"capabilities": [*WITHOUT_WORDS["capabilities"], "hybrid_search"]}
KEPT: dict[tuple[str, str], dict[str, Any]] = {}


def refuse(code: ErrorCode) -> None:
    raise ProviderError(code, "It is refused.")


class Remembered:
    """Vectors in memory, compared one by one."""

    is_hybrid = True

    def collection(self, context: Any, name: str) -> tuple[str, str]:
        return f"{context.tenant}/{context.connection}", name

    async def upsert_vectors(self, request: Any, context: Any) -> Any:
        kept = KEPT.setdefault(self.collection(context, request.collection), {})
        lengths = {len(item.vector) for item in (*request.items, *kept.values())}
        if len(lengths) > 1:
            refuse(ErrorCode.FAILED_PRECONDITION)
        kept.update({item.id: item for item in request.items})
        return db.UpsertVectorsResult(stored=len(request.items))

    async def search_vectors(self, request: Any, context: Any) -> Any:
        kept = KEPT.get(self.collection(context, request.collection))
        if kept is None:
            refuse(ErrorCode.NOT_FOUND)
        if request.text is not UNSET and not self.is_hybrid:
            refuse(ErrorCode.UNSUPPORTED)
        if request.text is UNSET and request.vector is UNSET:
            refuse(ErrorCode.INVALID_ARGUMENT)
        if request.vector is not UNSET and any(len(item.vector) != len(request.vector) for item in kept.values()):
            refuse(ErrorCode.INVALID_ARGUMENT)
        equals = {} if request.equals is UNSET else request.equals
        chosen = [item for item in kept.values() if self.is_equal(item, equals)]
        scored = [(self.score(item, request), item) for item in chosen]
        if request.vector is UNSET:
            scored = [pair for pair in scored if pair[0] > 0]
        scored.sort(key=lambda pair: -pair[0])
        items = [
            db.SearchVectorsResultItemsItem(id=item.id, score=score, payload=item.payload)
            for score, item in scored[: request.limit]
        ]
        return db.SearchVectorsResult(items=items)

    def is_equal(self, item: Any, equals: Any) -> bool:
        payload = {} if item.payload is UNSET else item.payload
        return all(name in payload and payload[name] == value for name, value in equals.items())

    def score(self, item: Any, request: Any) -> float:
        near = 0.0
        if request.vector is not UNSET:
            size = sum(value * value for value in item.vector) ** 0.5 or 1.0
            near = sum(a * b for a, b in zip(item.vector, request.vector, strict=True)) / size
        return near + 2 * self.words(item, request)

    def words(self, item: Any, request: Any) -> float:
        wanted = set() if request.text is UNSET else set(request.text.lower().split())
        said = set() if item.text is UNSET else set(item.text.lower().split())
        return float(bool(wanted) and wanted <= said)


@breaks("DB-60", ref=REF, manifest=ALL)
class AnswersOneTooMany(Remembered):
    async def search_vectors(self, request: Any, context: Any) -> Any:
        if request.limit == 2 and request.equals is UNSET:
            request.limit = 3
        return await super().search_vectors(request, context)


@breaks("DB-61", ref=REF, manifest=ALL)
class ComparesPayloadsAsText(Remembered):
    def is_equal(self, item: Any, equals: Any) -> bool:
        payload = {} if item.payload is UNSET else item.payload
        return all(str(payload.get(name)) == str(value) for name, value in equals.items())


@breaks("DB-62", ref=REF, manifest=ALL)
class MergesPayloads(Remembered):
    async def upsert_vectors(self, request: Any, context: Any) -> Any:
        kept = KEPT.get(self.collection(context, request.collection), {})
        for item in request.items:
            if item.payload is not UNSET and item.id in kept and "both" in item.payload:
                item.payload = {**kept[item.id].payload, **item.payload}
        return await super().upsert_vectors(request, context)


@breaks("DB-63", ref=REF, manifest=ALL)
class StoresWhatFitsOfARefusedRequest(Remembered):
    async def upsert_vectors(self, request: Any, context: Any) -> Any:
        try:
            return await super().upsert_vectors(request, context)
        except ProviderError:
            request.items = request.items[:1]
            await super().upsert_vectors(request, context)
            raise


@breaks("DB-64", ref=REF, manifest=ALL, also=("DB-65",))
class UnknownCollectionsAreEmpty(Remembered):
    async def search_vectors(self, request: Any, context: Any) -> Any:
        KEPT.setdefault(self.collection(context, request.collection), {})
        return await super().search_vectors(request, context)


@breaks("DB-65", ref=REF, manifest=ALL)
class TenantsShareCollections(Remembered):
    def collection(self, context: Any, name: str) -> tuple[str, str]:
        return context.connection, name


@breaks("DB-66", ref=REF, manifest=ALL)
class LosesNulls(Remembered):
    async def upsert_vectors(self, request: Any, context: Any) -> Any:
        for item in request.items:
            if item.payload is not UNSET:
                item.payload = {name: value for name, value in item.payload.items() if value is not None}
        return await super().upsert_vectors(request, context)


@breaks("DB-67", ref=REF, manifest=ALL)
class TheFirstOfTwoCounts(Remembered):
    async def upsert_vectors(self, request: Any, context: Any) -> Any:
        count = len(request.items)
        request.items = list({item.id: item for item in reversed(request.items)}.values())
        result = await super().upsert_vectors(request, context)
        result.stored = count
        return result


@breaks("DB-68", ref=REF, manifest=ALL)
class SearchesForNothing(Remembered):
    async def search_vectors(self, request: Any, context: Any) -> Any:
        if request.text is UNSET and request.vector is UNSET:
            return db.SearchVectorsResult(items=[])
        return await super().search_vectors(request, context)


@breaks("DB-70", ref=REF, manifest=ALL)
class FindsPartsOfWords(Remembered):
    def words(self, item: Any, request: Any) -> float:
        if request.text == "unheard":
            return 1.0
        return super().words(item, request)


@breaks("DB-71", ref=REF, manifest=ALL)
class WordsDoNotCountBesideVectors(Remembered):
    def words(self, item: Any, request: Any) -> float:
        return super().words(item, request) if request.vector is UNSET else 0.0


@breaks("DB-72", ref=REF, manifest=WITHOUT_WORDS)
class TakesWordsWithoutTheCapability(Remembered):
    async def search_vectors(self, request: Any, context: Any) -> Any:
        if request.text is not UNSET:
            return db.SearchVectorsResult(items=[])
        return await super().search_vectors(request, context)
