"""Open providers are opened once, replaced without a gap and closed after their last call."""

import asyncio
import dataclasses
import logging
import time
from pathlib import Path

import pytest
from tests.conftest import MemoryVault
from tests.runtime.conftest import ToyLayer
from tests.runtime.toys import Script, ToyProvider, manifest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.pool import OpenProvider, key_of, safe_name
from erp.runtime.spi import Health

pytestmark = pytest.mark.anyio


async def settle() -> None:
    """Let closing providers close."""
    for _ in range(10):
        await asyncio.sleep(0)


async def failure(toy: ToyLayer, name: str = "default") -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await toy.pool.acquire(toy.connections.stored["acme", "toy", "box", name])
    return caught.value


async def test_fifty_first_calls_share_one_open(toy: ToyLayer) -> None:
    async def slowly(_: ToyProvider) -> None:
        await asyncio.sleep(0.01)

    toy.script.on_open = slowly
    connection = toy.connect()

    opened = await asyncio.gather(*(toy.pool.acquire(connection) for _ in range(50)))

    assert len(toy.script.opened) == 1
    assert {id(item) for item in opened} == {id(opened[0])}
    assert len(toy.pool) == 1


async def test_one_impatient_caller_does_not_stop_the_opening_for_the_others(toy: ToyLayer) -> None:
    go = asyncio.Event()

    async def slowly(_: ToyProvider) -> None:
        await go.wait()

    toy.script.on_open = slowly
    impatient, patient = (asyncio.create_task(toy.pool.acquire(toy.connect())) for _ in range(2))
    await settle()
    impatient.cancel()
    await settle()
    go.set()

    assert (await patient).provider is toy.script.opened[0]
    assert impatient.cancelled()
    assert len(toy.script.constructed) == 1


async def test_a_provider_lives_in_a_folder_of_its_own(toy: ToyLayer, tmp_path: Path) -> None:
    first = await toy.pool.acquire(toy.connect())
    second = await toy.pool.acquire(toy.connect(name="../Strange name"))

    assert first.provider.context.data_dir == tmp_path / "data/tenants/acme/toy/box/default"
    assert first.provider.context.data_dir.stat().st_mode & 0o777 == 0o700
    assert second.provider.context.data_dir.parent == first.provider.context.data_dir.parent
    assert second.provider.context.connection == "../Strange name"


def test_names_that_are_no_file_names_become_digests_no_other_name_can_have() -> None:
    digest = safe_name("A")

    assert safe_name("acme-1") == "acme-1"
    assert digest.startswith("~")
    assert safe_name(digest) != digest
    assert safe_name("a\n").startswith("~")


async def test_a_new_revision_replaces_the_old_one_which_closes_after_its_last_call(toy: ToyLayer) -> None:
    old = await toy.pool.acquire(toy.connect(revision="r1"))
    old.enter()

    new = await toy.pool.acquire(toy.connect(revision="r2"))
    await settle()

    assert old.is_closing
    assert toy.script.closed == []
    old.leave()
    await settle()
    assert toy.script.closed == [old.provider]
    assert not new.is_closing
    assert await toy.pool.acquire(toy.connect(revision="r2")) is new


async def test_a_call_that_does_not_end_holds_a_close_up_no_longer_than_the_drain_time(toy: ToyLayer) -> None:
    toy.pool.settings.drain_seconds = 0.05
    opened = await toy.pool.acquire(toy.connect())
    opened.enter()

    toy.pool.discard(*key_of(opened.connection))
    await asyncio.sleep(0.1)

    assert toy.script.closed == [opened.provider]
    opened.leave()


async def test_a_revision_that_opens_late_does_not_replace_a_newer_one(toy: ToyLayer) -> None:
    go = asyncio.Event()
    slow = Script()

    async def slowly(_: ToyProvider) -> None:
        await go.wait()

    slow.on_open = slowly
    late = asyncio.create_task(toy.pool.acquire(toy.connect(revision="r1", script=slow)))
    await settle()
    newer = await toy.pool.acquire(toy.connect(revision="r2"))
    go.set()

    assert (await late).is_closing
    await settle()
    assert slow.closed == slow.opened
    assert not newer.is_closing
    assert await toy.pool.acquire(toy.connect(revision="r2")) is newer


