"""Reading changes from a real local server: no record is skipped, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.providers.integration.shop import NOW, Shop, described, selling

from erp.contracts.models import integration as contract
from erp.providers.integration.http_api.provider import HttpApi
from erp.runtime.spi import UNSET, ErrorCode, OpenContext, ProviderError

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = pytest.mark.anyio

STYLES = ["cursor", "link", "page", "offset"]
SKUS = ["A", "B", "C", "D", "E"]


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


class Reading:
    """Reads the products of a shop page by page, as a caller that stores checkpoints does."""

    def __init__(self, provider: HttpApi, call_context: MakeCallContext) -> None:
        self.provider = provider
        self.call_context = call_context
        self.checkpoint: Any = UNSET

    async def page(self, start: Any = "checkpoint", **facts: Any) -> contract.SyncResult:
        given = {} if start != "checkpoint" else {"checkpoint": self.checkpoint}
        request = contract.SyncRequest(object="product", start=start, **given | facts)
        result = await self.provider.sync(request, self.call_context())
        self.checkpoint = result.checkpoint
        return result

    async def rest(self, start: Any = "checkpoint", **facts: Any) -> list[contract.Change]:
        """Read until there is no more."""
        result = await self.page(start, **facts)
        changes = list(result.changes)
        for _ in range(50):
            if not result.more:
                return changes
            result = await self.page(**facts)
            changes += result.changes
        raise AssertionError("the reading does not end")


@asynccontextmanager
async def reading(
    open_context: OpenContext, call_context: MakeCallContext, shop: Shop, specification: dict[str, Any]
) -> AsyncIterator[Reading]:
    provider = HttpApi({"base_url": shop.url, "objects": {"product": specification}}, open_context)
    await provider.open()
    try:
        yield Reading(provider, call_context)
    finally:
        await provider.close()


def skus(changes: list[contract.Change]) -> list[str]:
    return [change.keys["sku"] for change in changes]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_every_record_is_read_once_in_pages_of_any_style_and_limit(
    open_context: OpenContext, call_context: MakeCallContext, style: str, limit: int
) -> None:
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, described(style)) as reader:
        assert skus(await reader.rest("beginning", limit=limit)) == SKUS


async def test_a_change_has_keys_id_version_time_and_fields_with_decimals_as_text(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with selling() as shop, reading(open_context, call_context, shop, described()) as reader:
        shop.add("A", price=19.90, stock=3)
        result = await reader.page("beginning")
        [change] = result.changes
        assert (change.kind, change.keys, change.peer_id, change.version) == ("changed", {"sku": "A"}, "1", "1")
        assert change.changed_at.timestamp() == NOW
        assert change.fields is not UNSET
        assert (change.fields["price"], change.fields["stock"]) == ("19.9", 3)
        assert (result.more, result.snapshot_complete, result.deletions) == (False, True, "not_reported")
        assert result.covered_until.timestamp() == NOW
        [some] = (await reader.page("beginning", fields=["name", "nothing"])).changes
        assert some.fields == {"name": "a"}
        [none] = (await reader.page("beginning", fields=[])).changes
        assert none.fields is UNSET


@pytest.mark.parametrize("style", STYLES)
async def test_later_only_what_changed_since_the_reading_began_is_read(
    open_context: OpenContext, call_context: MakeCallContext, style: str
) -> None:
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, described(style)) as reader:
        shop.now = NOW + 10
        assert (await reader.page("beginning")).snapshot_complete is False
        assert sorted(skus(await reader.rest())) == ["C", "D", "E"]
        shop.now = NOW + 20
        shop.change("B", name="new")
        assert skus(await reader.rest()) == ["B"]
        assert skus(await reader.rest()) == ["B"]
        shop.now = NOW + 30
        await reader.rest()
        assert skus(await reader.rest()) == []


@pytest.mark.parametrize("style", ["page", "offset"])
@pytest.mark.parametrize("disturbed", [["A"], ["B"], ["A", "B"], ["C"]])
@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_record_that_goes_or_moves_between_two_pages_hides_no_other(
    open_context: OpenContext, call_context: MakeCallContext, style: str, disturbed: list[str], is_deleted: bool
) -> None:
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, described(style)) as reader:
        read = skus((await reader.page("beginning")).changes)
        for sku in disturbed:
            if is_deleted:
                del shop.products[sku]
            else:
                shop.now = NOW + 5
                shop.change(sku, name="moved")
        read += skus(await reader.rest())
        assert set(SKUS) - set(disturbed) <= set(read)
        if not is_deleted:
            assert set(read) | set(skus(await reader.rest())) == set(SKUS)


async def test_a_record_changed_during_the_reading_is_read_again_later(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, described()) as reader:
        await reader.page("beginning")
        shop.now = NOW + 3
        shop.change("A", name="changed while reading")
        await reader.rest()
        changed: dict[str, Any] = {change.keys["sku"]: change.fields for change in await reader.rest()}
        assert changed["A"]["name"] == "changed while reading"


@pytest.mark.parametrize(
    ("failure", "code", "wait"),
    [
        ((500, {}, {}), ErrorCode.UNAVAILABLE, None),
        ((429, {"retry-after": "7"}, {}), ErrorCode.RATE_LIMITED, 7.0),
        ((503, {"retry-after": "9"}, {}), ErrorCode.UNAVAILABLE, 9.0),
        ((401, {}, {}), ErrorCode.UNAUTHENTICATED, None),
        ((403, {}, {}), ErrorCode.PERMISSION_DENIED, None),
        ((200, {}, b"<html>"), ErrorCode.UNAVAILABLE, None),
        ((200, {}, {"data": {}}), ErrorCode.FAILED_PRECONDITION, None),
        ((302, {"location": "/"}, None), ErrorCode.FAILED_PRECONDITION, None),
    ],
)
async def test_a_failure_in_the_middle_has_its_meaning_and_loses_nothing(
    open_context: OpenContext, call_context: MakeCallContext, failure: Any, code: ErrorCode, wait: float | None
) -> None:
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, described()) as reader:
        read = skus((await reader.page("beginning")).changes)
        shop.failures = [failure]
        with pytest.raises(ProviderError) as failed:
            await reader.page()
        assert (failed.value.code, failed.value.retry_after_seconds) == (code, wait)
        assert read + skus(await reader.rest()) == SKUS


async def test_a_record_without_its_key_is_told_and_not_dropped(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with selling("A", "B") as shop, reading(open_context, call_context, shop, described()) as reader:
        shop.products["A"]["sku"] = None
        result = await reader.page("beginning")
        assert skus(result.changes) == ["B"]
        assert [(item.peer_id, item.problem.retryable) for item in result.unread] == [("1", False)]


async def test_deleted_records_are_reported_only_after_everything_was_listed(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    specification = described() | {"deleted_field": "gone"}
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, specification) as reader:
        shop.change("A", gone=True)
        changes = await reader.rest("beginning")
        assert (sorted(skus(changes)), {change.kind for change in changes}) == (["B", "C", "D", "E"], {"changed"})
        shop.now = NOW + 5
        shop.change("B", gone=True)
        [deleted] = [change for change in await reader.rest() if change.kind == "deleted" and change.keys["sku"] == "B"]
        assert deleted.fields is UNSET
        assert (await reader.page()).deletions == "reported"


async def test_now_answers_a_place_and_no_changes_and_a_time_reads_from_then(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with selling("A") as shop, reading(open_context, call_context, shop, described()) as reader:
        result = await reader.page("now")
        assert (result.changes, result.more, shop.requests) == ([], False, [])
        shop.now = NOW + 100
        shop.add("B")
        since = (await reader.page("beginning")).changes[1].changed_at
        assert skus(await reader.rest("time", changed_since=since)) == ["B"]


async def test_a_peer_that_cannot_tell_since_when_is_read_from_the_beginning_each_time(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    specification = described(since_param=None)
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, specification) as reader:
        for _ in range(2):
            assert skus(await reader.rest("beginning")) == SKUS
            assert skus(await reader.rest()) == SKUS
        with pytest.raises(ProviderError) as refusal:
            await reader.page("now")
        assert refusal.value.code is ErrorCode.FAILED_PRECONDITION


async def test_a_place_the_peer_forgot_is_a_failed_precondition(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, described()) as reader:
        await reader.page("beginning")
        shop.failures = [(410, {}, {})]
        with pytest.raises(ProviderError) as refusal:
            await reader.page()
        assert refusal.value.code is ErrorCode.FAILED_PRECONDITION


@pytest.mark.parametrize("checkpoint", ["x", "!!!", "e30", "W10", "é"])
async def test_a_checkpoint_nobody_gave_is_refused_by_its_field(
    open_context: OpenContext, call_context: MakeCallContext, checkpoint: str
) -> None:
    async with selling() as shop, reading(open_context, call_context, shop, described()) as reader:
        with pytest.raises(ProviderError) as refusal:
            await reader.page("checkpoint", checkpoint=checkpoint)
        assert [error.pointer for error in refusal.value.errors] == ["/params/checkpoint"]


async def test_a_checkpoint_of_another_object_is_refused(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with selling(*SKUS) as shop:
        async with reading(open_context, call_context, shop, described("cursor")) as reader:
            await reader.page("beginning")
            kept = reader.checkpoint
        async with reading(open_context, call_context, shop, described("page")) as other:
            with pytest.raises(ProviderError) as refusal:
                await other.page("checkpoint", checkpoint=kept)
            assert refusal.value.code is ErrorCode.FAILED_PRECONDITION


@pytest.mark.parametrize("target", ["http://evil.example/api/x", "//evil.example/api/x", "/other", "/api/../x"])
async def test_a_link_to_elsewhere_is_never_followed_with_our_credentials(
    open_context: OpenContext, call_context: MakeCallContext, target: str
) -> None:
    async with selling(*SKUS) as shop, reading(open_context, call_context, shop, described("link")) as reader:
        shop.failures = [(200, {"link": f'<{target}>; rel="next"'}, {"data": {"items": []}})]
        with pytest.raises(ProviderError) as refusal:
            await reader.page("beginning")
        assert (refusal.value.code, len(shop.requests)) == (ErrorCode.FAILED_PRECONDITION, 1)
