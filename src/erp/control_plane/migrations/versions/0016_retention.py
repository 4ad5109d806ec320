"""How long tenants keep what, and which checkpoints of audit logs are in the archive.

Revision: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("audit_checkpoints", sa.Column("archived_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "retention",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("runs_at", sa.BigInteger(), nullable=False),
        sa.Column("leased_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_retention")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_retention_tenant"), ondelete="CASCADE"),
        comment="runs_at: when it is applied next; leased_until: one process does it until then",
    )
    op.create_index(op.f("ix_retention_runs_at"), "retention", ["runs_at"])
    op.execute(
        "INSERT INTO retention (tenant, policy, revision, runs_at, leased_until) "
        "SELECT DISTINCT tenant, '{}', 0, 0, 0 FROM audit_retention"
    )


def downgrade() -> None:
    op.drop_table("retention")
    op.drop_column("audit_checkpoints", "archived_at")
