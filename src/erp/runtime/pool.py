"""Open providers: one per tenant and connection, opened once, drained before they are closed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import loader
from erp.runtime.secret_references import SecretReferences, Use, uses
from erp.runtime.spi import Health, OpenContext
from erp.runtime.translation import is_cancelled, translated

if TYPE_CHECKING:
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.overlaps import OverlapKeeper
    from erp.runtime.ports import Connection, Identity, LinkMaker, Reminders, SecretVault

_log = logging.getLogger(__name__)

Key = tuple[str, str, str, str]
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(slots=True)
class PoolSettings:
    """When open providers are closed. Times in seconds."""

    idle_seconds: float = 600.0
    drain_seconds: float = 10.0
    open_timeout_seconds: float = 30.0
    close_timeout_seconds: float = 10.0


@dataclass(eq=False, repr=False)
class OpenProvider:
    """A provider that has been opened, with the number of calls inside it."""

    provider: Any
    manifest: ProviderManifest
    connection: Connection
    running: int = 0
    last_used: float = field(default_factory=time.monotonic)
    is_closing: bool = False
    on_refused: Callable[[Connection], None] = field(default=lambda _: None)
    """Called when the peer has refused the credentials."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __repr__(self) -> str:
        tenant, *_, name = key_of(self.connection)
        return f"OpenProvider({self.manifest.ref}, tenant={tenant!r}, connection={name!r}, running={self.running})"

    def enter(self) -> None:
        """Count one more call inside."""
        self.running += 1

    def leave(self) -> None:
        """Count one call fewer; the last one wakes a pending close."""
        self.running -= 1
        self.last_used = time.monotonic()
        if self.is_closing and self.running == 0:
            self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Wait until no call is inside, at most ``seconds``."""
        self.is_closing = True
        if self.running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)


@dataclass(eq=False)
class _Flight:
    """One provider being opened."""

    revision: str
    task: asyncio.Task[OpenProvider] = field(init=False)


class ProviderPool:
    """Hands out open providers. Concurrent first calls share one ``open``."""

    def __init__(  # noqa: PLR0913  (one argument per port; callers pass them by name)
        self,
        catalog: ProviderCatalog,
        *,
        data_dir: Path,
        models_dir: Path,
        vault: SecretVault,
        identity: Identity,
        links: LinkMaker,
        reminders: Reminders,
        overlaps: OverlapKeeper,
        settings: PoolSettings | None = None,
        load: Callable[[ProviderManifest], type[Any]] = loader.load,
    ) -> None:
        self.catalog = catalog
        self.settings = settings or PoolSettings()
        self._data_dir = data_dir
        self._models_dir = models_dir
        self._vault = vault
        self._identity = identity
        self._links = links
        self.load = load
        """Finds the class of a provider."""
        self._reminders = reminders
        self._overlaps = overlaps
        self.secrets = SecretReferences(vault, self)
        self._open: dict[Key, OpenProvider] = {}
        self._flights: dict[Key, _Flight] = {}
        self._opening: set[asyncio.Task[OpenProvider]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self.on_retired: Callable[[], None] = lambda: None
        """Called after open providers were taken out of use; whoever holds one lets go of it."""
        self.on_refused: Callable[[Connection], None] = lambda _: None
        """Called with a connection whose credentials its peer has refused: there may be newer ones."""
        self._draining: set[OpenProvider] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._open)

    def holds(self, key: Key) -> bool:
        """Whether there is an open provider for a connection."""
        return key in self._open

    async def acquire(self, connection: Connection) -> OpenProvider:
        """Return the open provider of ``connection``, opening it when needed.

        When the connection changed or went away meanwhile, the answer ``is_closing``: read the
        connection again.

        Raises:
            ProviderError: what ``open`` raised, or ``unavailable`` when it took too long.
        """
        key = key_of(connection)
        found = self._open.get(key)
        if found is not None and found.connection.revision == connection.revision and not found.is_closing:
            return found
        if self._is_closed:
            raise _shutting_down()
        flight = self._flights.get(key)
        if flight is None or flight.revision != connection.revision:
            flight = self._start(key, connection)
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.task.cancelled() and not is_cancelled():
                raise _shutting_down() from None
            raise

    def _start(self, key: Key, connection: Connection) -> _Flight:
        """Begin to open; a flight of another revision still lands, but its provider is not used."""
        flight = _Flight(connection.revision)
        flight.task = asyncio.ensure_future(self._fly(key, flight, connection))
        self._flights[key] = flight
        self._opening.add(flight.task)
        flight.task.add_done_callback(self._opening.discard)
        return flight

    async def _fly(self, key: Key, flight: _Flight, connection: Connection) -> OpenProvider:
        try:
            opened = await self._open_as_known(connection)
            if self._flights.get(key) is flight:
                self._replace(key, opened)
            else:
                self.retire(opened)
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
        return opened

    async def _open_as_known(self, connection: Connection) -> OpenProvider:
        """Open with the versions that were proven; when those are refused and there are newer ones, with these."""
        try:
            return await self.open_unpooled(connection)
        except ProviderError as error:
            if error.code is not ErrorCode.UNAUTHENTICATED or not connection.versions:
                raise
            newest = await self.secrets.newest_of(connection)
            if newest == connection.versions:
                raise
        opened = await self.open_unpooled(msgspec.structs.replace(connection, versions=newest))
        self.on_refused(connection)
        return opened

    def _refused(self, connection: Connection) -> None:
        self.on_refused(connection)

    def opened(self) -> list[Connection]:
        """Return the connections that have an open provider."""
        return [opened.connection for opened in self._open.values()]

    def is_in_use(self, tenant: str, version: set[Use]) -> bool:
        """Whether a provider that is open, or not closed yet, was opened with this version of a secret."""
        opened = (one.connection for one in (*self._open.values(), *self._draining))
        return any(one.tenant == tenant and version & uses(one.secrets, one.versions) for one in opened)

    def _replace(self, key: Key, opened: OpenProvider) -> None:
        previous = self._open.get(key)
        self._open[key] = opened
        if previous is not None:
            self.retire(previous)
            self.on_retired()

    async def open_unpooled(self, connection: Connection, manifest: ProviderManifest | None = None) -> OpenProvider:
        """Open a provider without putting it in the pool: to try a configuration, or another build of the provider."""
        manifest = manifest or self.catalog.provider(connection.domain, connection.provider)
        config, versions = await self._settings_of(connection, manifest)
        provider = self.load(manifest)(config, self.place(connection))
        try:
            async with asyncio.timeout(self.settings.open_timeout_seconds):
                await provider.open()
        except BaseException as error:
            await self._close_quietly(provider, manifest.ref)
            made = _opening_failed(manifest, provider, error)
            if made is error:
                raise
            raise made from error
        opened_with = msgspec.structs.replace(connection, versions=versions)
        return OpenProvider(provider, manifest, opened_with, on_refused=self._refused)

    async def configuration(
        self, connection: Connection, manifest: ProviderManifest | None = None
    ) -> Mapping[str, Any]:
        """Return the configuration of a connection with its defaults and its secrets in plain text.

        Raises:
            ProviderError: ``not_found`` when a secret is gone.
        """
        manifest = manifest or self.catalog.provider(connection.domain, connection.provider)
        return (await self._settings_of(connection, manifest))[0]

    async def _settings_of(
        self, connection: Connection, manifest: ProviderManifest
    ) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        secrets, versions = await self.secrets.values(connection)
        return {**manifest.defaults, **connection.config, **secrets}, versions

    def place(self, connection: Connection) -> OpenContext:
        """Return where the provider of ``connection`` lives; makes its folder."""
        where = Path(connection.domain, connection.provider, safe_name(connection.name))
        data_dir = self._data_dir / "tenants" / safe_name(connection.tenant) / where
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return OpenContext(
            tenant=connection.tenant,
            connection=connection.name,
            data_dir=data_dir,
            shared_dir=self._models_dir,
            vault=self._vault,
            identity=self._identity,
            links=self._links.of(*key_of(connection)),
            remind=partial(self._reminders.set, *key_of(connection)),
            overlaps=self._overlaps.at(*key_of(connection)),
        )

    async def health(self, connection: Connection) -> Health:
        """Ask the provider of ``connection``; a provider that cannot be opened is ``down``."""
        started = time.perf_counter()
        try:
            opened = await self.acquire(connection)
            async with asyncio.timeout(5.0):
                health: Health = await opened.provider.health()
        except ProviderError as error:
            health = Health(status="down", message=error.message)
        except TimeoutError:
            health = Health(status="down", message="The provider did not answer its health check within 5 s.")
        except Exception as error:  # noqa: BLE001  (health reports failures, whatever they are)
            _log.warning("health check of %s failed", key_of(connection), exc_info=error)
            health = Health(status="down", message="The health check failed; see the server log.")
        health.latency_ms = round((time.perf_counter() - started) * 1000, 3)
        return health

    def discard(self, tenant: str, domain: str, provider: str, name: str) -> None:
        """Close a connection's open provider once its calls have ended."""
        key = (tenant, domain, provider, name)
        self._flights.pop(key, None)
        opened = self._open.pop(key, None)
        if opened is not None:
            self.retire(opened)
            self.on_retired()

    def of_provider(self, ref: str) -> list[OpenProvider]:
        """Return the open providers of this name, over all tenants."""
        return [opened for opened in self._open.values() if opened.manifest.ref == ref]

    def adopt(self, opened: OpenProvider) -> None:
        """Let calls of its connection go to ``opened``; what they went to closes after its last call."""
        key = key_of(opened.connection)
        self._flights.pop(key, None)
        self._replace(key, opened)

    def put(self, opened: OpenProvider, instead_of: OpenProvider) -> None:
        """Let calls go to ``opened``; its predecessor closes after its last call.

        When its predecessor has gone meanwhile, nobody asked for ``opened`` any more, and it is closed.
        """
        key = key_of(opened.connection)
        if self._open.get(key) is instead_of:
            self._replace(key, opened)
        else:
            self.retire(opened)

    def retire_outdated(self, ref: str) -> None:
        """Close every open provider of this name that the catalog no longer knows as it was opened."""
        current = self.catalog.providers.get(ref)
        for key in [key for key in self._flights if f"{key[1]}/{key[2]}" == ref]:
            del self._flights[key]
        outdated = [key for key, opened in self._open.items() if opened.manifest.ref == ref]
        for key in outdated:
            if self._open[key].manifest != current:
                self.retire(self._open.pop(key))
        self.on_retired()

    def evict_idle(self) -> int:
        """Close what has not been used for ``idle_seconds`` and keeps nothing in memory; return how many."""
        limit = time.monotonic() - self.settings.idle_seconds
        idle = [
            key
            for key, opened in self._open.items()
            if not opened.running and opened.last_used < limit and opened.manifest.scope != "process"
        ]
        for key in idle:
            self.retire(self._open.pop(key))
        if idle:
            self.on_retired()
        return len(idle)

    def retire(self, opened: OpenProvider) -> None:
        """Close a provider that gets no more calls, once those inside have ended."""
        opened.is_closing = True
        self._draining.add(opened)
        task = asyncio.ensure_future(self._drain_and_close(opened))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _drain_and_close(self, opened: OpenProvider) -> None:
        try:
            await opened.drain(self.settings.drain_seconds)
            await self._close_quietly(opened.provider, opened.manifest.ref)
        finally:
            self._draining.discard(opened)

    async def _close_quietly(self, provider: Any, ref: str) -> None:
        """Close a provider that nobody uses any more; what goes wrong then concerns no caller."""
        try:
            async with asyncio.timeout(self.settings.close_timeout_seconds):
                await provider.close()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            _log.warning("closing %s was cancelled from inside", ref)
        except Exception:  # noqa: BLE001  (a provider may raise anything)
            _log.exception("closing %s failed", ref)

    async def close(self) -> None:
        """Drain and close everything; later calls are refused as ``unavailable``."""
        self._is_closed = True
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for key in list(self._open):
            self.retire(self._open.pop(key))
        await asyncio.gather(*self._closing, return_exceptions=True)


def key_of(connection: Connection) -> Key:
    """What identifies an open provider."""
    return (connection.tenant, connection.domain, connection.provider, connection.name)


def safe_name(name: str) -> str:
    """Return ``name`` when it is a harmless file name, else a digest of it."""
    return name if _SAFE_NAME.fullmatch(name) else f"~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _shutting_down() -> ProviderError:
    return ProviderError(ErrorCode.UNAVAILABLE, "The layer is shutting down.", retry_after_seconds=5.0)


def _opening_failed(manifest: ProviderManifest, provider: Any, error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return ProviderError(ErrorCode.UNAVAILABLE, f"{manifest.title} did not open in time.", retry_after_seconds=5.0)
    if isinstance(error, asyncio.CancelledError) and not is_cancelled():
        return ProviderError(ErrorCode.UNAVAILABLE, f"{manifest.title} stopped while it opened.")
    return translated(provider, error, manifest.ref) if isinstance(error, Exception) else error
