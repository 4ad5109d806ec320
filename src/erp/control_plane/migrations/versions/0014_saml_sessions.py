"""What an identity provider calls the person and the session, so that it can end them (SAML single logout).

Revision: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_COLUMNS = ("name_id", "session_index")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column("sessions", sa.Column(name, sa.Text(), nullable=True))
    op.create_index(op.f("ix_sessions_tenant_connection_name_id"), "sessions", ["tenant", "connection", "name_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_sessions_tenant_connection_name_id"), "sessions")
    for name in _COLUMNS:
        op.drop_column("sessions", name)
