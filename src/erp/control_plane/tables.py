"""The tables of the control plane. Migrations create them; a test proves that both agree.

Moments are whole microseconds since 1970 (UTC), JSON is text, and what is hashed or replayed byte
for byte is kept as bytes: no column needs a conversion that a driver does not do itself.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _owner() -> sa.Column[str]:
    """The tenant of a row that goes when its tenant goes."""
    return sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)


def _text(name: str, *, optional: bool = False, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=key, nullable=optional)


def _number(name: str, *, optional: bool = False, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=key, nullable=optional, autoincrement=False)


def _bytes(name: str, *, optional: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=optional)


tenants = sa.Table(
    "tenants",
    metadata,
    _text("id", key=True),
    _text("name", optional=True),
    _text("region", optional=True),
    _text("policy"),
    _number("created_at"),
    _number("updated_at"),
)

connections = sa.Table(
    "connections",
    metadata,
    _owner(),
    _text("domain", key=True),
    _text("provider", key=True),
    _text("name", key=True),
    _text("revision"),
    _text("config"),
    _text("secrets"),
    _text("policy"),
    _number("created_at"),
    _number("updated_at"),
    _text("region", optional=True),
    _text("secret_versions", optional=True),
)

domain_defaults = sa.Table(
    "domain_defaults", metadata, _owner(), _text("domain", key=True), _text("provider"), _text("connection")
)

routes = sa.Table(
    "routes",
    metadata,
    _owner(),
    _text("domain", key=True),
    _text("name", key=True),
    _text("revision"),
    _text("route"),
    _number("created_at"),
    _number("updated_at"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    _text("id", key=True),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    _text("name", optional=True),
    _text("role"),
    _text("scopes"),
    _bytes("digest"),
    _number("created_at"),
    _number("expires_at", optional=True),
    _number("revoked_at", optional=True),
    _text("rate", optional=True),
    _text("service_account", optional=True),
    _text("replaces", optional=True),
    _number("last_used_at", optional=True),
    sa.Index(None, "tenant", "created_at", "id"),
)

quotas = sa.Table(
    "quotas",
    metadata,
    _owner(),
    _text("scope", key=True),
    _text("unit", key=True),
    _text("period", key=True),
    _number("units"),
)

quota_usage = sa.Table(
    "quota_usage",
    metadata,
    _owner(),
    _text("scope", key=True),
    _text("unit", key=True),
    _text("period", key=True),
    _number("period_start", key=True),
    _number("used"),
    comment="used: money in millionths of its minor unit",
)

quota_holds = sa.Table(
    "quota_holds",
    metadata,
    _owner(),
    _text("id", key=True),
    _text("scope", key=True),
    _text("unit", key=True),
    _text("period", key=True),
    _number("period_start"),
    _number("units"),
    _text("owner"),
    _number("expires_at"),
    sa.Index(None, "owner"),
    comment="units of usage that running calls have reserved and not settled",
)

rates = sa.Table(
    "rates",
    metadata,
    _owner(),
    _number("tokens"),
    _number("stamp"),
    comment="token buckets; tokens in millionths",
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    _text("tenant", key=True),
    _text("key", key=True),
    _text("actor"),
    _text("target"),
    _bytes("fingerprint"),
    _text("token"),
    _text("owner"),
    _number("expires_at"),
    _number("status"),
    _bytes("body", optional=True),
    sa.Index(None, "expires_at"),
    comment="status 0: running; else the HTTP status of the stored answer",
    sqlite_with_rowid=False,
)

owners = sa.Table(
    "owners",
    metadata,
    _text("id", key=True),
    _number("alive_until"),
    comment="processes that run claimed calls",
)


def _index_of(state: str, name: str, *columns: str) -> sa.Index:
    """An index of the events in one state alone: what is delivered makes nothing slower."""
    condition = sa.text(f"state = '{state}'")
    return sa.Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


operations = sa.Table(
    "operations",
    metadata,
    _text("id", key=True),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    _text("actor"),
    _text("key", optional=True),
    _text("subject", optional=True),
    _bytes("fingerprint"),
    _text("state"),
    _bytes("request"),
    _number("cancel_wanted"),
    _text("owner"),
    _number("due_at"),
    _number("attempts"),
    _text("progress", optional=True),
    _bytes("outcome", optional=True),
    _number("created_at"),
    _number("started_at", optional=True),
    _number("ended_at", optional=True),
    sa.UniqueConstraint("tenant", "actor", "key"),
    sa.Index(None, "tenant", "created_at", "id"),
    sa.Index(None, "subject", "created_at"),
    sa.Index(
        "ix_operations_due",
        "due_at",
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
    sa.Index("ix_operations_ended_at", "ended_at"),
    comment="due_at: when it may be taken on, which a lease moves to its end",
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("position", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("tenant"),
    _text("id"),
    _text("key", optional=True),
    _bytes("event"),
    _text("state"),
    _number("attempts"),
    _number("due_at"),
    _number("settled_at", optional=True),
    _text("failure", optional=True),
    sa.UniqueConstraint("tenant", "id"),
    _index_of("due", "ix_outbox_due", "tenant", "position"),
    _index_of("due", "ix_outbox_due_key", "tenant", "key", "position"),
    _index_of("due", "ix_outbox_due_at", "due_at"),
    _index_of("dead", "ix_outbox_dead", "tenant", "position"),
    _index_of("delivered", "ix_outbox_delivered_at", "settled_at"),
    comment="state: due, delivered or dead; a lease moves due_at to its end",
    # A position never means a second event, even after the first is gone.
    sqlite_autoincrement=True,
)

audit = sa.Table(
    "audit",
    metadata,
    _text("tenant", key=True),
    _number("seq", key=True),
    _number("time"),
    _text("actor"),
    _text("target"),
    _text("outcome"),
    _bytes("record"),
    _bytes("prev_hash"),
    _bytes("hash"),
    _text("action", optional=True),
    _text("effect", optional=True),
    _text("request_id", optional=True),
    sa.Index(None, "tenant", "time"),
    comment="hash = SHA-256(prev_hash + record); record empty: lawfully deleted",
    sqlite_with_rowid=False,
)

audit_heads = sa.Table(
    "audit_heads",
    metadata,
    _text("tenant", key=True),
    _number("seq"),
    _bytes("hash"),
    _bytes("subtrees", optional=True),
    comment="subtrees: roots of the full subtrees of the Merkle tree over all hashes",
)

audit_nodes = sa.Table(
    "audit_nodes",
    metadata,
    _text("tenant", key=True),
    _number("level", key=True),
    _number("index", key=True),
    _bytes("hash"),
    comment="roots of full subtrees whose level is a multiple of 8",
    sqlite_with_rowid=False,
)

audit_checkpoints = sa.Table(
    "audit_checkpoints",
    metadata,
    _text("tenant", key=True),
    _number("size", key=True),
    _text("note"),
    _number("made_at"),
    _number("archived_at", optional=True),
    comment="signed notes; without foreign key: they outlive the tenant as its records do",
)

audit_retention = sa.Table(
    "audit_retention",
    metadata,
    _owner(),
    _text("class", key=True),
    _number("days"),
    comment="no row: kept for ever",
)

elevations = sa.Table(
    "elevations",
    metadata,
    _owner(),
    _text("id", key=True),
    _text("actor"),
    _text("role"),
    _text("reason"),
    _text("request_id"),
    _number("minutes"),
    _number("requested_at"),
    _text("approved_by", optional=True),
    _number("began_at", optional=True),
    _number("ends_at", optional=True),
    _number("ended_at", optional=True),
    _text("ended_by", optional=True),
    sa.Index(None, "tenant", "actor"),
    comment="break-glass; began_at NULL: waits for approval",
)

break_glass_rules = sa.Table("break_glass_rules", metadata, _owner(), _text("rules"))

secrets = sa.Table(
    "secrets",
    metadata,
    _owner(),
    _text("path", key=True),
    _number("version", key=True),
    _number("created_at"),
    _text("key_id", optional=True),
    _bytes("envelope", optional=True),
    comment="envelope NULL: destroyed",
)

reminders = sa.Table(
    "reminders",
    metadata,
    _owner(),
    _text("domain", key=True),
    _text("provider", key=True),
    _text("connection", key=True),
    _number("wanted_at", optional=True),
    _number("leased_until"),
    _number("runs_at"),
    sa.Index(None, "runs_at"),
    comment="runs_at: wanted_at, or the end of the lease when that is later",
)

open_work = sa.Table(
    "open_work", metadata, _owner(), _text("service", key=True), _text("mark"), comment="mark: new at each marking"
)

policies = sa.Table(
    "policies",
    metadata,
    _owner(),
    _number("number", key=True),
    _text("source"),
    _text("note"),
    _number("created_at"),
    _text("created_by"),
    comment="the newest revision is in force",
)

consents = sa.Table(
    "consents",
    metadata,
    _owner(),
    _text("subject", key=True),
    _text("purpose", key=True),
    _text("state"),
    _text("evidence"),
    _number("recorded_at"),
    _text("recorded_by"),
)

privacy_settings = sa.Table(
    "privacy_settings", metadata, _owner(), _text("settings"), _number("revision"), _number("updated_at")
)

retention = sa.Table(
    "retention",
    metadata,
    _owner(),
    _text("policy"),
    _number("revision"),
    _number("runs_at"),
    _number("leased_until"),
    sa.Index(None, "runs_at"),
    comment="runs_at: when it is applied next; leased_until: one process does it until then",
)

revisions = sa.Table(
    "revisions",
    metadata,
    _text("topic", key=True),
    _number("revision"),
    comment="counters that tell other processes to forget what they cached",
)
