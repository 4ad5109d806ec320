"""The composition root: the only place where the parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane
from erp.control_plane.relay import OutboxRelay
from erp.errors import ProviderError
from erp.gateway.administration import PLATFORM, Administration
from erp.gateway.app import Gateway, pages
from erp.gateway.configuration import Configuration
from erp.gateway.credentials import Credentials
from erp.gateway.discovery import Discovery
from erp.gateway.invoke import InvokeRoute
from erp.gateway.links import LinkRoutes
from erp.gateway.status import Status
from erp.runtime.calls import Calls
from erp.runtime.caretaker import Caretaker
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.delivery import BusDelivery
from erp.runtime.observation import Observer
from erp.runtime.plan import PlanBook
from erp.runtime.pool import ProviderPool, safe_name
from erp.runtime.service_calls import service_context
from erp.security.identity import KeyIdentity
from erp.security.keyring import Keyring
from erp.security.links import SealedLinks
from erp.security.platform_identity import PlatformIdentity
from erp.security.policy import RolePolicy
from erp.security.tokens import Tokens
from erp.security.vault import EnvelopeVault
from erp.services.order.follow_up import OrderFollowUp
from erp.services.order.service import OrderService
from erp.telemetry.call_log import CallLog
from erp.telemetry.call_metrics import CallMetrics
from erp.telemetry.trace import Spans

if TYPE_CHECKING:
    from erp.runtime.context import CallContext

DEFAULT_URL = "http://127.0.0.1:8080"
EVICTION_SECONDS = 30.0
FOLLOW_UP_SECONDS = 60.0


def default_data_dir() -> Path:
    """Return ``ERP_DATA_DIR``, or a folder of the user."""
    if configured := os.environ.get("ERP_DATA_DIR"):
        return Path(configured)
    shared = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(shared) / "erp"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process needs to know before it starts."""

    data_dir: Path = field(default_factory=default_data_dir)
    database_url: str | None = field(default_factory=lambda: os.environ.get("ERP_DATABASE_URL"))
    log_level: str = field(default_factory=lambda: os.environ.get("ERP_LOG_LEVEL", "info").lower())

    public_url: str | None = field(default_factory=lambda: os.environ.get("ERP_PUBLIC_URL"))
    """Where the gateway is reached from outside: what links begin with. None: where it listens."""

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
        keyring = Keyring.open(settings.data_dir)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"The data directory {settings.data_dir} cannot be used: {reason}. Choose another with --data-dir."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    control = await ControlPlane.open(settings.data_dir, settings.database_url, pepper=keyring.pepper)
    return control, keyring


class Layer:
    """Everything that runs in one process, started and stopped in order."""

    def __init__(self, settings: Settings, control: ControlPlane, keyring: Keyring) -> None:
        self.settings = settings
        self.control = control
        self.metrics = CallMetrics()
        self.log = CallLog(enabled=settings.log_level in {"debug", "info"})
        self.spans = Spans.from_environment()
        self.vault = EnvelopeVault(control.secrets, keyring)
        self.links = SealedLinks(keyring.pepper, (settings.public_url or DEFAULT_URL).rstrip("/"))
        self.policy = RolePolicy()
        self.catalog = ProviderCatalog.load(settings.drop_in_dir)
        self.tokens = Tokens(self.vault)
        keys = KeyIdentity(control.api_keys, keyring.pepper, self.tokens)
        self.identity = PlatformIdentity(keys, self.tokens, control.api_keys, self.policy, self.catalog)
        self.pool = ProviderPool(
            self.catalog,
            data_dir=settings.data_dir,
            models_dir=settings.models_dir,
            vault=self.vault,
            identity=self.identity,
            links=self.links,
            reminders=control.reminders,
        )
        self.plans = PlanBook(self.catalog, self.pool, control.connections)
        self.calls = Calls(
            plans=self.plans,
            policy=self.policy,
            quotas=control.quotas,
            journal=control.journal,
            connections=control.connections,
            observer=Observer(self.metrics, self.log, self.spans),
        )
        self.follow_up = OrderFollowUp(context_for=self._order_context, tenants=self._tenants)
        self.plans.add_service("order", OrderService(self.follow_up))
        self.caretaker = Caretaker(
            reminders=control.reminders, plans=self.plans, pool=self.pool, journal=control.journal
        )
        self.relay = OutboxRelay(control.outbox, BusDelivery(self.calls).deliver)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, settings: Settings) -> Layer:
        """Start everything; when this returns, calls can be served."""
        control, keyring = await open_control_plane(settings)
        layer = cls(settings, control, keyring)
        control.journal.on_events = layer.relay.nudge
        control.reminders.on_set = layer.caretaker.nudge
        layer._tasks = [
            asyncio.create_task(layer.relay.run(), name="outbox relay"),
            asyncio.create_task(layer.follow_up.run(), name="order follow-up"),
            asyncio.create_task(layer.caretaker.run(), name="caretaker"),
            asyncio.create_task(layer._evict(), name="pool eviction"),
        ]
        return layer

    async def close(self) -> None:
        """Stop in the reverse order: no new calls, workers, providers, the platform's memory."""
        self.calls.is_draining = True
        await self.follow_up.stop()
        await self.relay.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pool.close()
        await self.control.close()
        self.log.flush()
        self.spans.close()

    def _order_context(self, tenant: str) -> CallContext:
        return service_context(
            self.calls, self.control.journal, service="order", tenant=tenant, seconds=FOLLOW_UP_SECONDS
        )

    async def _tenants(self) -> list[str]:
        """Return the tenants that have a database: only they can have open orders."""
        found = []
        for tenant in await self.control.tenants.ids():
            used = self.settings.data_dir / "tenants" / safe_name(tenant) / "db"
            if used.exists() or await self.control.connections.list(tenant, domain="db"):
                found.append(tenant)
        return found

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
        credentials = Credentials(self.identity, self.policy)
        configuration = Configuration(
            catalog=self.catalog,
            control=self.control,
            vault=self.vault,
            pool=self.pool,
            plans=self.plans,
            credentials=credentials,
        )
        administration = Administration(
            control=self.control, identity=self.identity, plans=self.plans, credentials=credentials
        )
        rest = pages(
            credentials=credentials,
            discovery=Discovery(self.catalog, self.plans, self.pool, self.metrics),
            configuration=configuration,
            administration=administration,
            links=LinkRoutes(self.links, self.calls, self.control.tenants),
            status=Status(self.calls, self.metrics, {"control_plane": self.control.ping}, credentials),
        )
        return Gateway(InvokeRoute(self.calls, self.catalog, credentials), rest)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Layer]:
    """Run a layer for the length of a block."""
    layer = await Layer.open(settings)
    try:
        yield layer
    finally:
        await layer.close()
