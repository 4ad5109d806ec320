"""Service accounts, client certificates, SAML; rates, rotation and last use of API keys.

Revision: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


_COUNTED = ("version", "created_at", "updated_at")


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
    _create_saml()
    _create_directory()


def _create_directory() -> None:
    op.create_table(
        "directory_users",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "id", "user_name", "document")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("external_id", "display_name")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("active", *_COUNTED)),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_directory_users")),
        _of_tenant("directory_users"),
        sa.UniqueConstraint("tenant", "user_name", name=op.f("uq_directory_users_tenant_user_name")),
        comment="user_name in lower case",
    )
    op.create_index(op.f("ix_directory_users_tenant_external_id"), "directory_users", ["tenant", "external_id"])
    op.create_table(
        "directory_groups",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "id", "display_name")),
        sa.Column("external_id", sa.Text(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTED),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_directory_groups")),
        _of_tenant("directory_groups"),
        sa.UniqueConstraint("tenant", "display_name", name=op.f("uq_directory_groups_tenant_display_name")),
    )
    op.create_table(
        "directory_members",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "group", "user")),
        sa.PrimaryKeyConstraint("tenant", "group", "user", name=op.f("pk_directory_members")),
        _of_tenant("directory_members"),
    )
    op.create_index(op.f("ix_directory_members_tenant_user"), "directory_members", ["tenant", "user"])
    op.create_table(
        "directory_roles",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "group_name", "role")),
        sa.PrimaryKeyConstraint("tenant", "group_name", name=op.f("pk_directory_roles")),
        _of_tenant("directory_roles"),
    )


def _of_tenant(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f(f"fk_{table}_tenant"), ondelete="CASCADE")


def _create_saml() -> None:
    op.create_table(
        "saml_providers",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "name", "revision", "settings")),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_saml_providers")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_saml_providers_tenant"), ondelete="CASCADE"),
    )
    op.create_table(
        "saml_assertions",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "digest", name=op.f("pk_saml_assertions")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_saml_assertions_tenant"), ondelete="CASCADE"),
        comment="assertions that were used, until they would no longer be valid",
    )
    op.create_index(op.f("ix_saml_assertions_expires_at"), "saml_assertions", ["expires_at"])


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
    for table in (
        "directory_roles",
        "directory_members",
        "directory_groups",
        "directory_users",
        "saml_assertions",
        "saml_providers",
        "client_certificates",
        "key_rates",
        "service_accounts",
    ):
        op.drop_table(table)
    for name in ("rate", "service_account", "replaces", "last_used_at"):
        op.drop_column("api_keys", name)
