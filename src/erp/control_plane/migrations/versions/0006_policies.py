"""Tenants' own policies in revisions, and consents.

Revision: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("source", "note")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "number", name=op.f("pk_policies")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_policies_tenant"), ondelete="CASCADE"),
        comment="the newest revision is in force",
    )
    op.create_table(
        "consents",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "subject", "purpose", "state", "evidence")),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "subject", "purpose", name=op.f("pk_consents")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_consents_tenant"), ondelete="CASCADE"),
    )
    table = sa.table("revisions", sa.column("topic", sa.Text), sa.column("revision", sa.BigInteger))
    op.bulk_insert(table, [{"topic": "policies", "revision": 0}])


def downgrade() -> None:
    op.drop_table("consents")
    op.drop_table("policies")
    op.execute("DELETE FROM revisions WHERE topic = 'policies'")
