"""Rates and places of connections that processes share.

Revision: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    _create(
        "connection_rates",
        ("tenant", "name"),
        ("tokens", "stamp"),
        "token buckets of connections; tokens in millionths",
    )
    _create(
        "connection_places",
        ("tenant", "name", "owner"),
        ("places", "wanted", "since", "expires_at"),
        "how many calls a process may have on a connection at a time, until it expires",
    )


def downgrade() -> None:
    op.drop_table("connection_places")
    op.drop_table("connection_rates")


def _create(table: str, key: tuple[str, ...], rest: tuple[str, ...], comment: str) -> None:
    op.create_table(
        table,
        *(sa.Column(name, sa.Text(), nullable=False) for name in key),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in rest),
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{table}")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f(f"fk_{table}_tenant"), ondelete="CASCADE"),
        comment=comment,
    )
