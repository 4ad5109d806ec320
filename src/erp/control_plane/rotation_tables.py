"""The tables about the rotation of secrets: which versions are to be destroyed, and what is rotated by itself."""

from __future__ import annotations

import sqlalchemy as sa

from erp.control_plane.tables import _number, _owner, _text, metadata

secret_retirements = sa.Table(
    "secret_retirements",
    metadata,
    _owner(),
    _text("path", key=True),
    _number("version", key=True),
    _number("overlap"),
    _number("due_at"),
    _number("runs_at"),
    _text("version_id", optional=True),
    _number("over_at", optional=True),
    sa.Index(None, "runs_at"),
    comment="versions to be destroyed; runs_at: due_at, or the end of a lease when that is later",
)

secret_schedules = sa.Table(
    "secret_schedules",
    metadata,
    _owner(),
    _text("name", key=True),
    _text("plan"),
    _text("revision"),
    _text("created_by"),
    _number("due_at"),
    _number("runs_at"),
    _number("leased_until"),
    _number("failures"),
    _text("failure", optional=True),
    _number("failed_at", optional=True),
    _number("rotated_at", optional=True),
    _text("reference", optional=True),
    sa.Index(None, "runs_at"),
    comment="runs_at: due_at, the time of the next try, or the end of a lease",
)