async def test_a_connection_removed_while_it_opens_is_not_kept(toy: ToyLayer) -> None:
    go = asyncio.Event()

    async def slowly(_: ToyProvider) -> None:
        await go.wait()

    toy.script.on_open = slowly
    connection = toy.connect()
    opening = asyncio.create_task(toy.pool.acquire(connection))
    await settle()
    toy.pool.discard(*key_of(connection))
    go.set()

    assert (await opening).is_closing
    await settle()
    assert len(toy.pool) == 0
    assert toy.script.closed == toy.script.opened


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ProviderError("unauthenticated", "The password is wrong."), ErrorCode.UNAUTHENTICATED),
        (ConnectionRefusedError("no"), ErrorCode.UNAVAILABLE),
        (ValueError("no"), ErrorCode.INTERNAL),
        (asyncio.CancelledError(), ErrorCode.UNAVAILABLE),
    ],
)
async def test_a_failed_open_leaves_nothing_and_the_next_one_may_succeed(
    toy: ToyLayer, raised: BaseException, code: ErrorCode
) -> None:
    async def fail(_: ToyProvider) -> None:
        raise raised

    toy.script.on_open = fail
    error = await failure(toy)

    assert error.code is code
    assert len(toy.pool) == 0
    assert toy.script.closed == toy.script.constructed
    toy.script.on_open = None
    assert (await toy.pool.acquire(toy.connect())).provider is toy.script.opened[0]


async def test_an_open_that_takes_too_long_is_given_up(toy: ToyLayer) -> None:
    async def hang(_: ToyProvider) -> None:
        await asyncio.sleep(60)

    toy.pool.settings.open_timeout_seconds = 0.02
    toy.script.on_open = hang
    error = await failure(toy)

    assert (error.code, error.retry_after_seconds) == (ErrorCode.UNAVAILABLE, 5.0)
    assert toy.script.closed == toy.script.constructed


async def test_idle_providers_are_closed_but_busy_ones_and_those_that_live_in_memory_are_not(toy: ToyLayer) -> None:
    idle = await toy.pool.acquire(toy.connect(name="idle"))
    busy = await toy.pool.acquire(toy.connect(name="busy"))
    in_memory = await toy.pool.acquire(toy.connect(name="memory"))
    fresh = await toy.pool.acquire(toy.connect(name="fresh"))
    in_memory.manifest = manifest(scope="process")
    busy.enter()
    for opened in (idle, busy, in_memory):
        opened.last_used = time.monotonic() - toy.pool.settings.idle_seconds - 1

    assert toy.pool.evict_idle() == 1
    await settle()

    assert toy.script.closed == [idle.provider]
    assert [opened.is_closing for opened in (busy, in_memory, fresh)] == [False, False, False]
    busy.leave()
    assert toy.pool.evict_idle() == 0, "leaving counts as use"


async def test_a_closed_pool_closes_everything_and_opens_nothing(toy: ToyLayer) -> None:
    opened = await toy.pool.acquire(toy.connect())

    await toy.pool.close()

    assert toy.script.closed == [opened.provider]
    error = await failure(toy)
    assert (error.code, error.message) == (ErrorCode.UNAVAILABLE, "The layer is shutting down.")
    await toy.pool.close()
    assert toy.script.closed == [opened.provider]


async def test_whoever_waits_for_an_open_when_the_pool_closes_is_refused_not_cancelled(toy: ToyLayer) -> None:
    async def hang(_: ToyProvider) -> None:
        await asyncio.sleep(60)

    toy.script.on_open = hang
    waiting = [asyncio.create_task(failure(toy)) for _ in range(3)]
    await settle()

    await toy.pool.close()

    assert {(await error).code for error in waiting} == {ErrorCode.UNAVAILABLE}
    assert toy.script.closed == toy.script.constructed


