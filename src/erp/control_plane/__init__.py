"""What the platform itself must remember, in one SQL database.

ControlPlane        opens the database, migrates it, and has one attribute per store
  .tenants          who uses the platform
  .connections      tenants' configured providers, their defaults and call policies (``ports.Connections``)
  .api_keys         credentials
  .quotas           units per period, reserved in leased blocks (``ports.Quotas``)
  .journal          effectful calls: idempotency, events and audit by group commit (``ports.Journal``)
  .outbox           events waiting for delivery (``relay.OutboxRelay`` delivers them)
  .audit            search in the audit records
  .secrets          encrypted rows of the secret store (``erp.security.vault`` encrypts)

SQLite in the data directory by default; PostgreSQL by address. One code path for both.
"""

from __future__ import annotations

from erp.control_plane.plane import ControlPlane

__all__ = ["ControlPlane"]
