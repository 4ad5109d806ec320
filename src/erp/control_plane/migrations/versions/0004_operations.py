"""Operations: calls that nobody waits for.

Revision: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_OPEN = sa.text("ended_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "operations",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "tenant", "actor")),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("cancel_wanted", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("outcome", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_operations_tenant"), ondelete="CASCADE"),
        sa.UniqueConstraint("tenant", "actor", "key", name=op.f("uq_operations_tenant_actor_key")),
        comment="due_at: when it may be taken on, which a lease moves to its end",
    )
    op.create_index(op.f("ix_operations_tenant_created_at_id"), "operations", ["tenant", "created_at", "id"])
    op.create_index(op.f("ix_operations_subject_created_at"), "operations", ["subject", "created_at"])
    op.create_index("ix_operations_due", "operations", ["due_at"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_index("ix_operations_ended_at", "operations", ["ended_at"])


def downgrade() -> None:
    op.drop_table("operations")
