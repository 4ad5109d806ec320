"""The tables about people: whom tenants trust to sign them in, and who is provisioned."""

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
