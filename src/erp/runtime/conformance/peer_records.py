"""The records the kit's peer keeps behind its JSON interface.

``/products`` lists them in the order of their change (``limit``, ``cursor``, ``since`` in seconds since 1970) and creates one;
``/products/{sku}`` is one of them; ``/jobs/{name}`` starts something. Without the bearer token everything is 401.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any, Protocol

TOKEN = "conformance-token-of-the-kit"  # noqa: S105  (guards a toy)
Answered = tuple[int, Any]


class Asked(Protocol):
    """What is needed of a request."""

    @property
    def method(self) -> str: ...
    @property
    def segments(self) -> list[str]: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def document(self) -> Any: ...


class PeerRecords:
    """Products by their ``sku``; a deleted one stays listed as deleted."""

    def __init__(self) -> None:
        self._products: dict[str, dict[str, Any]] = {}
        self._changes = itertools.count(1)
        self.started: list[tuple[str, Any]] = []
        """Name and body of the jobs, oldest first."""

    @property
    def skus(self) -> list[str]:
        """Of the products that are not deleted."""
        return [sku for sku, product in self._products.items() if not product["deleted"]]

    def answer(self, request: Asked) -> Answered:
        """Status and document."""
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "the token is not known"}
        kind, *rest = request.segments
        method = request.method
        if kind == "jobs" and rest and method == "POST":
            self.started.append((rest[0], request.document))
            return 200, {"started": rest[0]}
        if kind != "products":
            return 404, {"error": "no such path"}
        if rest:
            return self._one(method, rest[0], request.document)
        return self._created(request.document) if method == "POST" else self._listed(request.query)

    def _listed(self, query: Mapping[str, str]) -> Answered:
        after, since = int(query.get("cursor", "0")), float(query.get("since", "0"))
        found = [one for one in self._products.values() if one["rev"] > after and one["changed"] >= since]
        found.sort(key=lambda one: int(one["rev"]))
        page = found[: int(query.get("limit", "100"))]
        return 200, {"items": page, "next": str(page[-1]["rev"]) if len(page) < len(found) else None}

    def _created(self, body: dict[str, Any]) -> Answered:
        known = self._products.get(body["sku"])
        if known is not None and not known["deleted"]:
            return 409, {"error": "exists"}
        return 201, self._changed(body["sku"], {}, body)

    def _one(self, method: str, sku: str, body: Any) -> Answered:
        known = self._products.get(sku)
        if known is None or known["deleted"]:
            return 404, {"error": "no such product"}
        if method == "GET":
            return 200, known
        if method == "DELETE":
            self._changed(sku, {}, {}, deleted=True)
            return 204, None
        return 200, self._changed(sku, known, body)

    def _changed(
        self, sku: str, before: dict[str, Any], fields: dict[str, Any], *, deleted: bool = False
    ) -> dict[str, Any]:
        facts = {"sku": sku, "id": f"p-{sku}", "rev": next(self._changes), "changed": int(time.time())}
        self._products[sku] = {**before, **fields, **facts, "deleted": deleted}
        return self._products[sku]
