"""Versions of secrets to be destroyed that are kept elsewhere.

Revision: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("secret_retirements", sa.Column("version_id", sa.Text(), nullable=True))
    op.add_column("secret_retirements", sa.Column("over_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.execute("DELETE FROM secret_retirements WHERE version_id IS NOT NULL")
    op.drop_column("secret_retirements", "over_at")
    op.drop_column("secret_retirements", "version_id")
