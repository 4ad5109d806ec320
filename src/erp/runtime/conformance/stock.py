"""The records of the peer that cases may write: those of the object that ``conformance.records`` of the manifest names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from erp.runtime.conformance.bench import require

if TYPE_CHECKING:
    from erp.runtime.conformance.bench import Bench


class Stock:
    """Writes and reads records as callers do."""

    def __init__(self, bench: Bench) -> None:
        declared: Mapping[str, Any] = bench.manifest.conformance["records"]
        self._bench = bench
        self.object: str = declared["object"]
        self.key: str = declared["key"]
        self.text, self.note = declared["fields"][:2]
        """Two fields that hold any text, or null."""

    def keys(self, name: str) -> dict[str, str]:
        """The keys of the record ``name``."""
        return {self.key: name}

    def record(self, name: str, text: str = "a text", **fields: Any) -> dict[str, Any]:
        """A record to be written."""
        return {"keys": self.keys(name), "fields": {self.text: text, **fields}}

    def named(self, count: int) -> list[str]:
        """Names nobody has used."""
        return [self._bench.unique("SKU") for _ in range(count)]

    def params(self, records: Sequence[Mapping[str, Any]], **further: Any) -> dict[str, Any]:
        """The parameters of ``upsert`` and ``delete``."""
        return {"object": self.object, "records": list(records), **further}

    async def put(self, *names: str, text: str = "a text") -> list[Any]:
        """Write records; return their outcomes."""
        written = await self._bench.call("upsert", self.params([self.record(name, text) for name in names]))
        return list(written["outcomes"])

    async def delete(self, *names: str) -> list[Any]:
        """Delete records; return their outcomes."""
        deleted = await self._bench.call("delete", self.params([{"keys": self.keys(name)} for name in names]))
        return list(deleted["outcomes"])

    async def fetch(self, *names: str, **further: Any) -> list[Any]:
        """Read records, found or not; from the list where they cannot be read by their keys."""
        if not self._bench.declares("fetch"):
            return [await self._listed(name) for name in names]
        params = {"object": self.object, "keys": [self.keys(name) for name in names], **further}
        return list((await self._bench.call("fetch", params))["records"])

    async def _listed(self, name: str) -> Any:
        found, _ = await self.changes({"start": "beginning"})
        mine = [one for one in found if one["keys"] == self.keys(name) and one["kind"] == "changed"]
        return {**mine[-1], "found": True} if mine else {"keys": self.keys(name), "found": False}

    async def texts(self, *names: str) -> list[Any]:
        """The text of each record; None of those that are not there."""
        return [one["fields"][self.text] if one["found"] else None for one in await self.fetch(*names)]

    async def page(self, **params: Any) -> Any:
        """One page of changes."""
        return await self._bench.call("sync", {"object": self.object, **params})

    async def changes(self, start: Mapping[str, Any], *, limit: int = 100) -> tuple[list[Any], str]:
        """Read changes to the end; return them and the checkpoint."""
        page = await self.page(**start, limit=limit)
        found = list(page["changes"])
        for _ in range(200):
            if not page["more"]:
                return found, page["checkpoint"]
            page = await self.page(start="checkpoint", checkpoint=page["checkpoint"], limit=limit)
            require(len(page["changes"]) <= limit, f"a page of {limit} has {len(page['changes'])} changes")
            found += page["changes"]
        require(False, "reading the changes does not come to an end")  # noqa: FBT003  (always fails)
        return found, page["checkpoint"]

    def names(self, changes: Sequence[Mapping[str, Any]], kind: str = "changed") -> list[str]:
        """The names of the records that changes of a kind are about."""
        return [one["keys"][self.key] for one in changes if one["kind"] == kind]
