"""Routes: tenants' own names for connections.

Revision: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_PLACE = ("tenant", "domain", "name")


def upgrade() -> None:
    op.create_table(
        "routes",
        *(sa.Column(name, sa.Text(), nullable=False) for name in (*_PLACE, "revision", "route")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*_PLACE, name=op.f("pk_routes")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_routes_tenant"), ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("routes")
