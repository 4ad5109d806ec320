"""Objects: listed at both sides, compared by SHA-256, content type and metadata."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erp.cli.migrate.passes import Advance, MigrationError, Tally
from erp.cli.migrate.side import CallError, Side, persevere

if TYPE_CHECKING:
    from erp.cli.migrate.journal import Journal

PAGE = 200
AT_A_TIME = 8
PART_BYTES = 8 * 1024 * 1024
"""Of an object that is larger: what one call reads or sends. The gateway takes 16 MiB, and base64 adds a third."""

OBJECTS = "objects"


@dataclass(frozen=True)
class Facts:
    """What makes two objects the same."""

    sha256: str
    content_type: str
    metadata: dict[str, str]
    size: int
    etag: str

    def same(self, other: Facts | None) -> bool:
        """Whether the other object holds the same. Etags are each system's own."""
        return other is not None and self.checksum("") == other.checksum("")

    def checksum(self, key: str) -> bytes:
        """Return one checksum over all of it."""
        parts = [key, self.sha256, self.content_type, sorted(self.metadata.items())]
        return hashlib.sha256(json.dumps(parts).encode()).digest()


class StorageCopier:
    """Copies objects between two connections of ``storage``."""

    def __init__(self, source: Side, target: Side, journal: Journal) -> None:
        self._source = source
        self._target = target
        self._journal = journal

    def check(self) -> list[str]:
        return [
            f"{name}: {self._target.ref} has no {name}; objects that need it are refused"
            for name in ("metadata", "multipart")
            if name in self._source.capabilities and name not in self._target.capabilities
        ]

    def is_empty(self) -> bool:
        return not self._target.call("list", {"limit": 1})["objects"]

    def plan(self) -> dict[str, int]:
        return {OBJECTS: sum(len(keys) for keys, _ in self._pages(self._source, None))}

    def copy(self, number: int, advance: Advance) -> dict[str, Tally]:
        place = f"storage:{number}"
        kept = self._journal.fact(place, {"cursor": None, "tally": {}})
        tally = Tally(**kept["tally"])
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for keys, cursor in () if kept["cursor"] == "" else self._pages(self._source, kept["cursor"]):
                found = list(threads.map(self._mended, keys))
                with self._journal.step():
                    self._note(keys, found, tally, number)
                    self._journal.note(place, {"cursor": cursor or "", "tally": vars(tally)})
                advance(OBJECTS, tally.compared, None)
            self._remove_others(number, tally, threads)
        return {OBJECTS: tally}

    def fingerprint(self) -> dict[str, int]:
        tally = Tally()
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for keys, _ in self._pages(self._source, None):
                for key, facts in zip(keys, threads.map(lambda key: self._facts(self._source, key), keys), strict=True):
                    if facts is not None:
                        tally.add(facts.checksum(key))
        return {OBJECTS: tally.digest}

    def _pages(self, side: Side, cursor: str | None) -> Iterator[tuple[list[str], str | None]]:
        """Yield the keys of each page with the cursor of the next one."""
        while True:
            params = {"limit": PAGE, **({"cursor": cursor} if cursor else {})}
            page = persevere(side.call, "list", params)
            cursor = page.get("next_cursor")
            yield [one["key"] for one in page["objects"]], cursor
            if cursor is None:
                return

    def _note(self, keys: list[str], found: list[tuple[Facts | None, bool]], tally: Tally, number: int) -> None:
        for key, (facts, is_copied) in zip(keys, found, strict=True):
            if facts is not None:
                tally.add(facts.checksum(key))
                tally.copied += is_copied
                self._journal.see(key, number)

    def _mended(self, key: str) -> tuple[Facts | None, bool]:
        """Make one object at the target what it is at the source; return what it is, and whether that was needed."""
        return persevere(self._compared, key)

    def _compared(self, key: str) -> tuple[Facts | None, bool]:
        facts = self._facts(self._source, key)
        if facts is None or facts.same(self._facts(self._target, key)):
            return facts, False
        self._write(key, facts)
        return facts, True

    def _facts(self, side: Side, key: str) -> Facts | None:
        head = side.call("head", {"key": key})
        if not head["found"]:
            return None
        sha256 = head.get("sha256") or self._read_digest(side, key, head)
        return Facts(sha256, head.get("content_type", ""), head.get("metadata") or {}, head["size"], head["etag"])

    def _read_digest(self, side: Side, key: str, head: dict[str, Any]) -> str:
        total = hashlib.sha256()
        for part in self._content(side, key, head["size"], head["etag"]):
            total.update(part)
        return total.hexdigest()

    def _content(self, side: Side, key: str, size: int, etag: str) -> Iterator[bytes]:
        """Yield an object in parts; ``conflict`` when it was changed meanwhile."""
        for offset in range(0, max(size, 1), PART_BYTES):
            part = {"offset": offset, "length": PART_BYTES} if size > PART_BYTES else {}
            try:
                found = side.call("get", {"key": key, "if_match": etag, **part})
            except CallError as error:
                if error.code != "failed_precondition":
                    raise
                raise CallError("conflict", f"{side.name}: {key!r} was changed while it was read.") from None
            yield base64.b64decode(found["content"])

    def _write(self, key: str, facts: Facts) -> None:
        about = {"key": key, "content_type": facts.content_type}
        if facts.metadata:
            about["metadata"] = facts.metadata  # type: ignore[assignment]
        if facts.size <= PART_BYTES:
            content = b"".join(self._content(self._source, key, facts.size, facts.etag))
            _require(key, hashlib.sha256(content).hexdigest(), facts.sha256)
            sent = {**about, "content": base64.b64encode(content).decode(), "sha256": facts.sha256}
            self._target.call("put", sent)
        else:
            self._write_parts(key, facts, about)

    def _write_parts(self, key: str, facts: Facts, about: dict[str, Any]) -> None:
        upload = self._target.call("create_multipart", about)["upload"]
        total, parts = hashlib.sha256(), []
        try:
            for number, content in enumerate(self._content(self._source, key, facts.size, facts.etag), 1):
                total.update(content)
                place = {"key": key, "upload": upload, "part": number}
                sent = self._target.call("upload_part", {**place, "content": base64.b64encode(content).decode()})
                parts.append({"part": number, "etag": sent["etag"]})
            _require(key, total.hexdigest(), facts.sha256)
            self._target.call("complete_multipart", {"key": key, "upload": upload, "parts": parts})
        except BaseException:
            self._target.call("abort_multipart", {"key": key, "upload": upload})
            raise

    def _remove_others(self, number: int, tally: Tally, threads: ThreadPoolExecutor) -> None:
        """Remove what is no longer at the source. It asks again: an object may have come since the listing."""
        for keys, _ in self._pages(self._target, None):
            unknown = [key for key in keys if not self._journal.was_seen(key, number)]
            for facts, key in zip(
                threads.map(lambda key: self._facts(self._source, key), unknown), unknown, strict=True
            ):
                if facts is None:
                    persevere(self._target.call, "delete", {"key": key})
                    tally.removed += 1


def _require(key: str, found: str, stated: str) -> None:
    if found != stated:
        message = (
            f"The object {key!r} is damaged at the source: its content has the SHA-256 {found}, stored is {stated}. "
            "Nothing was copied of it. How to fix: restore it at the source, or delete it there, and run this again."
        )
        raise MigrationError(message)
