"""Open work: which tenants a service still has to look after.

Revision: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "open_work",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "service", "mark")),
        sa.PrimaryKeyConstraint("tenant", "service", name=op.f("pk_open_work")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_open_work_tenant"), ondelete="CASCADE"),
        comment="mark: new at each marking",
    )
    # Who has open orders was not noted before: look at all who ever asked for one.
    op.execute(
        "INSERT INTO open_work (tenant, service, mark) SELECT id, 'order', 'migrated' FROM tenants"
        " WHERE EXISTS (SELECT 1 FROM audit WHERE audit.tenant = tenants.id AND audit.action LIKE 'order.%')"
    )


def downgrade() -> None:
    op.drop_table("open_work")
