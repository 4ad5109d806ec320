"""Rules by which objects are removed: those of a prefix, so many days after they were written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from erp.contracts.models.storage import LifecycleRule
from erp.providers.storage.filesystem.objects import Head, ObjectFolder

DAY_SECONDS = 24 * 3600.0


class Lifecycle:
    """The rules of one tenant and connection."""

    def __init__(self, file: Path, objects: ObjectFolder) -> None:
        self._file = file
        self._objects = objects

    def rules(self) -> list[LifecycleRule]:
        """Return the rules."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=list[LifecycleRule])
        except FileNotFoundError:
            return []

    def replace(self, rules: list[LifecycleRule]) -> None:
        """Keep exactly these rules, durably."""
        aside = self._file.with_suffix(".new")
        with aside.open("wb") as file:
            file.write(msgspec.json.encode(rules))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._file)

    def apply(self) -> dict[str, int]:
        """Remove what is old enough; return how many by which rule."""
        rules, now = self.rules(), time.time()
        removed: dict[str, int] = {}
        for key, entry in self._objects.entries() if rules else ():
            rule = _expiring(rules, key)
            # The file is about as old as its head says; only those that may be over are opened.
            if rule is None or _written_at(entry) > now - (rule.expire_after_days - 1) * DAY_SECONDS:
                continue
            head = self._objects.head(key)
            if head is not None and _is_over(head, rule, now) and self._objects.delete_if(head):
                removed[rule.id] = removed.get(rule.id, 0) + 1
        return removed


def _expiring(rules: list[LifecycleRule], key: str) -> LifecycleRule | None:
    """Return the rule that removes an object first."""
    matching = (rule for rule in rules if key.startswith(rule.prefix))
    return min(matching, key=lambda rule: rule.expire_after_days, default=None)


def _written_at(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _is_over(head: Head, rule: LifecycleRule, now: float) -> bool:
    return head.modified_at <= now - rule.expire_after_days * DAY_SECONDS
