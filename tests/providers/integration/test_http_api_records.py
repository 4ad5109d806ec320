"""Records of a JSON HTTP API: fetched, written, deleted; triggers; what failures mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.providers.integration.shop import Shop, described, selling

from erp.contracts.models import integration as contract
from erp.providers.integration.http_api.provider import HttpApi
from erp.runtime.spi import UNSET, CallContext, ErrorCode, OpenContext, Provider, ProviderError

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = pytest.mark.anyio

WITHOUT_PUT = {name: value for name, value in described().items() if name != "put"}


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def call(call_context: MakeCallContext) -> CallContext:
    return call_context()


@asynccontextmanager
async def opened(open_context: OpenContext, shop: Shop, **config: Any) -> AsyncIterator[HttpApi]:
    provider = HttpApi({"base_url": shop.url, "objects": {"product": described()}} | config, open_context)
    await provider.open()
    try:
        yield provider
    finally:
        await provider.close()


def written(sku: str, **fields: Any) -> contract.RecordWrite:
    return contract.RecordWrite(keys={"sku": sku}, fields=fields)


def upsert(*records: contract.RecordWrite, **facts: Any) -> contract.UpsertRequest:
    return contract.UpsertRequest(object="product", records=list(records), **facts)


def facts(outcomes: list[contract.WriteOutcome]) -> list[tuple[str, Any]]:
    return [
        (outcome.status, UNSET if isinstance(outcome.problem, type(UNSET)) else outcome.problem.code)
        for outcome in outcomes
    ]


async def test_records_are_fetched_in_the_order_asked_and_a_missing_one_is_an_answer(
    open_context: OpenContext, call: CallContext
) -> None:
    async with selling("A", "B c/ä?#") as shop, opened(open_context, shop) as provider:
        wanted = [{"sku": sku} for sku in ("B c/ä?#", "X", "A")]
        request = contract.FetchRequest(object="product", keys=wanted, fields=["name"])
        found = (await provider.fetch(request, call)).records
        assert [(item.keys, item.found, item.fields) for item in found] == [
            (wanted[0], True, {"name": "b c/ä?#"}),
            (wanted[1], False, UNSET),
            (wanted[2], True, {"name": "a"}),
        ]
        assert (found[2].peer_id, found[2].version) == ("1", "1")


@pytest.mark.parametrize("specification", [described(), WITHOUT_PUT])
async def test_records_are_created_or_changed_by_their_keys(
    open_context: OpenContext, call: CallContext, specification: dict[str, Any]
) -> None:
    async with selling("A") as shop, opened(open_context, shop, objects={"product": specification}) as provider:
        result = await provider.upsert(upsert(written("A", name="new"), written("B", name="b", price="0.20")), call)
        assert (facts(result.outcomes), result.failed) == ([("updated", UNSET), ("created", UNSET)], 0)
        assert (result.outcomes[0].version, result.outcomes[1].peer_id) == ("2", "2")
        assert (shop.products["A"]["name"], shop.products["B"]["price"]) == ("new", "0.20")
        await provider.upsert(upsert(written("A", name="new"), written("B", name="b")), call)
        assert len(shop.products) == 2


@pytest.mark.parametrize(
    ("mode", "sku", "code"), [("create", "A", ErrorCode.ALREADY_EXISTS), ("update", "X", ErrorCode.NOT_FOUND)]
)
async def test_a_mode_refuses_what_it_does_not_mean_and_changes_nothing(
    open_context: OpenContext, call: CallContext, mode: Any, sku: str, code: ErrorCode
) -> None:
    async with selling("A") as shop, opened(open_context, shop) as provider:
        before = dict(shop.products)
        with pytest.raises(ProviderError) as refusal:
            await provider.upsert(upsert(written(sku, name="new"), mode=mode), call)
        assert (refusal.value.code, shop.products) == (code, before)


async def test_one_record_that_fails_is_named_and_the_others_take_effect(
    open_context: OpenContext, call: CallContext
) -> None:
    async with selling() as shop, opened(open_context, shop) as provider:
        records = [written("A", name="a"), written("B", name=""), written("C", name="c")]
        with pytest.raises(ProviderError) as failure:
            await provider.upsert(upsert(*records), call)
        assert failure.value.code is ErrorCode.PARTIAL
        assert [error.pointer for error in failure.value.errors] == ["/params/records/1"]
        assert sorted(shop.products) == ["A", "C"]
        result = await provider.upsert(upsert(*records, report_failures=True), call)
        assert (result.failed, facts(result.outcomes)[1]) == (1, ("failed", "invalid_argument"))
        with pytest.raises(ProviderError) as alone:
            await provider.upsert(upsert(records[1]), call)
        assert alone.value.code is ErrorCode.INVALID_ARGUMENT


async def test_after_a_limit_was_hit_the_rest_is_not_tried_and_may_be_repeated(
    open_context: OpenContext, call: CallContext
) -> None:
    async with selling() as shop, opened(open_context, shop) as provider:
        shop.failures = [None, (429, {"retry-after": "3"}, {})]
        records = [written(sku, name="x") for sku in "ABCD"]
        result = await provider.upsert(upsert(*records, report_failures=True), call)
        assert facts(result.outcomes) == [("created", UNSET)] + [("failed", "rate_limited")] * 3
        assert len(shop.requests) == 2
        assert (await provider.upsert(upsert(*records), call)).failed == 0


@pytest.mark.parametrize(
    ("specification", "failures"),
    [(described(), [(0, {}, None)]), (WITHOUT_PUT, [None, (0, {}, None)]), (WITHOUT_PUT, [None, (502, {}, None)])],
)
async def test_a_lost_answer_to_a_write_is_unknown_and_fetch_tells(
    open_context: OpenContext, call: CallContext, specification: dict[str, Any], failures: list[Any]
) -> None:
    async with selling() as shop, opened(open_context, shop, objects={"product": specification}) as provider:
        shop.failures = list(failures)
        result = await provider.upsert(upsert(written("A", name="a"), report_failures=True), call)
        assert facts(result.outcomes) == [("unknown", "outcome_unknown")]
        shop.failures = list(failures)
        with pytest.raises(ProviderError) as failure:
            await provider.upsert(upsert(written("A", name="a")), call)
        assert failure.value.code is ErrorCode.OUTCOME_UNKNOWN
        fetched = await provider.fetch(contract.FetchRequest(object="product", keys=[{"sku": "A"}]), call)
        assert fetched.records[0].found is False


async def test_deleting_what_is_not_there_is_no_failure(open_context: OpenContext, call: CallContext) -> None:
    async with selling("A", "B") as shop, opened(open_context, shop) as provider:
        records = [contract.RecordDelete(keys={"sku": sku}) for sku in ("A", "X")]
        result = await provider.delete(contract.DeleteRequest(object="product", records=records), call)
        assert facts(result.outcomes) == [("deleted", UNSET), ("missing", UNSET)]
        assert list(shop.products) == ["B"]


@pytest.mark.parametrize("keys", [{}, {"id": "1"}, {"sku": "A", "id": "1"}])
async def test_keys_that_name_no_record_are_refused_by_their_field_and_nothing_is_sent(
    open_context: OpenContext, call: CallContext, keys: dict[str, str]
) -> None:
    async with selling("A") as shop, opened(open_context, shop) as provider:
        records = [written("A", name="new"), contract.RecordWrite(keys=keys, fields={})]
        with pytest.raises(ProviderError) as refusal:
            await provider.upsert(upsert(*records), call)
        assert [error.pointer for error in refusal.value.errors] == ["/params/records/1/keys"]
        assert shop.requests == []


@pytest.mark.parametrize("key", ["", ".", ".."])
async def test_a_key_cannot_lead_to_another_path(open_context: OpenContext, call: CallContext, key: str) -> None:
    async with selling("A") as shop, opened(open_context, shop) as provider:
        request = contract.DeleteRequest(object="product", records=[contract.RecordDelete(keys={"sku": key})])
        with pytest.raises(ProviderError) as refusal:
            await provider.delete(request, call)
        assert (refusal.value.code, shop.requests) == (ErrorCode.INVALID_ARGUMENT, [])


@pytest.mark.parametrize("key", ["../orders", "a/b", "a?x=1", "a#b", "{sku}", "%2e%2e"])
async def test_a_key_stays_one_segment_of_the_path(open_context: OpenContext, call: CallContext, key: str) -> None:
    async with selling() as shop, opened(open_context, shop) as provider:
        await provider.upsert(upsert(written(key, name="x")), call)
        assert list(shop.products) == [key]


async def test_what_the_peer_cannot_do_is_refused_before_anything_is_sent(
    open_context: OpenContext, call: CallContext
) -> None:
    only_list = {"product": {"key": ["sku"], "list": {"path": "/products"}}}
    async with selling("A") as shop, opened(open_context, shop, objects=only_list) as limited:
        versioned = contract.RecordWrite(keys={"sku": "A"}, fields={}, expected_version="1")
        for attempt in (
            limited.upsert(upsert(written("A")), call),
            limited.fetch(contract.FetchRequest(object="product", keys=[{"sku": "A"}]), call),
            limited.upsert(upsert(written("A"), atomic=True), call),
        ):
            with pytest.raises(ProviderError) as refusal:
                await attempt
            assert refusal.value.code is ErrorCode.UNSUPPORTED
        async with opened(open_context, shop) as provider:
            with pytest.raises(ProviderError) as refusal:
                await provider.upsert(upsert(versioned), call)
            assert refusal.value.code is ErrorCode.UNSUPPORTED
            with pytest.raises(ProviderError) as unknown:
                await provider.sync(contract.SyncRequest(object="order", start="beginning"), call)
            assert unknown.value.code is ErrorCode.NOT_FOUND
        assert shop.requests == []


async def test_a_trigger_starts_what_is_described_and_nothing_else(
    open_context: OpenContext, call: CallContext
) -> None:
    triggers = {"reindex": {"path": "/jobs/{id}/reindex"}}
    async with selling() as shop, opened(open_context, shop, triggers=triggers) as provider:
        shop.failures = [(202, {}, {"job": 7}), (200, {}, None)]
        subject = contract.RecordRef(object="job", keys={"id": "j 1"})
        request = contract.TriggerRequest(name="reindex", payload={"full": True}, subject=subject)
        first, second = await provider.trigger(request, call), await provider.trigger(request, call)
        assert (first.status, first.result, second.status) == ("accepted", {"job": 7}, "completed")
        assert (shop.paths[0], shop.requests[0][3]) == ("POST /api/jobs/j%201/reindex", {"full": True})
        with pytest.raises(ProviderError) as refusal:
            await provider.trigger(contract.TriggerRequest(name="erase"), call)
        assert refusal.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    ("config", "header", "value"),
    [
        ({"token": "t0ken"}, "authorization", "Bearer t0ken"),
        ({"username": "ann", "password": "pä:ss"}, "authorization", "Basic YW5uOnDDpDpzcw=="),
        ({"api_key": "k3y", "api_key_header": "X-Shop-Key"}, "x-shop-key", "k3y"),
        ({"headers": {"x-version": "v2026"}}, "x-version", "v2026"),
    ],
)
async def test_credentials_are_sent_and_never_shown(
    open_context: OpenContext, call: CallContext, config: dict[str, Any], header: str, value: str
) -> None:
    async with selling("A") as shop, opened(open_context, shop, **config) as provider:
        assert (await provider.test(contract.TestRequest(), call)).ok is True
        assert shop.requests[0][2][header] == value
        assert value not in repr(provider) + repr(provider._peer)


async def test_a_test_names_the_step_that_failed(open_context: OpenContext, call: CallContext) -> None:
    async with selling() as shop, opened(open_context, shop) as provider:
        shop.failures = [(401, {}, {})]
        result = await provider.test(contract.TestRequest(), call)
        assert [(check.name, check.status, check.code) for check in result.checks] == [
            ("reachable", "passed", UNSET),
            ("may_read", "failed", "unauthenticated"),
        ]
        assert (await provider.health()).status == "ok"
    async with opened(open_context, shop) as provider:
        assert (await provider.test(contract.TestRequest(), call)).checks[0].code == "unavailable"
        assert (await provider.health()).status == "down"


async def test_describe_tells_what_can_be_done_with_each_object(open_context: OpenContext, call: CallContext) -> None:
    triggers = {"reindex": {"path": "/jobs", "title": "Build the index"}}
    async with selling() as shop, opened(open_context, shop, triggers=triggers) as provider:
        found = (await provider.describe(contract.DescribeRequest(), call)).items
        assert [(item.kind, item.name) for item in found] == [("object", "product"), ("trigger", "reindex")]
        assert (found[0].keys, found[0].actions) == ([["sku"]], ["upsert", "delete", "fetch", "sync"])
        by_text = await provider.describe(contract.DescribeRequest(text="INDEX"), call)
        assert [item.name for item in by_text.items] == ["reindex"]


@pytest.mark.parametrize(
    "config",
    [
        {"objects": {"product": {}}},
        {"objects": {"product": {"key": ["sku"], "lisst": {}}}},
        {"objects": {"product": {"key": ["sku"], "get": {"path": "/x", "method": "FETCH"}}}},
        {"base_url": "http://10.0.0.1/"},
        {"base_url": "http://user:password@shop.example/"},
    ],
)
async def test_a_configuration_that_cannot_work_is_refused_when_opened(
    open_context: OpenContext, config: dict[str, Any]
) -> None:
    provider = HttpApi({"base_url": "https://shop.example", **config}, open_context)
    assert isinstance(provider, Provider)
    with pytest.raises(ProviderError) as refusal:
        await provider.open()
    assert refusal.value.code is ErrorCode.FAILED_PRECONDITION
    await provider.close()
    await provider.close()
