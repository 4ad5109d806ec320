"""Run by Alembic: applies migrations on the connection that ``erp.control_plane.schema`` hands in."""

from __future__ import annotations

from alembic import context

from erp.control_plane.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll back DDL; Alembic only assumes that its driver begins transactions by itself.
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
