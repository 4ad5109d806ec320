"""Reminders: when connections have work of their own to do.

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = ("tenant", "domain", "provider", "connection")


def upgrade() -> None:
    op.create_table(
        "reminders",
        *(sa.Column(name, sa.Text(), nullable=False) for name in _COLUMNS),
        sa.Column("wanted_at", sa.BigInteger(), nullable=True),
        sa.Column("leased_until", sa.BigInteger(), nullable=False),
        sa.Column("runs_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*_COLUMNS, name=op.f("pk_reminders")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_reminders_tenant"), ondelete="CASCADE"),
        comment="runs_at: wanted_at, or the end of the lease when that is later",
    )
    op.create_index(op.f("ix_reminders_runs_at"), "reminders", ["runs_at"])


def downgrade() -> None:
    op.drop_table("reminders")