@pytest.mark.parametrize("raised", [ValueError("no"), asyncio.CancelledError(), None])
async def test_a_provider_that_does_not_close_well_harms_nobody(
    toy: ToyLayer, raised: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def misbehave(_: ToyProvider) -> None:
        if raised is not None:
            raise raised
        await asyncio.sleep(60)

    toy.pool.settings.close_timeout_seconds = 0.02
    toy.script.on_close = misbehave
    opened = await toy.pool.acquire(toy.connect())
    toy.pool.discard(*key_of(opened.connection))

    with caplog.at_level(logging.WARNING):
        await toy.pool.close()

    assert [record.getMessage().startswith("closing toy/box ") for record in caplog.records] == [True]


async def test_secrets_are_resolved_for_the_provider_and_shown_nowhere(toy: ToyLayer, vault: MemoryVault) -> None:
    await vault.put("acme", "connections/p", "old-hunter2")
    await vault.put("acme", "connections/p", "new-hunter2")
    await vault.put("globex", "connections/p", "foreign-hunter2")
    newest = await toy.pool.acquire(toy.connect(secrets={"secret": "secret://connections/p"}))
    pinned = await toy.pool.acquire(toy.connect(name="pinned", secrets={"secret": "secret://connections/p#1"}))

    assert newest.provider.config["secret"] == "new-hunter2"
    assert pinned.provider.config["secret"] == "old-hunter2"
    shown = f"{newest!r} {newest.provider.context!r} {newest.connection.secrets!r} {toy.pool!r}"
    assert "hunter2" not in shown
    assert repr(newest) == "OpenProvider(toy/box, tenant='acme', connection='default', running=0)"


async def test_a_configuration_under_trial_shows_its_secrets_nowhere(toy: ToyLayer) -> None:
    trial = await toy.pool.open_unpooled(toy.connect(config={"secret": "hunter2"}))

    assert trial.provider.config["secret"] == "hunter2"
    assert "hunter2" not in repr(trial)
    assert len(toy.pool) == 0


async def test_a_secret_that_is_gone_is_said_and_leaves_nothing(toy: ToyLayer) -> None:
    toy.connect(secrets={"secret": "secret://connections/gone"})

    assert (await failure(toy)).code is ErrorCode.NOT_FOUND
    assert toy.script.constructed == []


@dataclasses.dataclass
class _Ill:
    health: Health | BaseException
    message: str


@pytest.mark.parametrize(
    "ill",
    [
        _Ill(ProviderError("unavailable", "No answer."), "No answer."),
        _Ill(ValueError("hunter2"), "The health check failed; see the server log."),
        _Ill(TimeoutError(), "The provider did not answer its health check within 5 s."),
    ],
)
async def test_health_is_what_the_provider_says_or_down(toy: ToyLayer, ill: _Ill) -> None:
    assert (await toy.pool.health(toy.connect())).status == "ok"

    toy.script.health = ill.health
    health = await toy.pool.health(toy.connect())

    assert (health.status, health.message) == ("down", ill.message)
    assert health.latency_ms > 0


async def test_a_provider_that_cannot_be_opened_is_down(toy: ToyLayer) -> None:
    async def fail(_: ToyProvider) -> None:
        raise ProviderError("unauthenticated", "The password is wrong.")

    toy.script.on_open = fail
    health = await toy.pool.health(toy.connect())
    assert (health.status, health.message) == ("down", "The password is wrong.")

    toy.script.on_open = None
    assert (await toy.pool.health(toy.connect())).status == "ok"


async def test_a_drained_provider_without_calls_does_not_wait(toy: ToyLayer) -> None:
    opened: OpenProvider = await toy.pool.acquire(toy.connect())
    started = time.perf_counter()

    await opened.drain(10)

    assert opened.is_closing
    assert time.perf_counter() - started < 5
