"""A version before a rotation is destroyed once: after its overlap, and when nothing uses it any more."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane, moments, retirements
from erp.control_plane.rotation_tables import secret_retirements
from erp.control_plane.tables import secrets
from erp.errors import ProviderError
from erp.runtime.overlaps import Overlaps
from erp.runtime.ports import Connection
from erp.security.keyring import Keyring
from erp.security.secret_retirement import SecretRetirement
from erp.security.vault import EnvelopeVault

pytestmark = pytest.mark.anyio

PATH = "tenant/crm"
DAY = 86_400.0


class Clocks:
    """The clock on the wall, which anybody can set, and the one that only ever goes on. Seconds from now."""

    def __init__(self) -> None:
        self.wall_seconds = self.monotonic_seconds = 0.0

    def wall(self) -> int:
        return moments.after(self.wall_seconds)

    def monotonic(self) -> float:
        return self.monotonic_seconds

    def pass_(self, seconds: float) -> None:
        self.wall_seconds += seconds
        self.monotonic_seconds += seconds


class Site:
    """A vault and the process that destroys."""

    def __init__(self, control: ControlPlane, keyring: Keyring) -> None:
        self.control = control
        self.vault = EnvelopeVault(control.secrets, keyring)
        self.clocks = Clocks()
        self.open: set[tuple[str, Any]] = set()
        self.still_used: list[tuple[str, str]] = []
        self.destroyed: list[tuple[str, str, str]] = []
        self.answers: list[bool | ProviderError] = []
        """Of the system elsewhere, before it destroys."""
        self.retirement = self.process()

    def process(self, journal: Any = None, clocks: Clocks | None = None) -> SecretRetirement:
        clocks = clocks or self.clocks
        return SecretRetirement(
            self.control.retirements,
            journal or self.control.journal,
            is_in_use=lambda tenant, version: any((tenant, use) in self.open for use in version),
            destroy=self.elsewhere,
            on_still_used=lambda tenant, path: self.still_used.append((tenant, path)),
            wall=clocks.wall,
            monotonic=clocks.monotonic,
        )

    async def elsewhere(self, tenant: str, path: str, version_id: str) -> bool:
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, ProviderError):
            raise answer
        self.destroyed.append((tenant, path, version_id))
        return answer

    async def replace(self, versions: dict[int, str], overlap_seconds: float = DAY) -> None:
        """Rotate a secret that is kept elsewhere."""
        async with self.overlaps.replacing("crm", versions, overlap_seconds):
            pass
        await self.retirement.round()

    @property
    def overlaps(self) -> Overlaps:
        return self.control.overlaps.at("acme", "secrets", "vault", "main")

    async def pass_(self, seconds: float) -> list[str]:
        """Let time pass, and return what was destroyed elsewhere."""
        self.clocks.pass_(seconds)
        await self.retirement.round()
        return [name for _, _, name in self.destroyed]

    async def rotate(self, value: str, overlap_seconds: float = DAY) -> None:
        await self.vault.put("acme", PATH, value, overlap_seconds=overlap_seconds)
        await self.retirement.round()

    async def after(self, seconds: float) -> dict[int, str]:
        """Let time pass, and return what became of the versions."""
        self.clocks.pass_(seconds)
        await self.retirement.round()
        return await self.states()

    async def states(self) -> dict[int, str]:
        return {one.version: one.state for one in await self.vault.versions("acme", PATH)}

    async def records(self) -> list[dict[str, Any]]:
        found, _ = await self.control.audit.search("acme", action="secrets.destroy_version")
        return [msgspec.to_builtins(one) for one in found]

    async def connect(self, reference: str, versions: dict[str, str]) -> Connection:
        connection = Connection(
            tenant="acme",
            domain="cache",
            provider="redis",
            name="default",
            revision="",
            config={},
            secrets={"password": reference},
            policy={},
            versions=versions,
        )
        return await self.control.connections.put(connection)


@pytest.fixture
async def site(control: ControlPlane, keyring: Keyring) -> Site:
    made = Site(control, keyring)
    await made.vault.put("acme", PATH, "one")
    return made


async def test_a_version_stays_readable_for_its_overlap_and_is_destroyed_then(site: Site) -> None:
    await site.rotate("two")
    versions = await site.vault.versions("acme", PATH)
    due = [None if one.destroyed_after is None else moments.parsed(one.destroyed_after) for one in versions]
    assert due[0] == pytest.approx(moments.after(DAY), abs=30_000_000)
    assert due[1] is None

    assert await site.after(DAY - 60) == {1: "previous", 2: "current"}
    assert await site.vault.get("acme", PATH, 1) == "one"
    assert await site.records() == []

    assert await site.after(61) == {1: "destroyed", 2: "current"}
    with pytest.raises(ProviderError) as refused:
        await site.vault.get("acme", PATH, 1)
    assert refused.value.code is ErrorCode.NOT_FOUND
    stored = sa.select(secrets.c.envelope, secrets.c.key_id).where(secrets.c.version == 1)
    assert await site.control.database.run(lambda one: tuple(one.execute(stored).one())) == (None, None)
    [record] = await site.records()
    assert (record["actor"], record["target"], record["outcome"]) == ("service:rotation", f"{PATH}#1", "ok")
    assert await site.after(DAY) == {1: "destroyed", 2: "current"}
    assert len(await site.records()) == 1


async def test_put_keeps_all_versions_and_a_rotation_retires_all_before(site: Site) -> None:
    await site.vault.put("acme", PATH, "two")
    assert await site.after(DAY * 365) == {1: "previous", 2: "current"}
    site.clocks.pass_(-DAY * 365)
    await site.rotate("three")
    assert await site.after(DAY + 60) == {1: "destroyed", 2: "destroyed", 3: "current"}


async def test_an_overlap_of_nothing_still_lets_the_last_calls_end(site: Site) -> None:
    await site.rotate("two", overlap_seconds=0)
    assert await site.after(retirements.LEAST_SECONDS - 1) == {1: "previous", 2: "current"}
    assert await site.after(2) == {1: "destroyed", 2: "current"}


async def test_what_a_connection_uses_is_kept_and_its_overlap_begins_when_it_changes(site: Site) -> None:
    reference = f"secret://{PATH}"
    await site.connect(reference, {reference: "1"})
    await site.rotate("two", overlap_seconds=3600)
    assert await site.after(2 * 3600) == {1: "previous", 2: "current"}
    assert site.still_used == [("acme", PATH)]

    site.clocks.wall_seconds = 0  # it is the database that says when a connection changes
    changed_at = moments.now()
    await site.connect(reference, {reference: "2"})
    [waiting] = await site.control.retirements.waiting(limit=10)
    assert waiting.due_at >= changed_at + 3600 * moments.MICROSECONDS
    await site.retirement.round()
    assert await site.after(3600 - 60) == {1: "previous", 2: "current"}
    assert await site.after(61) == {1: "destroyed", 2: "current"}


@pytest.mark.parametrize(
    "reference", [f"secret://{PATH}#1", "secret://secrets/local/default/crm#1", f"secret://{PATH}"]
)
async def test_a_version_that_is_named_or_may_be_used_is_kept(site: Site, reference: str) -> None:
    await site.connect(reference, {})
    await site.rotate("two")
    assert await site.after(DAY * 30) == {1: "previous", 2: "current"}
    assert await site.records() == []


async def test_a_removed_connection_uses_nothing(site: Site) -> None:
    await site.connect(f"secret://{PATH}#1", {})
    await site.rotate("two")
    await site.control.connections.delete("acme", "cache", "redis", "default")
    await site.retirement.round()
    assert await site.after(DAY + 60) == {1: "destroyed", 2: "current"}


async def test_what_an_open_provider_was_opened_with_is_kept_until_it_has_closed(site: Site) -> None:
    site.open.add(("acme", (PATH, 1)))
    await site.rotate("two")
    assert await site.after(DAY + 60) == {1: "previous", 2: "current"}
    site.open.clear()
    assert await site.after(61) == {1: "destroyed", 2: "current"}


async def test_of_many_processes_one_destroys(site: Site) -> None:
    await site.rotate("two")
    processes = [site.process() for _ in range(8)]
    site.clocks.pass_(DAY + 60)
    await asyncio.gather(*(one.round() for one in processes))
    assert await site.states() == {1: "destroyed", 2: "current"}
    assert len(await site.records()) == 1


async def test_what_a_killed_process_has_destroyed_the_next_one_records(site: Site) -> None:
    class Killed(Exception):  # noqa: N818  (a signal, not an error)
        pass

    class Dying:
        async def complete(self, _: Any) -> None:
            raise Killed

    await site.rotate("two")
    site.clocks.pass_(DAY + 60)
    with pytest.raises(Killed):
        await site.process(Dying()).round()
    assert (await site.states())[1] == "destroyed"
    assert await site.after(1) == {1: "destroyed", 2: "current"}
    assert await site.records() == []  # its lease has not ended
    await site.after(60)
    assert len(await site.records()) == 1
    assert await site.control.retirements.waiting(limit=10) == []


async def test_a_clock_that_is_set_forward_destroys_nothing_that_was_seen_coming(site: Site) -> None:
    await site.rotate("two")
    site.clocks.wall_seconds = 40 * DAY
    assert await site.after(60) == {1: "previous", 2: "current"}
    assert await site.after(DAY) == {1: "destroyed", 2: "current"}


async def test_a_clock_that_is_set_back_only_makes_it_later(site: Site) -> None:
    await site.rotate("two")
    site.clocks.wall_seconds = -3600
    assert await site.after(DAY) == {1: "previous", 2: "current"}
    assert await site.after(3600 + 60) == {1: "destroyed", 2: "current"}


async def test_what_is_destroyed_by_hand_is_not_destroyed_again(site: Site) -> None:
    await site.rotate("two")
    assert await site.vault.delete("acme", PATH) is True
    count = sa.select(sa.func.count()).select_from(secret_retirements)
    assert await site.control.database.run(lambda one: one.execute(count).scalar_one()) == 0
    assert await site.after(DAY + 60) == {1: "destroyed", 2: "destroyed"}
    assert await site.records() == []


async def test_tenants_retire_their_own(site: Site) -> None:
    await site.vault.put("globex", PATH, "theirs")
    await site.rotate("two")
    await site.after(DAY + 60)
    assert await site.vault.get("globex", PATH, 1) == "theirs"


async def test_a_rotation_that_could_not_be_stored_retires_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ProviderError(ErrorCode.UNAVAILABLE, "The disk is full.")

    monkeypatch.setattr("erp.control_plane.secrets.retire", fail)
    with pytest.raises(ProviderError):
        await site.rotate("two")
    assert await site.states() == {1: "current"}
    assert await site.after(DAY * 30) == {1: "current"}
