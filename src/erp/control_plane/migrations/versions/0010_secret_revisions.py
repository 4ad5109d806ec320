"""Processes tell each other when secrets have changed, so that what was read can be remembered.

Revision: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    table = sa.table("revisions", sa.column("topic", sa.Text), sa.column("revision", sa.BigInteger))
    op.bulk_insert(table, [{"topic": "secrets", "revision": 0}])


def downgrade() -> None:
    op.execute("DELETE FROM revisions WHERE topic = 'secrets'")
