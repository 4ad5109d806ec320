"""Browser sessions, and tokens that were revoked before their time.

Revision: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    texts = ("id", "tenant", "connection", "issuer_revision", "subject", "roles", "scopes", "user_agent")
    moments = ("created_at", "seen_at", "ends_at")
    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("sign_in", sa.LargeBinary(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in moments),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
        sa.UniqueConstraint("id", name=op.f("uq_sessions_id")),
        sa.UniqueConstraint("sign_in", name=op.f("uq_sessions_sign_in")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_sessions_tenant"), ondelete="CASCADE"),
        comment="digest and sign_in: keyed digests of what the browser holds",
    )
    op.create_index(op.f("ix_sessions_tenant_created_at_id"), "sessions", ["tenant", "created_at", "id"])
    op.create_index(op.f("ix_sessions_ends_at"), "sessions", ["ends_at"])
    op.create_table(
        "revoked_tokens",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "digest", name=op.f("pk_revoked_tokens")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_revoked_tokens_tenant"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_revoked_tokens_expires_at"), "revoked_tokens", ["expires_at"])
    table = sa.table("revisions", sa.column("topic", sa.Text), sa.column("revision", sa.BigInteger))
    op.bulk_insert(table, [{"topic": "sessions", "revision": 0}])


def downgrade() -> None:
    op.drop_table("revoked_tokens")
    op.drop_table("sessions")
    op.execute("DELETE FROM revisions WHERE topic = 'sessions'")
