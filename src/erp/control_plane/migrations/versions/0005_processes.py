"""What several processes share: rate limits, and that the catalog has changed.

Revision: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "rates",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_rates")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_rates_tenant"), ondelete="CASCADE"),
        comment="token buckets; tokens in millionths",
    )
    table = sa.table("revisions", sa.column("topic", sa.Text), sa.column("revision", sa.BigInteger))
    op.bulk_insert(table, [{"topic": "catalog", "revision": 0}])


def downgrade() -> None:
    op.drop_table("rates")
    op.execute("DELETE FROM revisions WHERE topic = 'catalog'")
