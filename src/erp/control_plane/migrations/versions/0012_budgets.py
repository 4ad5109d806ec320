"""Quotas by scope and unit, and what running calls have reserved of them.

Revision: 0012
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_OLD = ("tenant", "period")
_NEW = ("tenant", "scope", "unit", "period")


def upgrade() -> None:
    _rebuild(_NEW, {"scope": "tenant", "unit": "requests"})
    op.create_table(
        "quota_holds",
        *(_text(name) for name in ("tenant", "id", "scope", "unit", "period")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("period_start", "units")),
        _text("owner"),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", "scope", "unit", "period", name=op.f("pk_quota_holds")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_quota_holds_tenant"), ondelete="CASCADE"),
        comment="units of usage that running calls have reserved and not settled",
    )
    op.create_index(op.f("ix_quota_holds_owner"), "quota_holds", ["owner"])


def downgrade() -> None:
    op.drop_table("quota_holds")
    for table in ("quotas", "quota_usage"):
        op.execute(f"DELETE FROM {table} WHERE scope <> 'tenant' OR unit <> 'requests'")  # noqa: S608  (no input)
    _rebuild(_OLD, {})


def _rebuild(key: tuple[str, ...], added: dict[str, str]) -> None:
    """Make both tables anew with another primary key, which SQLite cannot change; they are small."""
    _rebuild_one("quotas", key, ("units",), added)
    _rebuild_one("quota_usage", (*key, "period_start"), ("used",), added)


def _rebuild_one(name: str, key: tuple[str, ...], rest: tuple[str, ...], added: dict[str, str]) -> None:
    rows = [dict(row) for row in op.get_bind().execute(sa.text(f"SELECT * FROM {name}")).mappings()]  # noqa: S608
    op.drop_table(name)
    columns: list[Any] = [_number(part) if part == "period_start" else _text(part) for part in key]
    columns += [_number(part) for part in rest]
    table = op.create_table(
        name,
        *columns,
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f(f"fk_{name}_tenant"), ondelete="CASCADE"),
        comment="used: money in millionths of its minor unit" if added and name == "quota_usage" else None,
    )
    wanted = (*key, *rest)
    if rows:
        op.bulk_insert(table, [{part: {**added, **row}[part] for part in wanted} for row in rows])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
