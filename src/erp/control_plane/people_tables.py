"""The tables about who comes: people whom tenants trust or provision, their sessions, machines and their keys."""

from __future__ import annotations

import sqlalchemy as sa

from erp.control_plane.tables import _number, _owner, _text, metadata

saml_providers = sa.Table(
    "saml_providers",
    metadata,
    _owner(),
    _text("name", key=True),
    _text("revision"),
    _text("settings"),
    _number("updated_at"),
)

saml_assertions = sa.Table(
    "saml_assertions",
    metadata,
    _owner(),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    _number("expires_at"),
    sa.Index(None, "expires_at"),
    comment="assertions that were used, until they would no longer be valid",
)

directory_users = sa.Table(
    "directory_users",
    metadata,
    _owner(),
    _text("id", key=True),
    _text("user_name"),
    _text("external_id", optional=True),
    _text("display_name", optional=True),
    _number("active"),
    _text("document"),
    _number("version"),
    _number("created_at"),
    _number("updated_at"),
    sa.UniqueConstraint("tenant", "user_name"),
    sa.Index(None, "tenant", "external_id"),
    comment="user_name in lower case",
)

directory_groups = sa.Table(
    "directory_groups",
    metadata,
    _owner(),
    _text("id", key=True),
    _text("display_name"),
    _text("external_id", optional=True),
    _number("version"),
    _number("created_at"),
    _number("updated_at"),
    sa.UniqueConstraint("tenant", "display_name"),
)

directory_members = sa.Table(
    "directory_members",
    metadata,
    _owner(),
    _text("group", key=True),
    _text("user", key=True),
    sa.Index(None, "tenant", "user"),
)

directory_roles = sa.Table("directory_roles", metadata, _owner(), _text("group_name", key=True), _text("role"))

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("sign_in", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    _text("connection"),
    _text("issuer_revision"),
    _text("subject"),
    _text("roles"),
    _text("scopes"),
    _text("user_agent"),
    _number("created_at"),
    _number("seen_at"),
    _number("ends_at"),
    _number("ended_at", optional=True),
    sa.Column("name_id", sa.Text),
    sa.Column("session_index", sa.Text),
    sa.Index(None, "tenant", "created_at", "id"),
    sa.Index(None, "tenant", "connection", "name_id"),
    sa.Index(None, "ends_at"),
    comment="digest and sign_in: keyed digests of what the browser holds",
)

revoked_tokens = sa.Table(
    "revoked_tokens",
    metadata,
    _owner(),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    _number("expires_at"),
    sa.Index(None, "expires_at"),
)

service_accounts = sa.Table(
    "service_accounts",
    metadata,
    _owner(),
    _text("name", key=True),
    _text("description", optional=True),
    _text("role"),
    _text("scopes"),
    _number("created_at"),
    _number("disabled_at", optional=True),
)

key_rates = sa.Table(
    "key_rates",
    metadata,
    sa.Column("key", sa.Text, sa.ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True),
    _number("tokens"),
    _number("stamp"),
    comment="token buckets of API keys; tokens in millionths",
)

client_certificates = sa.Table(
    "client_certificates",
    metadata,
    _text("id", key=True),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    _text("service_account"),
    _text("kind"),
    _text("value"),
    _number("created_at"),
    _text("created_by"),
    sa.UniqueConstraint("kind", "value"),
    sa.Index(None, "tenant", "id"),
    comment="kind: fingerprint, uri or dns; one certificate never means two tenants",
)
