"""Regions of connections, and settings about personal data.

Revision: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("connections", sa.Column("region", sa.Text(), nullable=True))
    op.create_table(
        "privacy_settings",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "settings")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("revision", "updated_at")),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_privacy_settings")),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.id"], name=op.f("fk_privacy_settings_tenant"), ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("privacy_settings")
    with op.batch_alter_table("connections") as batch:
        batch.drop_column("region")
