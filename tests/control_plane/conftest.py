"""Makers of what the journal is given."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from erp.runtime.ports import AuditEntry, Claim, OutboxEvent


class Makes:
    """``make.claim(key="a")``, ``make.audit()``, ``make.event(id="1")``: any fact can be given by name."""

    @staticmethod
    def claim(**facts: Any) -> Claim:
        given: dict[str, Any] = {
            "tenant": "acme",
            "actor": "key_1",
            "key": "c:1",
            "target": "cache/memory.set",
            "fingerprint": b"request",
            "token": uuid.uuid4().hex,
            "reentrant": True,
            "window_seconds": 60,
        }
        return Claim(**{**given, **facts})

    @staticmethod
    def audit(**facts: Any) -> AuditEntry:
        given: dict[str, Any] = {
            "tenant": "acme",
            "actor": "key_1",
            "action": "cache.set",
            "target": "cache/memory.set",
            "outcome": "ok",
            "reason": "done",
            "request_id": "req_1",
            "time": "2026-11-23T10:00:00.5+00:00",
            "effect": "write",
        }
        return AuditEntry(**{**given, **facts})

    @staticmethod
    def event(**facts: Any) -> OutboxEvent:
        given: dict[str, Any] = {
            "tenant": "acme",
            "id": "event-1",
            "topic": "service.events.order.submitted",
            "type": "erp.order.submitted",
            "source": "/services/order",
            "time": "2026-11-23T10:00:00Z",
            "data": {"total": "19.90"},
        }
        return OutboxEvent(**{**given, **facts})


@pytest.fixture
def empty_file(migrated_file: Path, tmp_path: Path) -> Path:
    """A SQLite control plane with nothing in it, in ``tmp_path``."""
    return Path(shutil.copy(migrated_file, tmp_path / "control.db"))


@pytest.fixture
def make() -> Makes:
    """Makers with sensible facts."""
    return Makes()
