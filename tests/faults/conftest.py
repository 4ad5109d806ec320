"""A layer whose connections lead through a proxy that breaks, to every live server that is there."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
import pytest
from tests.conformance.live import LIVE, PRESENT
from tests.faults.effects import EFFECTS, Effect
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.server_process import ServerProcess

from erp.cli.conformance_host import hosting
from erp.errors import ProviderError
from erp.runtime.call import Call
from erp.runtime.conformance.host import ALPHA, BETA, Host
from erp.runtime.context import Actor
from erp.telemetry.ids import continued, new_request_id
from erp.vendor_clients.egress import ALLOW_VARIABLE

SERVICES = Path(__file__).parents[2] / "scripts/services.d"
OPEN_SECONDS = 0.3
POLICY = {
    "timeout_seconds": 20,
    "retry": {"max_attempts": 1},
    "breaker": {"failure_threshold": 4, "window_seconds": 60, "open_seconds": OPEN_SECONDS},
}
PATIENCE_SECONDS = 30.0

_numbers = itertools.count(1)
_encode = msgspec.json.Encoder(decimal_format="string").encode


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One loop for a module: the layer lives in it."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module", autouse=True)
def loopback() -> Iterator[None]:
    """Let tenants reach this machine."""
    before = os.environ.get(ALLOW_VARIABLE)
    os.environ[ALLOW_VARIABLE] = "127.0.0.0/8"
    yield
    if before is None:
        del os.environ[ALLOW_VARIABLE]
    else:
        os.environ[ALLOW_VARIABLE] = before


@pytest.fixture(scope="module")
async def host(loopback: None) -> AsyncIterator[Host]:
    """The layer."""
    del loopback
    async with hosting() as running:
        yield running


class Line:
    """One tenant's connection to a server, through the proxy or straight."""

    def __init__(self, host: Host, ref: str, tenant: str, config: dict[str, Any], proxy: FaultyProxy) -> None:
        self.host = host
        self.ref = ref
        self.tenant = tenant
        self.config = config
        self.proxy = proxy
        self.domain, _, self.provider = ref.partition("/")
        self.name = f"line-{secrets.token_hex(4)}"  # servers keep what an earlier run has left
        self.target = (self.provider, self.name)
        """Whom calls name: provider and connection."""
        self.answered_by = ""
        """The connection that the last answer came from."""
        self.effect: Effect = EFFECTS[self.domain](self)

    async def connect(self) -> Line:
        """Configure the connection and make what its calls need."""
        await self.configure(POLICY)
        await self.effect.prepare()
        return self

    async def configure(self, policy: dict[str, Any]) -> None:
        """Configure the connection."""
        body = {"connection": self.name, "config": self.config, "policy": policy}
        status, answer = await self.host.ask("POST", f"/providers/{self.ref}/configure", self.tenant, body)
        assert status == 200, answer

    async def close(self) -> None:
        """Remove the connection."""
        await self.host.disconnect(self.tenant, self.host.catalog.provider(self.domain, self.provider), self.name)

    async def call(
        self, action: str, params: dict[str, Any], *, key: str | None = None, seconds: float | None = None
    ) -> Any:
        """Call an action through the whole pipeline."""
        contract = self.host.catalog.action("providers", self.domain, action)
        request, _ = contract.decode(_encode({"params": params}))
        actor = Actor(id=f"key_{self.tenant}", tenant=self.tenant, roles=frozenset({"developer"}))
        call = Call(
            action=contract,
            actor=actor,
            provider=self.target[0],
            connection=self.target[1],
            request=request,
            request_id=new_request_id(),
            traceparent=continued(None),
            timeout_seconds=seconds,
            idempotency_key=key,
        )
        answer = await self.host.calls.invoke(call)
        self.answered_by = answer.connection
        return msgspec.json.decode(answer.data)

    async def failure(self, work: Awaitable[Any]) -> ProviderError:
        """Return what a call fails with; it must fail."""
        with pytest.raises(ProviderError) as caught:
            await work
        return caught.value

    async def recovered(self) -> float:
        """Wait until a read and a write work again; return the seconds that took."""
        begun = time.monotonic()
        while True:
            try:
                await self.effect.read()
                await self.effect.write(f"after-{next(_numbers)}")
            except ProviderError as error:
                if time.monotonic() - begun > PATIENCE_SECONDS:
                    pytest.fail(f"{self.ref} never recovered: {error} {error.detail or ''}")
                await asyncio.sleep(0.05)
            else:
                return time.monotonic() - begun

    @property
    def doubles(self) -> bool:
        """Whether a repeat may take effect a second time: events reach a bus without deduplication at least once."""
        capabilities = self.host.catalog.provider(self.domain, self.provider).capabilities
        return self.domain == "bus" and "deduplication" not in capabilities

    async def breaker(self) -> str:
        """State of its breaker."""
        connection = await self.host.calls.plans.connection(self.tenant, self.domain, self.provider, self.name)
        return self.host.calls.plans.breaker_state(connection)


