"""Service accounts, client certificates; rates, rotation and last use of API keys.

Revision: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for name in ("rate", "service_account", "replaces"):
        op.add_column("api_keys", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "service_accounts",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("role", "scopes")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_service_accounts")),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.id"], name=op.f("fk_service_accounts_tenant"), ondelete="CASCADE"
        ),
    )
    op.create_table(
        "key_rates",
        sa.Column("key", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("tokens", "stamp")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_key_rates")),
        sa.ForeignKeyConstraint(["key"], ["api_keys.id"], name=op.f("fk_key_rates_key"), ondelete="CASCADE"),
        comment="token buckets of API keys; tokens in millionths",
    )
    _create_client_certificates()


def _create_client_certificates() -> None:
    op.create_table(
        "client_certificates",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "tenant", "service_account", "kind", "value")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client_certificates")),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.id"], name=op.f("fk_client_certificates_tenant"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("kind", "value", name=op.f("uq_client_certificates_kind_value")),
        comment="kind: fingerprint, uri or dns; one certificate never means two tenants",
    )
    op.create_index(op.f("ix_client_certificates_tenant_id"), "client_certificates", ["tenant", "id"])


def downgrade() -> None:
    for table in ("client_certificates", "key_rates", "service_accounts"):
        op.drop_table(table)
    for name in ("rate", "service_account", "replaces", "last_used_at"):
        op.drop_column("api_keys", name)
