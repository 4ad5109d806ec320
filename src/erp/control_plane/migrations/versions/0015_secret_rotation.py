"""Secrets: versions in use by connections, versions to be destroyed, rotations on a schedule.

Revision: 0015
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("connections", _text("secret_versions", optional=True))
    _table(
        "secret_retirements",
        ("path", "version"),
        *(_text("path"), _number("version"), _number("overlap"), _number("due_at"), _number("runs_at")),
        comment="versions to be destroyed; runs_at: due_at, or the end of a lease when that is later",
    )
    _table(
        "secret_schedules",
        ("name",),
        *(_text(name) for name in ("name", "plan", "revision", "created_by")),
        *(_number(name) for name in ("due_at", "runs_at", "leased_until", "failures")),
        _text("failure", optional=True),
        *(_number(name, optional=True) for name in ("failed_at", "rotated_at")),
        _text("reference", optional=True),
        comment="runs_at: due_at, the time of the next try, or the end of a lease",
    )


def downgrade() -> None:
    op.drop_table("secret_schedules")
    op.drop_table("secret_retirements")
    op.drop_column("connections", "secret_versions")


def _table(name: str, key: tuple[str, ...], *columns: sa.Column[Any], comment: str) -> None:
    op.create_table(
        name,
        _text("tenant"),
        *columns,
        sa.PrimaryKeyConstraint("tenant", *key, name=op.f(f"pk_{name}")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f(f"fk_{name}_tenant"), ondelete="CASCADE"),
        comment=comment,
    )
    op.create_index(op.f(f"ix_{name}_runs_at"), name, ["runs_at"])


def _text(name: str, *, optional: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=optional)


def _number(name: str, *, optional: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=optional)