async def until(is_true: Callable[[], Awaitable[bool]], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until it is so."""
    ends = time.monotonic() + seconds
    while not await is_true():
        assert time.monotonic() < ends, what
        await asyncio.sleep(0.05)


def through(address: str, proxy: FaultyProxy) -> str:
    """Return the address of a server with the proxy's in its place."""
    url = _url(address)
    credentials = url.netloc.rpartition("@")[0]
    place = f"127.0.0.1:{proxy.port}"
    if not url.scheme:
        return place
    return url._replace(netloc=f"{credentials}@{place}" if credentials else place).geturl()


def _url(address: str) -> SplitResult:
    return urlsplit(address if "//" in address else f"//{address}")


def place_of(address: str) -> tuple[str, int]:
    """Return host and port of a server."""
    url = _url(address)
    assert url.hostname
    assert url.port
    return url.hostname, url.port


def address_of(ref: str) -> str:
    """Return where the live server of a provider is."""
    return PRESENT[ref]


_running: dict[str, ServerProcess] = {}


def server_of(ref: str) -> ServerProcess:
    """A server of its own for the module, shared by the providers that reach the same kind."""
    name = LIVE[ref].VARIABLE.removeprefix("ERP_TEST_").lower()
    if not (SERVICES / name).exists():
        pytest.skip(f"{ref}: scripts/services starts no {name}, and the one in {LIVE[ref].VARIABLE} is not ours")
    if name not in _running:
        _running[name] = ServerProcess(name)
    return _running[name]


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[None]:
    """End them in the end."""
    yield
    while _running:
        _running.popitem()[1].close()


NOT_RESTARTED = {
    "db/snowflake": "fakesnow forgets all tables",
    "bus/kafka": "the mock cluster of librdkafka holds all of it in memory, and is on another port the next time",
    "storage/azure": "Azurite, started again as the tests start it, forgets even the container",
    "storage/s3": "moto forgets even the bucket: there is nothing to come back to",
}
"""Providers whose server cannot be killed and started again here, each with what was seen."""


def restarted() -> list[Any]:
    """Every provider with a server to kill and start again; the others are skipped by name."""
    return [
        pytest.param(one, marks=pytest.mark.skip(reason=f"{one}: {NOT_RESTARTED[one]}") if one in NOT_RESTARTED else ())
        for one in FAULTED
    ]


FAULTED = [ref for ref in PRESENT if ref.partition("/")[0] in EFFECTS]
"""Those whose server is there and that have something to lose."""


def not_faulted(ref: str) -> str:
    """Why there are no faults of a provider here."""
    if ref.partition("/")[0] not in EFFECTS:
        return f"faults are for what keeps data ({', '.join(sorted(EFFECTS))}), not for {ref}"
    return f"faults of {ref} need {LIVE[ref].VARIABLE}"


@pytest.fixture(params=FAULTED)
def ref(request: pytest.FixtureRequest) -> str:
    """Every provider whose server is there."""
    found: str = request.param
    return found


@pytest.fixture
async def proxy(ref: str) -> AsyncIterator[FaultyProxy]:
    """The proxy in front of the provider's server."""
    host, port = place_of(address_of(ref))
    async with faulty_proxy(host, port) as made:
        if ref == "bus/kafka":  # brokers are reached where they say they are
            made.renamed = _as_kafka_says(host, port), _as_kafka_says("127.0.0.1", made.port)
        yield made


def _as_kafka_says(host: str, port: int) -> bytes:
    """An address as brokers tell it: a string and INT32 (https://kafka.apache.org/protocol, Metadata)."""
    return host.encode() + port.to_bytes(4)


@pytest.fixture
async def line(host: Host, ref: str, proxy: FaultyProxy) -> AsyncIterator[Line]:
    """A connection of tenant alpha through the proxy."""
    config = dict(LIVE[ref].config(through(address_of(ref), proxy)))
    made = await Line(host, ref, ALPHA, config, proxy).connect()
    yield made
    await made.close()


@pytest.fixture
async def neighbour(host: Host, ref: str, proxy: FaultyProxy) -> AsyncIterator[Line]:
    """A connection of tenant beta straight to the server."""
    made = await Line(host, ref, BETA, dict(LIVE[ref].config(address_of(ref))), proxy).connect()
    yield made
    await made.close()
