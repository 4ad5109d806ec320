"""The control plane as a whole: opened once per process, closed once."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from erp.control_plane import schema
from erp.control_plane.api_keys import ApiKeys
from erp.control_plane.audit import AuditRecords
from erp.control_plane.audit_proofs import AuditProofs
from erp.control_plane.budgets import StoredBudgets
from erp.control_plane.checkpoints import StoredCheckpoints
from erp.control_plane.client_certificates import ClientCertificates
from erp.control_plane.connection_tables import connection_rates
from erp.control_plane.connections import StoredConnections
from erp.control_plane.database import Database
from erp.control_plane.directory import Directory
from erp.control_plane.elevations import Elevations
from erp.control_plane.expiry import ExpiredRows
from erp.control_plane.journal import GroupCommitJournal
from erp.control_plane.key_uses import KeyUses
from erp.control_plane.open_work import StoredOpenWork
from erp.control_plane.operations import StoredOperations
from erp.control_plane.outbox import Outbox
from erp.control_plane.overlaps import StoredOverlaps
from erp.control_plane.people_tables import key_rates
from erp.control_plane.places import SharedPlaces
from erp.control_plane.policies import StoredPolicies
from erp.control_plane.privacy import StoredPrivacy
from erp.control_plane.quotas import StoredQuotas
from erp.control_plane.rates import SharedRates
from erp.control_plane.reminders import StoredReminders
from erp.control_plane.retention import AuditRetention
from erp.control_plane.retention_policies import StoredRetention
from erp.control_plane.retirements import Retirements
from erp.control_plane.revisions import Revisions
from erp.control_plane.revoked_tokens import RevokedTokens
from erp.control_plane.routes import StoredRoutes
from erp.control_plane.saml import SamlProviders
from erp.control_plane.secret_schedules import SecretSchedules
from erp.control_plane.secrets import SecretRows
from erp.control_plane.service_accounts import ServiceAccounts
from erp.control_plane.sessions import StoredSessions
from erp.control_plane.tenants import Tenants

DATABASE_FILE = "control.db"


class ControlPlane:
    """Stores over one database."""

    def __init__(self, database: Database, *, pepper: bytes) -> None:
        self.database = database
        self.revisions = Revisions(database)
        self.tenants = Tenants(database, self.revisions)
        self.connections = StoredConnections(database, self.revisions)
        self.api_keys = ApiKeys(database, self.revisions, pepper=pepper)
        self.key_uses = KeyUses(database)
        self.service_accounts = ServiceAccounts(database, self.revisions)
        self.client_certificates = ClientCertificates(database, self.revisions)
        self.saml = SamlProviders(database, self.revisions)
        self.directory = Directory(database, self.revisions)
        self.quotas = StoredQuotas(database, self.revisions)
        self.budgets = StoredBudgets(database, self.revisions)
        self.rates = SharedRates(database)
        self.key_rates = SharedRates(database, key_rates)
        self.connection_rates = SharedRates(database, connection_rates)
        self.places = SharedPlaces(database)
        self.journal = GroupCommitJournal(database)
        self.outbox = Outbox(database)
        self.audit = AuditRecords(database)
        self.audit_proofs = AuditProofs(database)
        self.checkpoints = StoredCheckpoints(database)
        self.retention = AuditRetention(database)
        self.retention_policies = StoredRetention(database)
        self.expired_rows = ExpiredRows(database)
        self.secrets = SecretRows(database, self.revisions)
        self.retirements = Retirements(database, self.revisions)
        self.overlaps = StoredOverlaps(database)
        self.secret_schedules = SecretSchedules(database)
        self.reminders = StoredReminders(database)
        self.open_work = StoredOpenWork(database)
        self.routes = StoredRoutes(database, self.revisions)
        self.operations = StoredOperations(database)
        self.policies = StoredPolicies(database, self.revisions)
        self.sessions = StoredSessions(database, self.revisions)
        self.revoked_tokens = RevokedTokens(database, self.revisions)
        self.elevations = Elevations(database, self.revisions)
        self.privacy = StoredPrivacy(database, self.revisions)

    @classmethod
    async def open(cls, data_dir: Path, database_url: str | None = None, *, pepper: bytes) -> ControlPlane:
        """Open the database and bring its schema up to date.

        Args:
            data_dir: where ``control.db`` is kept when ``database_url`` is None; exists.
            database_url: ``postgresql://USER:PASSWORD@HOST:PORT/NAME``.
            pepper: the key with which API keys are hashed.

        Raises:
            ProviderError: ``unavailable`` when the database cannot be reached,
                ``failed_precondition`` when a newer version of the layer has changed its schema.
        """
        database = Database.at(database_url) if database_url else Database.in_file(data_dir / DATABASE_FILE)
        try:
            await schema.bring_up_to_date(database)
        except BaseException:
            await database.close()
            raise
        return cls(database, pepper=pepper)

    async def ping(self) -> None:
        """Return when the database answers.

        Raises:
            ProviderError: ``unavailable``.
        """
        await self.database.run(lambda connection: connection.execute(sa.select(sa.literal(1))).scalar_one())

    async def close(self) -> None:
        """Write what is waiting, and close the database. Safe twice."""
        await self.journal.close()
        await self.key_uses.close()
        await self.quotas.close()
        await self.budgets.close()
        await self.places.close()
        await self.database.close()
