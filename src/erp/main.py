"""The composition root: the only place where the parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane
from erp.control_plane.relay import OutboxRelay
from erp.control_plane.revisions import Topic
from erp.errors import ProviderError
from erp.gateway.acting import PLATFORM
from erp.gateway.administration import Administration
from erp.gateway.app import Gateway, Parts, pages
from erp.gateway.audit_log import AuditLog
from erp.gateway.batch import Batch
from erp.gateway.break_glass import BreakGlass
from erp.gateway.certificates import CertificatePages
from erp.gateway.configuration import Configuration
from erp.gateway.credentials import Credentials
from erp.gateway.dead_events import DeadEvents
from erp.gateway.discovery import Discovery
from erp.gateway.events import ProviderEvents
from erp.gateway.invoke import InvokeRoute
from erp.gateway.links import LinkRoutes
from erp.gateway.operations import OperationPages
from erp.gateway.people import People, people
from erp.gateway.policies import AccessEvaluation, Permissions, Policies
from erp.gateway.privacy import PrivacyPages
from erp.gateway.reloading import Reloading
from erp.gateway.retention import RetentionPages
from erp.gateway.routing import Routing
from erp.gateway.saml import SamlProviderPages
from erp.gateway.scim import DirectoryRoles, Scim
from erp.gateway.secret_schedules import SecretSchedulePages
from erp.gateway.service_accounts import ServiceAccountPages
from erp.gateway.standing import Standings
from erp.gateway.status import Status
from erp.runtime.calls import Calls
from erp.runtime.caretaker import Caretaker
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.configuring import Configuring
from erp.runtime.delivery import BusDelivery
from erp.runtime.event_feed import EventFeed
from erp.runtime.hot_swap import HotSwap
from erp.runtime.observation import Observer
from erp.runtime.operations import OperationRunner
from erp.runtime.plan import PlanBook
from erp.runtime.pool import ProviderPool
from erp.runtime.rotation import Rotation, RotationSettings
from erp.runtime.routes import RouteBook
from erp.runtime.service_calls import service_context
from erp.runtime.shares import TenantShares
from erp.runtime.sharing import Sharing
from erp.runtime.spending import Spending
from erp.security.audit_keeper import AuditKeeper
from erp.security.certificates import CertificateIdentity
from erp.security.checkpoint_archive import ArchivePlace, CheckpointArchive
from erp.security.identity import KeyIdentity
from erp.security.key_url import open_keyring
from erp.security.keyring import Keyring
from erp.security.links import SealedLinks
from erp.security.platform_identity import PlatformIdentity
from erp.security.policy.decisions import DecisionPoint
from erp.security.policy.wiring import PolicySettings, decision_point
from erp.security.privacy.guard import PrivacyGuard, PrivateJournal
from erp.security.privacy.marks import EventMarks
from erp.security.privacy.outgoing import OutgoingTexts
from erp.security.privacy.receipts import Receipts
from erp.security.privacy.retention import RetentionKeeper
from erp.security.privacy.rights import SubjectRights
from erp.security.privacy.treatment import Treatments
from erp.security.secret_retirement import SecretRetirement
from erp.security.secret_schedules import ScheduledRotation
from erp.security.sessions import SessionSettings
from erp.security.subjects import Subjects
from erp.security.tokens import Tokens
from erp.security.vault import EnvelopeVault
from erp.services.order.follow_up import OrderFollowUp
from erp.services.order.service import OrderService
from erp.services.order.watch import Watch
from erp.telemetry.call_log import CallLog
from erp.telemetry.call_metrics import CallMetrics
from erp.telemetry.trace import Spans

if TYPE_CHECKING:
    from erp.runtime.context import CallContext

DEFAULT_URL = "http://127.0.0.1:8080"
EVICTION_SECONDS = 30.0
MOST_PROCESSES = 256
FOLLOW_UP_SECONDS = 60.0


def default_data_dir() -> Path:
    """Return ``ERP_DATA_DIR``, or a folder of the user."""
    if configured := os.environ.get("ERP_DATA_DIR"):
        return Path(configured)
    shared = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(shared) / "erp"


def _number(variable: str, default: int, most: int, what: str) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or not 1 <= int(text) <= most:
        message = f"{variable} is {text[:20]!r}. Set it to {what}, 1 to {most}."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return int(text)


def number_of_processes() -> int:
    """Return ``ERP_PROCESSES``.

    Raises:
        ProviderError: ``failed_precondition`` when it is no number from 1 to 256.
    """
    return _number("ERP_PROCESSES", 1, MOST_PROCESSES, "how many processes share the control plane")


def tenant_shares() -> TenantShares:
    """Return the places that ``ERP_MAX_IN_FLIGHT`` and ``ERP_TENANT_IN_FLIGHT`` make.

    Raises:
        ProviderError: ``failed_precondition`` when one of them is no such number.
    """
    capacity = _number("ERP_MAX_IN_FLIGHT", 2000, 100_000, "how many calls the process holds at a time")
    half = max(1, capacity // 2)
    return TenantShares(capacity, _number("ERP_TENANT_IN_FLIGHT", half, capacity, "how many of them one tenant has"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process needs to know before it starts."""

    data_dir: Path = field(default_factory=default_data_dir)
    database_url: str | None = field(default_factory=lambda: os.environ.get("ERP_DATABASE_URL"))
    processes: int = field(default_factory=number_of_processes)
    """How many processes share one control plane; what lives in one process's memory is refused when there are more."""
    log_level: str = field(default_factory=lambda: os.environ.get("ERP_LOG_LEVEL", "info").lower())

    public_url: str | None = field(default_factory=lambda: os.environ.get("ERP_PUBLIC_URL"))
    """Where the gateway is reached from outside: what links begin with. None: where it listens."""

    sessions: SessionSettings = field(default_factory=SessionSettings)

    policy: PolicySettings = field(default_factory=PolicySettings.from_environment)

    @property
    def models_dir(self) -> Path:
        """Where local models are installed."""
        configured = os.environ.get("ERP_MODELS_DIR")
        return Path(configured) if configured else self.data_dir / "models"

    @property
    def drop_in_dir(self) -> Path:
        """Where provider folders can be dropped in."""
        return self.data_dir / "providers"


