"""Merkle trees over the audit records, their checkpoints and retention; break-glass.

Revision: 0009
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from erp.control_plane.merkle import CompactRange, leaf_hash

revision = "0009"
down_revision = "0008"

PAGE = 1000


def upgrade() -> None:
    for name in ("action", "effect", "request_id"):
        op.add_column("audit", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("audit_heads", sa.Column("subtrees", sa.LargeBinary(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        op.create_table_comment(
            "audit", "hash = SHA-256(prev_hash + record); record empty: lawfully deleted", existing_comment=None
        )
        op.create_table_comment(
            "audit_heads", "subtrees: roots of the full subtrees of the Merkle tree over all hashes"
        )
    _create_proofs()
    _create_break_glass()
    for (tenant,) in op.get_bind().execute(sa.text("SELECT tenant FROM audit_heads")).all():
        _grow(op.get_bind(), tenant)
    table = sa.table("revisions", sa.column("topic", sa.Text), sa.column("revision", sa.BigInteger))
    op.bulk_insert(table, [{"topic": "break_glass", "revision": 0}])


def _create_proofs() -> None:
    op.create_table(
        "audit_nodes",
        _text("tenant"),
        *(_number(name) for name in ("level", "index")),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "level", "index", name=op.f("pk_audit_nodes")),
        comment="roots of full subtrees whose level is a multiple of 8",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit_checkpoints",
        _text("tenant"),
        _number("size"),
        _text("note"),
        _number("made_at"),
        sa.PrimaryKeyConstraint("tenant", "size", name=op.f("pk_audit_checkpoints")),
        comment="signed notes; without foreign key: they outlive the tenant as its records do",
    )
    op.create_table(
        "audit_retention",
        _text("tenant"),
        _text("class"),
        _number("days"),
        sa.PrimaryKeyConstraint("tenant", "class", name=op.f("pk_audit_retention")),
        _owner("audit_retention"),
        comment="no row: kept for ever",
    )


def _create_break_glass() -> None:
    op.create_table(
        "elevations",
        *(_text(name) for name in ("tenant", "id", "actor", "role", "reason", "request_id")),
        *(_number(name) for name in ("minutes", "requested_at")),
        _text("approved_by", optional=True),
        *(_number(name, optional=True) for name in ("began_at", "ends_at", "ended_at")),
        _text("ended_by", optional=True),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_elevations")),
        _owner("elevations"),
        comment="break-glass; began_at NULL: waits for approval",
    )
    op.create_index(op.f("ix_elevations_tenant_actor"), "elevations", ["tenant", "actor"])
    op.create_table(
        "break_glass_rules",
        *(_text(name) for name in ("tenant", "rules")),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_break_glass_rules")),
        _owner("break_glass_rules"),
    )


def _grow(connection: sa.Connection, tenant: str) -> None:
    """Build the tree over the records that are there, and fill what is now searched by."""
    tree = CompactRange()
    page = sa.text(
        "SELECT seq, hash, record FROM audit WHERE tenant = :tenant AND seq > :seq ORDER BY seq LIMIT :limit"
    )
    while True:
        rows = connection.execute(page, {"tenant": tenant, "seq": tree.size, "limit": PAGE}).all()
        if not rows:
            break
        nodes = [node for row in rows for node in tree.append(leaf_hash(bytes(row[1])))]
        _write(
            connection,
            "INSERT INTO audit_nodes VALUES (:tenant, :level, :place, :hash)",
            [{"tenant": tenant, "level": level, "place": place, "hash": root} for level, place, root in nodes],
        )
        change = "UPDATE audit SET action = :action, effect = :effect, request_id = :request_id WHERE tenant = :tenant AND seq = :seq"
        _write(connection, change, [{"tenant": tenant, "seq": row[0], **_searched(bytes(row[2]))} for row in rows])
    connection.execute(
        sa.text("UPDATE audit_heads SET subtrees = :subtrees WHERE tenant = :tenant"),
        {"tenant": tenant, "subtrees": tree.packed()},
    )


def _write(connection: sa.Connection, statement: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.text(statement), rows)


def _searched(record: bytes) -> dict[str, str]:
    entry = json.loads(record)
    return {name: entry[name].replace("\0", "\ufffd") for name in ("action", "effect", "request_id")}


def _text(name: str, *, optional: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=optional)


def _number(name: str, *, optional: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=optional)


def _owner(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f(f"fk_{table}_tenant"), ondelete="CASCADE")


def downgrade() -> None:
    for table in ("break_glass_rules", "elevations", "audit_retention", "audit_checkpoints", "audit_nodes"):
        op.drop_table(table)
    op.drop_column("audit_heads", "subtrees")
    for name in ("action", "effect", "request_id"):
        op.drop_column("audit", name)
    op.execute("DELETE FROM revisions WHERE topic = 'break_glass'")
