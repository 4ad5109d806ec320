"""Audit records as events of the Open Cybersecurity Schema Framework 1.8.0 (https://schema.ocsf.io/1.8.0/).

The mapping is total: whatever a record says, it becomes an event. What is stored and hashed stays the record; it
travels as ``raw_data``, and what proves it under ``unmapped.attestation``, named as in OCSF's ``record_integrity``.
"""

from __future__ import annotations

import datetime
import json
from typing import Any, NamedTuple

SCHEMA_VERSION = "1.8.0"
FORM = "1"
"""Of this mapping. Raised when the same record would become another event."""

PRODUCT = "ERP Provider Layer"
UNRECORDED = "not recorded"
OTHER = 99

Event = dict[str, Any]


class EventClass(NamedTuple):
    """A class of events (https://schema.ocsf.io/1.8.0/classes)."""

    category_uid: int
    category: str
    uid: int
    name: str


BASE_EVENT = EventClass(0, "Uncategorized", 0, "Base Event")
ACCOUNT_CHANGE = EventClass(3, "Identity & Access Management", 3001, "Account Change")
AUTHENTICATION = EventClass(3, "Identity & Access Management", 3002, "Authentication")
USER_ACCESS = EventClass(3, "Identity & Access Management", 3005, "User Access Management")
API_ACTIVITY = EventClass(6, "Application Activity", 6003, "API Activity")

_IDENTITY: dict[str, tuple[EventClass, int, str]] = {
    "auth.exchange": (AUTHENTICATION, 4, "Service Ticket Request"),
    "auth.verify": (AUTHENTICATION, 1, "Logon"),
    "keys.create": (ACCOUNT_CHANGE, 1, "Create"),
    "keys.change": (ACCOUNT_CHANGE, OTHER, "Change"),
    "keys.revoke": (ACCOUNT_CHANGE, 5, "Disable"),
    "break_glass.begin": (USER_ACCESS, 1, "Assign Privileges"),
    "break_glass.end": (USER_ACCESS, 2, "Revoke Privileges"),
    "break_glass.request": (USER_ACCESS, OTHER, "Request"),
}
_CREATES = frozenset({"create", "begin", "submit", "register", "publish", "upload"})
_API_ACTIVITIES = {1: "Create", 2: "Read", 3: "Update", 4: "Delete"}
_REFUSED = frozenset({"permission_denied", "unauthenticated"})


def event(tenant: str, seq: int, record: bytes, prev_hash: bytes, digest: bytes) -> Event:
    """Return the event of one record as it is stored; an empty record has lawfully been deleted."""
    if not record:
        made = _event_of(BASE_EVENT, OTHER, "Deleted", 0)
        made["message"] = f"Record {seq} was lawfully deleted; its hash stays."
    else:
        entry = json.loads(record)
        kind, activity, name = _classified(str(entry.get("action", "")), str(entry.get("effect", "")))
        made = _event_of(kind, activity, name, _milliseconds(entry.get("time")))
        _describe(made, entry)
        made["raw_data"] = record.decode()
    made["metadata"] |= {"uid": f"{tenant}/{seq}", "sequence": seq, "tenant_uid": tenant}
    attestation = {"chain_uid": tenant, "prev_event": prev_hash.hex(), "fingerprint": digest.hex()}
    made.setdefault("unmapped", {})["attestation"] = attestation
    return made


def checkpoint_event(tenant: str, size: int, note: str, made_at: int) -> Event:
    """Return the event that carries a signed checkpoint; ``made_at`` in microseconds."""
    made = _event_of(BASE_EVENT, OTHER, "Checkpoint", made_at // 1000)
    made["metadata"] |= {"uid": f"{tenant}/checkpoint/{size}", "tenant_uid": tenant}
    made["raw_data"] = note
    return made


def _event_of(kind: EventClass, activity: int, name: str, milliseconds: int) -> Event:
    return {
        "category_uid": kind.category_uid,
        "category_name": kind.category,
        "class_uid": kind.uid,
        "class_name": kind.name,
        "activity_id": activity,
        "activity_name": name,
        "type_uid": kind.uid * 100 + activity,
        "type_name": f"{kind.name}: {name}",
        "severity_id": 1,
        "severity": "Informational",
        "time": milliseconds,
        "metadata": {
            "version": SCHEMA_VERSION,
            "log_name": "audit",
            "log_version": FORM,
            "product": {"name": PRODUCT, "vendor_name": PRODUCT},
        },
    }


def _describe(made: Event, entry: Event) -> None:
    action, target, outcome = (str(entry.get(name, "")) for name in ("action", "target", "outcome"))
    actor, request = str(entry.get("actor", "")), str(entry.get("request_id", ""))
    if outcome in _REFUSED:
        made |= {"severity_id": 3, "severity": "Medium"}
    is_success = outcome == "ok"
    made |= {
        "status_id": 1 if is_success else 2,
        "status": "Success" if is_success else "Failure",
        "status_code": outcome,
        "status_detail": str(entry.get("reason", "")),
        "message": f"{actor} {action} {target}: {outcome}",
        "actor": {"user": {"uid": actor}},
        "api": {
            "operation": action,
            "service": {"name": action.partition(".")[0]},
            "request": {"uid": request},
        },
        "src_endpoint": {"name": UNRECORDED},
        "resources": [{"name": target}],
        "unmapped": {name: entry[name] for name in ("effect", "detail", "traceparent") if entry.get(name)},
    }
    made["metadata"]["correlation_uid"] = request
    _of_identity(made, action, target, actor, entry)


def _of_identity(made: Event, action: str, target: str, actor: str, entry: Event) -> None:
    """Add what the classes of identity require: whose account, and which privileges."""
    if made["class_uid"] == AUTHENTICATION.uid:
        made |= {"user": {"uid": actor}, "service": {"name": PRODUCT}}
    elif made["class_uid"] == ACCOUNT_CHANGE.uid:
        made["user"] = {"uid": f"key_{target}"}
    elif made["class_uid"] == USER_ACCESS.uid:
        detail = entry.get("detail") or {}
        made |= {"user": {"uid": str(detail.get("actor", actor))}, "privileges": [str(detail.get("role", ""))]}
    if action == "audit.delete":
        made |= {"severity_id": 3, "severity": "Medium"}


def _classified(action: str, effect: str) -> tuple[EventClass, int, str]:
    found = _IDENTITY.get(action)
    if found is not None:
        return found
    verb = action.rpartition(".")[2].partition("_")[0]
    activity = {"read": 2, "destructive": 4}.get(effect, 1 if verb in _CREATES else 3)
    return API_ACTIVITY, activity, _API_ACTIVITIES[activity]


def _milliseconds(text: object) -> int:
    try:
        return int(datetime.datetime.fromisoformat(str(text)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0