async def open_control_plane(settings: Settings) -> tuple[ControlPlane, Keyring]:
    """Open the platform's memory and its keys, making both at the first start.

    Raises:
        ProviderError: ``failed_precondition`` when the data directory cannot be used or a key is
            malformed, ``unavailable`` when the database does not answer.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        keyring = await open_keyring(settings.data_dir)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"The data directory {settings.data_dir} cannot be used: {reason}. Choose another with --data-dir."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    try:
        control = await ControlPlane.open(settings.data_dir, settings.database_url, pepper=keyring.pepper)
    except BaseException:
        await keyring.close()
        raise
    return control, keyring


class Layer:
    """Everything that runs in one process, started and stopped in order."""

    def __init__(self, settings: Settings, control: ControlPlane, keyring: Keyring) -> None:
        self.settings = settings
        self.control = control
        self.metrics = CallMetrics()
        self.log = CallLog(enabled=settings.log_level in {"debug", "info"})
        self.spans = Spans.from_environment()
        self.keyring = keyring
        self.vault = EnvelopeVault(control.secrets, keyring)
        self.links = SealedLinks(keyring.pepper, (settings.public_url or DEFAULT_URL).rstrip("/"))
        self.policy: DecisionPoint = decision_point(settings.policy, control)
        self.treatments, self.receipts = Treatments(keyring.pepper), Receipts(keyring.pepper)
        self.privacy = PrivacyGuard(control.privacy, self.treatments)
        self.log.treat = lambda tenant, text: self.privacy.text(tenant, "logs", text)
        self.catalog = ProviderCatalog.load(settings.drop_in_dir)
        self.catalog.processes = settings.processes
        self.journal = self._journal()
        self.tokens = Tokens(self.vault)
        self.audit_keeper = AuditKeeper(control, self.vault)
        self.identity = self._identity(keyring)
        self.pool = self._pool()
        self.people = self._people(keyring)
        self.pool.secrets.connections = control.connections
        self.hot_swap = HotSwap(self.catalog, self.pool)
        self.plans = PlanBook(self.catalog, self.pool, control.connections)
        self.plans.outgoing = OutgoingTexts(self.privacy, self.treatments)
        self.calls = self._pipeline()
        self.audit_keeper.archive = self._archive()
        self.retention = RetentionKeeper(control, self._context)
        self.configuring = self._configuring()
        self.operations = OperationRunner(self.calls, control.operations, self.catalog, self.configuring)
        self.operations.rights = self._rights().run
        self.rotation = self._rotation()
        self.retirement = self._retirement()
        self.scheduled_rotation = ScheduledRotation(control.secret_schedules, self.calls, self.journal)
        self.follow_up = OrderFollowUp(context_for=self._order_context, watch=Watch(control.open_work))
        self.plans.add_service("order", OrderService(self.follow_up))
        self.caretaker = Caretaker(reminders=control.reminders, plans=self.plans, pool=self.pool, journal=self.journal)
        self.feed = EventFeed(control.outbox.after, control.outbox.end)
        self.relay = OutboxRelay(control.outbox, BusDelivery(self.calls).deliver)
        self._tasks: list[asyncio.Task[Any]] = []

    def _journal(self) -> PrivateJournal:
        marks = EventMarks(self.catalog.domains, self.catalog.services)
        return PrivateJournal(self.control.journal, self.privacy, marks.of)

    def _pool(self) -> ProviderPool:
        return ProviderPool(
            self.catalog,
            data_dir=self.settings.data_dir,
            models_dir=self.settings.models_dir,
            vault=self.vault,
            identity=self.identity,
            links=self.links,
            reminders=self.control.reminders,
            overlaps=self.control.overlaps,
        )

    def _pipeline(self) -> Calls:
        calls = Calls(
            plans=self.plans,
            policy=self.policy,
            quotas=self.control.quotas,
            journal=self.journal,
            connections=self.control.connections,
            routes=RouteBook(self.control.routes),
            observer=Observer(self.metrics, self.log, self.spans),
        )
        calls.shares = tenant_shares()
        calls.spending = Spending(self.control.budgets)
        if self.settings.processes > 1:
            calls.rates, calls.key_rates = self.control.rates, self.control.key_rates
            self.plans.sharing = Sharing(self.control.places, self.control.connection_rates)
        return calls

    def _context(self, service: str, tenant: str, seconds: float) -> CallContext:
        return service_context(self.calls, self.journal, service=service, tenant=tenant, seconds=seconds)

    def archive_at(self, place: str) -> CheckpointArchive:
        """Return the archive of checkpoints at ``TENANT/PROVIDER#CONNECTION``."""
        return CheckpointArchive(ArchivePlace.parse(place), self._context)

    def _archive(self) -> CheckpointArchive | None:
        place = os.environ.get("ERP_AUDIT_ARCHIVE")
        return self.archive_at(place) if place else None

    def _rights(self) -> SubjectRights:
        return SubjectRights(
            self.calls, self.journal, self.privacy, self.control.policies, self.receipts, self.retention
        )

    def _configuring(self) -> Configuring:
        control = self.control
        return Configuring(
            pool=self.pool,
            plans=self.plans,
            connections=control.connections,
            vault=self.vault,
            journal=self.journal,
        )

    def _rotation(self) -> Rotation:
        control, settings = self.control, RotationSettings.from_environment()
        stored, latest = control.connections, control.operations
        rotation = Rotation(
            self.operations, connections=stored, latest=latest, secrets=self.pool.secrets, settings=settings
        )
        self.pool.on_refused = rotation.refused
        return rotation

    def _retirement(self) -> SecretRetirement:
        pool, on_still_used = self.pool, self.rotation.changed
        return SecretRetirement(
            self.control.retirements,
            self.journal,
            is_in_use=pool.is_in_use,
            destroy=pool.secrets.destroy,
            on_still_used=on_still_used,
        )

    def _secret_stored(self, tenant: str, path: str) -> None:
        self.rotation.changed(tenant, path)
        self.retirement.nudge()

    def _identity(self, keyring: Keyring) -> PlatformIdentity:
        api_keys = self.control.api_keys
        uses, elevations = self.control.key_uses, self.control.elevations
        keys = KeyIdentity(api_keys, keyring.pepper, self.tokens, elevations=elevations, uses=uses)
        return PlatformIdentity(keys, self.tokens, api_keys, self.policy, self.catalog, Subjects(self.control))

    def _people(self, keyring: Keyring) -> People:
        control, settings = self.control, self.settings.sessions
        own, vault = self.identity, self.vault
        made = people(control, self.pool, self.links, own=own, vault=vault, pepper=keyring.pepper, settings=settings)
        self.identity.subjects.sessions, self.identity.subjects.sources = made.browser.sessions, made.sources
        return made

    @classmethod
    async def open(cls, settings: Settings) -> Layer:
        """Start everything; when this returns, calls can be served."""
        control, keyring = await open_control_plane(settings)
        layer = cls(settings, control, keyring)
        control.journal.on_events = layer.relay.nudge
        control.reminders.on_set = layer.caretaker.nudge
        control.operations.on_change = layer.operations.nudge
        control.secret_schedules.on_change = layer.scheduled_rotation.nudge
        layer.vault.on_put = control.overlaps.on_replaced = layer._secret_stored
        control.revisions.watch(Topic.CATALOG, layer.catalog_changed)
        layer._tasks = [
            asyncio.create_task(layer.policy.start(), name="policy"),
            asyncio.create_task(layer.relay.run(), name="outbox relay"),
            asyncio.create_task(layer.follow_up.run(), name="order follow-up"),
            asyncio.create_task(layer.caretaker.run(), name="caretaker"),
            asyncio.create_task(layer.operations.run(), name="operations"),
            asyncio.create_task(layer._evict(), name="pool eviction"),
            asyncio.create_task(layer.audit_keeper.run(), name="audit keeper"),
            asyncio.create_task(layer.rotation.run(layer.pool.opened), name="rotation"),
            asyncio.create_task(layer.retirement.run(), name="secret retirement"),
            asyncio.create_task(layer.scheduled_rotation.run(), name="scheduled rotation"),
            asyncio.create_task(layer.retention.run(), name="retention"),
        ]
        return layer

    async def close(self) -> None:
        """Stop in the reverse order: no new calls, workers, providers, the platform's memory."""
        await self.rotation.close()
        await self.operations.stop()
        self.calls.is_draining = True
        await self.follow_up.stop()
        await self.relay.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.calls.routes.close()
        await self.feed.close()
        await self.people.trust.close()
        await self.pool.close()
        await self.policy.close()
        await self.control.close()
        await self.keyring.close()
        self.log.flush()
        self.spans.close()

    def catalog_changed(self) -> None:
        """Read the catalog anew: another process has."""
        task = asyncio.create_task(self.hot_swap.reload(), name="catalog")
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _tell_of_catalog(self) -> None:
        await self.control.revisions.count(Topic.CATALOG)

    def _order_context(self, tenant: str) -> CallContext:
        return self._context("order", tenant, FOLLOW_UP_SECONDS)

    async def _evict(self) -> None:
        while True:
            await asyncio.sleep(EVICTION_SECONDS)
            self.pool.evict_idle()

    async def first_key(self) -> str | None:
        """Create the platform's tenant and its administrator key at the very first start; return the key."""
        if await self.control.tenants.ids():
            return None
        await self.control.tenants.create(PLATFORM, name="Operator of the platform")
        _, text = await self.control.api_keys.create(PLATFORM, role="admin", name="first administrator")
        return text

    def listens_at(self, address: str) -> None:
        """Make links begin with ``address`` unless the settings say otherwise."""
        self.links.public_url = (self.settings.public_url or address).rstrip("/")

    def application(self) -> Gateway:
        """Return the ASGI application over this layer. It neither opens nor closes the layer."""
        certificates = CertificateIdentity(self.control.client_certificates)
        browser, journal = self.people.browser, self.control.journal
        credentials = Credentials(self.people.issuers, self.policy, journal, browser, certificates)
        invoke = InvokeRoute(self.calls, self.catalog, credentials, self.operations)
        return Gateway(invoke, pages(credentials, self._parts(credentials)))

    def _configuration(self, credentials: Credentials) -> Configuration:
        return Configuration(
            catalog=self.catalog,
            control=self.control,
            vault=self.vault,
            pool=self.pool,
            plans=self.plans,
            configuring=self.configuring,
            operations=self.operations,
            credentials=credentials,
        )

    def _parts(self, credentials: Credentials) -> Parts:
        control, plans = self.control, self.plans
        standings = Standings.from_environment()
        return Parts(
            discovery=Discovery(self.catalog, plans, self.pool, self.calls.routes, self.metrics, standings),
            configuration=self._configuration(credentials),
            routing=Routing(control, self.calls.routes, plans, credentials),
            batch=Batch(self.calls, self.catalog),
            events=ProviderEvents(self.feed, self.catalog, self.policy),
            dead_events=DeadEvents(control, credentials),
            operations=OperationPages(control, self.operations, credentials),
            reloading=Reloading(self.hot_swap, control.journal, credentials, self._tell_of_catalog),
            administration=Administration(
                control=control, identity=self.identity, plans=plans, credentials=credentials
            ),
            certificates=CertificatePages(control, credentials),
            secret_schedules=SecretSchedulePages(control, self.catalog, self.policy, credentials),
            service_accounts=ServiceAccountPages(control, self.identity, credentials),
            links=LinkRoutes(self.links, self.calls, control.tenants),
            audit_log=AuditLog(control, self.audit_keeper.checkpoints, credentials),
            break_glass=BreakGlass(control, credentials),
            policies=Policies(control, self.policy, self.catalog, credentials),
            permissions=Permissions(self.catalog, self.policy),
            access=AccessEvaluation(self.identity, credentials),
            sign_ins=self.people.sign_ins,
            saml=self.people.saml,
            scim=Scim(control, credentials, self.links),
            directory_roles=DirectoryRoles(control, credentials),
            saml_providers=SamlProviderPages(control, credentials, self.people.saml_keys),
            sessions=self.people.sessions(credentials),
            privacy=PrivacyPages(control, self.treatments, self.receipts, self.operations, credentials),
            retention=RetentionPages(control, self.retention, credentials),
            status=Status(self.calls, self.metrics, {"control_plane": control.ping}, credentials),
        )


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Layer]:
    """Run a layer for the length of a block."""
    layer = await Layer.open(settings)
    try:
        yield layer
    finally:
        await layer.close()


@contextlib.asynccontextmanager
async def offline(settings: Settings) -> AsyncIterator[Layer]:
    """Have a layer that can make calls, and does nothing by itself, for the length of a block."""
    control, keyring = await open_control_plane(settings)
    layer = Layer(settings, control, keyring)
    try:
        await layer.policy.start()
        yield layer
    finally:
        await layer.close()
