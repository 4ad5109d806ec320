"""What has to be done so that a server has what a file says, in the order in which it can be done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from erp.cli.state.resources import (
    KEYS,
    SECTIONS,
    TENANTS,
    Change,
    Facts,
    Kind,
    Present,
    has_ended,
)
from erp.cli.state.server import Server

PLATFORM = "platform"


@dataclass(frozen=True)
class Allowed:
    """What `erp apply` was told it may do beside making and changing things."""

    prune: bool = False
    prune_tenants: bool = False
    create_keys: bool = False

    def option(self, change: Change) -> str | None:
        """Return the option that a change still needs; None when it may be done."""
        if change.verb == "remove" and change.kind is TENANTS:
            return None if self.prune_tenants else "--prune-tenants"
        if change.verb == "remove":
            return None if self.prune else "--prune"
        if change.verb == "create" and change.kind is KEYS:
            return None if self.create_keys else "--create-keys"
        return None


@dataclass(frozen=True)
class Snapshot:
    """What a server has, as far as a file is about it."""

    tenants: dict[str, Present]
    sections: dict[tuple[str, str], dict[str, Present]] = field(default_factory=dict)
    """(tenant, section) -> what is there by name."""

    def of(self, tenant: str, kind: Kind) -> dict[str, Present]:
        """Return what a tenant has of one kind."""
        return self.sections.get((tenant, kind.section), {})


@dataclass(frozen=True)
class Plan:
    """Changes in the order in which they can be made."""

    changes: list[Change]
    unnamed: list[str] = field(default_factory=list)
    """Tenants that the server has and the file does not name."""

    def doable(self, allowed: Allowed) -> list[Change]:
        """Return what may be done."""
        return [change for change in self.changes if allowed.option(change) is None]


def sections_of(state: dict[str, Any], tenant: str) -> list[tuple[Kind, dict[str, Any]]]:
    """Return the sections that a file has for ``tenant``, with their entries."""
    entry = state["tenants"].get(tenant) or {}
    return [(kind, entry[kind.section]) for kind in SECTIONS if kind.section in entry]


def snapshot(server: Server, state: dict[str, Any]) -> Snapshot:
    """Read what a server has of the sections that ``state`` is about."""
    tenants = TENANTS.present(server)
    sections = {
        (tenant, kind.section): kind.present(server, tenant)
        for tenant in sorted(state["tenants"])
        if tenant in tenants
        for kind, _ in sections_of(state, tenant)
    }
    return Snapshot(tenants, sections)


def planned(state: dict[str, Any], found: Snapshot, *, prune_tenants: bool = False) -> Plan:
    """Compare a valid state with what a server has."""
    changes = list(_changes(TENANTS, "", TENANTS.wanted(state["tenants"]), found.tenants))
    unnamed = [change.name for change in changes if change.verb == "remove" and change.name != PLATFORM]
    made = [change for change in changes if change.verb != "remove"]
    gone = [change for change in changes if change.name in unnamed] if prune_tenants else []
    later = [
        change
        for kind in SECTIONS
        for tenant in sorted(state["tenants"])
        for own, entries in sections_of(state, tenant)
        if own is kind
        for change in _changes(kind, tenant, kind.wanted(entries), found.of(tenant, kind))
    ]
    made += [change for change in later if change.verb != "remove" and not _is_past(change)]
    made.sort(key=_gives_up_default)  # so that a domain whose default moves is never without one
    removed = [change for change in later if change.verb == "remove"]
    return Plan([*made, *reversed(removed), *gone], unnamed)


def _gives_up_default(change: Change) -> bool:
    return bool((change.before or {}).get("default")) and not (change.after or {}).get("default")


def _changes(kind: Kind, tenant: str, wanted: dict[str, Facts], present: dict[str, Present]) -> list[Change]:
    found = []
    for name in sorted(wanted.keys() | present.keys()):
        owner, known = tenant or name, present.get(name)
        change = Change(kind, owner, name, "create", None, wanted.get(name))
        if known is not None:
            change = replace(change, verb="change", before=known.facts, revision=known.revision, id=known.id)
        if name not in wanted:
            change = replace(change, verb="remove")
        if change.verb != "change" or differences(change):
            found.append(change)
    return found


def _is_past(change: Change) -> bool:
    """A key that has ended needs not be made."""
    return change.kind is KEYS and change.verb == "create" and has_ended((change.after or {})["expires_at"])


def differences(change: Change) -> list[tuple[str, Any, Any]]:
    """Return (field, before, after) of what is not the same; fields inside fields with dots. None: not there."""
    if change.verb == "remove":
        return []
    before, after = change.before or {}, change.after or {}
    found = [item for name in after for item in _different(name, before.get(name), after[name])]
    is_new = change.before is None
    return [item for item in found if not (is_new and item[2] in (None, {}, [], False))]


def _different(name: str, before: Any, after: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(after, dict) and (before is None or isinstance(before, dict)) and (before or after):
        inside = dict.fromkeys([*(before or {}), *after])
        return [
            item for part in inside for item in _different(f"{name}.{part}", (before or {}).get(part), after.get(part))
        ]
    if isinstance(before, dict) and after is None:
        return [item for part in before for item in _different(f"{name}.{part}", before[part], None)]
    return [] if before == after else [(name, before, after)]
