"""What a case works with: a provider configured in a running layer, called as any caller would call it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from erp.errors import ProviderError
from erp.runtime import loader
from erp.runtime.call import Call
from erp.runtime.conformance.host import ALPHA, PATIENT, Host
from erp.runtime.conformance.peers import Site, filled
from erp.runtime.conformance.samples import Sample, Step, echo, sample
from erp.runtime.context import Actor, CallContext
from erp.runtime.plan import implicit
from erp.runtime.service_calls import service_actor
from erp.telemetry.ids import continued, new_request_id

if TYPE_CHECKING:
    from erp.runtime.action import Action
    from erp.runtime.context import EmittedEvent
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.spi import OpenContext

_encode = msgspec.json.Encoder(decimal_format="string").encode
_numbers = itertools.count(1)
_RUN = secrets.token_hex(3)
"""Servers outlive a run and keep what it has made."""
BARE_SECONDS = 5.0
"""Given to a call of a bare provider."""
PATIENCE_SECONDS = 20.0
"""Longer than anything takes that happens at all, shorter than a case may take."""


class CaseError(AssertionError):
    """The provider broke a rule; the message says how."""


def require(condition: object, message: str) -> None:
    """Fail the case with ``message`` unless ``condition`` holds."""
    if not condition:
        raise CaseError(message)


@dataclass(slots=True)
class Recorded:
    """One call of a case."""

    action: Action
    params: Mapping[str, Any]
    result: bytes | None = None
    error: ProviderError | None = None
    emitted: list[EmittedEvent] = field(default_factory=list)


@dataclass(slots=True)
class Recording:
    """Everything that the cases of one provider have seen."""

    calls: list[Recorded] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)


class Bench:
    """One case's view of the provider under test. Every case has a connection of its own."""

    def __init__(
        self,
        host: Host,
        manifest: ProviderManifest,
        config: Mapping[str, Any],
        recording: Recording,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.credentials = credentials or host.credentials
        """Tenant -> a credential that the provider's identity knows: given for the run, else the platform's own."""
        self.manifest = manifest
        self.peer: Site = host.peers.site()
        """What the kit plays for providers whose settings lead to it (``{peer}``)."""
        self.config: dict[str, Any] = filled(config, self.peer, host.peers)
        self.recording = recording
        self.connection = f"case-{next(_numbers)}"
        self._configured: set[tuple[str, str]] = set()
        self._connecting = asyncio.Lock()
        self.last: Recorded | None = None
        """The newest call of this case that was no stream."""

    @property
    def domain(self) -> str:
        """``cache`` of ``cache/redis``."""
        return self.manifest.domain

    def declares(self, capability: str) -> bool:
        """Whether the manifest declares ``capability``."""
        return capability in self.manifest.capabilities

    def settings(self, section: str) -> dict[str, Any]:
        """Return the configuration with what ``conformance.<section>`` of the manifest says otherwise."""
        other = filled(self.manifest.conformance.get(section) or {}, self.peer, self.host.peers)
        return {**self.config, **other}

    def sample(self) -> Sample:
        """Return one cheap call that succeeds: the manifest's (``conformance.sample``), else the domain's."""
        own = self.manifest.conformance.get("sample")
        return sample(self.domain, self.unique(), own)

    def echo(self) -> list[Step]:
        """Return calls to be made in that order, whose answers show that they are for nobody else."""
        return echo(self.domain, self.unique(), self.manifest.conformance.get("sample"))

    def action(self, name: str) -> Action:
        """Return the contract of an action."""
        return self.host.catalog.action("providers", self.domain, name)

    def unique(self, prefix: str = "n") -> str:
        """Return a name nobody has used before, on this server either."""
        return f"{prefix}-{_RUN}-{next(_numbers)}"

    # -- connections -----------------------------------------------------------------------------

    async def connect(
        self, *, tenant: str = ALPHA, connection: str | None = None, config: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """Configure a connection through the gateway; return the status and the answer."""
        name = connection or self.connection
        body = {"connection": name, "config": self.config if config is None else dict(config), "policy": PATIENT}
        path = f"/providers/{self.manifest.ref}/configure"
        status, answer = await self.host.ask("POST", path, tenant, body)
        if status == 200:  # noqa: PLR2004  (HTTP OK)
            self._configured.add((tenant, name))
        return status, answer

    async def connected(self, *, config: Mapping[str, Any] | None = None) -> None:
        """Have the case's connection without a call, and without being asked whether its peer is up."""
        if config is None:
            await self._connected(ALPHA, self.connection)
            return
        await self.host.connect(ALPHA, self.manifest, self.connection, config)
        self._configured.add((ALPHA, self.connection))

    async def _connected(self, tenant: str, connection: str) -> None:
        if (tenant, connection) in self._configured:
            return
        async with self._connecting:
            if (tenant, connection) not in self._configured:
                await self.host.connect(tenant, self.manifest, connection, self.config)
                self._configured.add((tenant, connection))

    async def close(self) -> None:
        """Remove what the case has configured."""
        for tenant, name in self._configured:
            await self.host.disconnect(tenant, self.manifest, name)
        self._configured.clear()
        self.host.peers.forget(self.peer)

    # -- calls -----------------------------------------------------------------------------------

    async def call(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        tenant: str = ALPHA,
        connection: str | None = None,
        seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Call an action; return its result as JSON.

        Raises:
            ProviderError: what the call was answered with.
        """
        name = connection or self.connection
        await self._connected(tenant, name)
        recorded = Recorded(self.action(action), params or {})
        call = self._call(recorded, tenant, name, seconds=seconds, idempotency_key=idempotency_key)
        self.recording.calls.append(recorded)
        self.last = recorded
        try:
            answer = await self.host.calls.invoke(call)
        except ProviderError as error:
            recorded.error = error
            raise
        finally:
            recorded.emitted = call.context.emitted if call.context else []
        recorded.result = answer.data
        return msgspec.json.decode(answer.data)

    def _call(
        self,
        recorded: Recorded,
        tenant: str,
        connection: str,
        *,
        seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> Call:
        action = recorded.action
        request, _ = action.decode(_encode({"params": recorded.params}))
        developer = Actor(id=f"key_{tenant}", tenant=tenant, roles=frozenset({"developer"}))
        return Call(
            action=action,
            actor=service_actor("conformance", tenant) if action.internal else developer,
            provider=self.manifest.name,
            connection=connection,
            request=request,
            request_id=new_request_id(),
            traceparent=continued(None),
            timeout_seconds=seconds,
            idempotency_key=idempotency_key,
        )

    @asynccontextmanager
    async def stream(
        self, action: str, params: Mapping[str, Any] | None = None, *, tenant: str = ALPHA
    ) -> AsyncGenerator[AsyncGenerator[Any]]:
        """``async with bench.stream("read", {...}) as items``: the items of a streaming action, closed at the end."""
        await self._connected(tenant, self.connection)
        recorded = Recorded(self.action(action), params or {})
        self.recording.calls.append(recorded)
        call = self._call(recorded, tenant, self.connection)
        async with (
            aclosing(await self._streamed(recorded, call)) as encoded,
            aclosing(self._decoded(recorded, encoded)) as items,
        ):
            yield items

    async def _streamed(self, recorded: Recorded, call: Call) -> AsyncGenerator[bytes]:
        try:
            return await self.host.calls.stream(call)
        except ProviderError as error:
            recorded.error = error
            raise

    async def _decoded(self, recorded: Recorded, encoded: AsyncGenerator[bytes]) -> AsyncGenerator[Any]:
        try:
            async for item in encoded:
                recorded.result = item
                yield msgspec.json.decode(item)
        except ProviderError as error:
            recorded.error = error
            raise

    async def items(
        self, action: str, params: Mapping[str, Any] | None = None, *, take: int | None = None, tenant: str = ALPHA
    ) -> list[Any]:
        """Return the first ``take`` items of a streaming action, or all."""
        found: list[Any] = []
        async with self.stream(action, params, tenant=tenant) as items:
            async for item in items:
                found.append(item)
                if take is not None and len(found) >= take:
                    break
        return found

    async def refused(
        self,
        code: str,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        tenant: str = ALPHA,
        connection: str | None = None,
        seconds: float | None = None,
    ) -> ProviderError:
        """Call an action that must be refused with ``code``; return the refusal."""
        try:
            result = await self.call(action, params, tenant=tenant, connection=connection, seconds=seconds)
        except ProviderError as error:
            require(error.code == code, f"{action} {_short(params)} was refused with {error.code}, not {code}: {error}")
            return error
        raise CaseError(f"{action} {_short(params)} must be refused with {code}, and answered {_short(result)}")

    async def refused_with(self, codes: set[str], action: str, params: Mapping[str, Any]) -> ProviderError:
        """Call an action that must be refused with one of ``codes``; return the refusal."""
        try:
            result = await self.call(action, params)
        except ProviderError as error:
            require(error.code in codes, f"{action} {_short(params)} was refused with {error.code}: {error}")
            return error
        raise CaseError(f"{action} {_short(params)} must be refused, and answered {_short(result)}")

    async def refused_stream(
        self, code: str, action: str, params: Mapping[str, Any] | None = None, *, tenant: str = ALPHA
    ) -> ProviderError:
        """Call a streaming action that must be refused with ``code`` before its first item; return the refusal."""
        try:
            items = await self.items(action, params, take=1, tenant=tenant)
        except ProviderError as error:
            require(error.code == code, f"{action} {_short(params)} was refused with {error.code}, not {code}: {error}")
            return error
        raise CaseError(f"{action} {_short(params)} must be refused with {code}, and answered {len(items)} items")

    async def equal(self, action: str, params: Mapping[str, Any], expected: Mapping[str, Any]) -> Any:
        """Call an action whose result must have (at least) the ``expected`` members; return the result."""
        result = await self.call(action, params)
        wrong = {name: result.get(name) for name, value in expected.items() if result.get(name) != value}
        require(not wrong, f"{action} {_short(params)}: expected {_short(expected)}, got {_short(wrong)}")
        return result

    async def seconds(self, action: str, params: Mapping[str, Any]) -> float:
        """Call an action; return how long it took, so that a case can come in the middle of the next one."""
        started = time.monotonic()
        await self.call(action, params)
        return time.monotonic() - started

    async def eventually(self, is_true: Callable[[], Awaitable[object]], what: str | Callable[[], str]) -> None:
        """Wait until ``is_true`` answers so; fail after 20 s, saying that ``what`` did not happen."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while not await is_true():
            if time.monotonic() > ends:
                told = what if isinstance(what, str) else what()
                raise CaseError(f"within {PATIENCE_SECONDS:g} s it did not happen that {told}")
            await asyncio.sleep(0.01)

    @staticmethod
    def decoded(one: Recorded) -> Any:
        """Return the result of a recorded call as JSON."""
        return msgspec.json.decode(one.result) if one.result is not None else None

    def emitted(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and data of the events that the newest call has emitted."""
        return [(event.name, event.data) for event in self.last.emitted] if self.last else []

    # -- the bare provider -----------------------------------------------------------------------

    def place(self) -> OpenContext:
        """Return where an open provider lives: a connection, and a folder, that nobody has used before."""
        connection = implicit(ALPHA, self.domain, self.manifest.name)
        return self.host.pool.place(msgspec.structs.replace(connection, name=self.unique("bare")))

    def bare(self, config: Mapping[str, Any] | None = None, *, place: OpenContext | None = None) -> Any:
        """Return a new, unopened object of the provider's class (for the rules of its life)."""
        settings = {**self.manifest.defaults, **(self.config if config is None else config)}
        return self.host.pool.load(self.manifest)(settings, place or self.place())

    async def bare_call(
        self, provider: Any, action: str, params: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Any:
        """Call an object of the provider's class itself: nothing of the layer repeats, remembers or translates."""
        context = CallContext(
            tenant=ALPHA,
            actor=Actor(id="key_alpha", tenant=ALPHA, roles=frozenset({"developer"})),
            request_id=new_request_id(),
            deadline=time.monotonic() + BARE_SECONDS,
            idempotency_key=idempotency_key,
        )
        request = msgspec.convert(params, self.action(action).request_type)
        return await getattr(provider, action)(request, context)


def _short(value: Any) -> str:
    text = _encode(value).decode("utf-8", "replace")
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"  # noqa: PLR2004


def load_class(manifest: ProviderManifest) -> type[Any]:
    """Return the provider's class as the pool would."""
    return loader.load(manifest)
