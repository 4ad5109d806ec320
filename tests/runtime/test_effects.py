"""What a call leaves behind, as pure functions of the call."""

import datetime
import hashlib

import msgspec
import pytest
from tests.conftest import MakeCallContext
from tests.runtime.conftest import ToyLayer

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.runtime import effects
from erp.runtime.call import Call
from erp.runtime.call_policy import Rate
from erp.runtime.context import CallContext, EmittedEvent
from erp.runtime.ports import ClaimOutcome

pytestmark = pytest.mark.anyio


@pytest.fixture
async def call(toy: ToyLayer) -> Call:
    return toy.call("append", idempotency_key="k", connection="west", user="ann")


@pytest.fixture
def context(call_context: MakeCallContext) -> CallContext:
    return call_context()


async def test_a_claim_names_who_what_and_which_request(call: Call) -> None:
    made = effects.claim(call, b"{}", reentrant=True, window_seconds=5)

    expected = hashlib.blake2b(b"{}", digest_size=16, person=b"erp-request")
    expected.update(b"toy/box.append#west")
    assert (made.tenant, made.actor, made.key, made.target) == ("acme", "key_acme", "c:k", "toy/box.append")
    assert (made.fingerprint, made.reentrant, made.window_seconds) == (expected.digest(), True, 5)
    assert made.token != effects.claim(call, b"{}", reentrant=False, window_seconds=60).token


async def test_the_fingerprint_does_not_change_between_versions_of_the_layer(call: Call) -> None:
    made = effects.claim(call, b'{"key":"a","amount":"0"}', reentrant=False, window_seconds=5)

    assert made.fingerprint.hex() == "8b31f625f5311f9941a8e85e9585927d"


async def test_targets_name_provider_or_service(toy: ToyLayer, call: Call) -> None:
    assert effects.target_of(call) == "toy/box.append"
    assert effects.target_of(toy.call("buy", area="services")) == "shop.buy"


async def test_times_are_rfc_3339_in_utc() -> None:
    parsed = datetime.datetime.fromisoformat(effects.now())

    assert parsed.utcoffset() == datetime.timedelta(0)


@pytest.mark.parametrize("code", list(ErrorCode))
async def test_only_failures_known_to_be_without_effect_count_as_such(code: ErrorCode) -> None:
    unknown = {"timeout", "outcome_unknown", "partial", "cancelled", "internal"}

    assert effects.may_have_happened(ProviderError(code, "")) is (code.value in unknown)


async def test_success_carries_answer_events_and_audit(call: Call, context: CallContext) -> None:
    context.emit("changed", {"a": 1})
    claim = effects.claim(call, b"{}", reentrant=False, window_seconds=5)

    made = effects.completion(call, context, claim, b'{"x":1}')

    assert (made.claim, made.status, made.body, made.release) == (claim, 200, b'{"x":1}', False)
    assert [event.data for event in made.events] == [{"a": 1}]
    assert (made.audit.outcome, made.audit.reason) == ("ok", "done")
    assert made.audit.detail == {"connection": "west", "user": "ann"}


async def test_a_failure_gives_the_claim_back_or_keeps_it(call: Call) -> None:
    failure = ProviderError("internal", "Broken.", detail="hunter2")
    given_back = effects.failed(call, None, ProviderError("unavailable", "Broken.", detail="hunter2"), may_repeat=True)
    kept = effects.failed(call, None, failure, may_repeat=False)

    assert (given_back.release, given_back.status, given_back.body) == (True, 0, b"")
    assert (kept.release, kept.status) == (False, 502)
    assert msgspec.json.decode(kept.body) == {"code": "outcome_unknown", "message": "Broken.", "errors": []}
    assert (kept.audit.outcome, kept.audit.reason) == ("internal", "Broken.")
    assert "hunter2" not in str(kept)


async def test_a_failure_stored_without_errors_can_still_be_replayed(call: Call) -> None:
    stored = ClaimOutcome(state="replay", status=502, body=b'{"code":"partial","message":"Half."}')

    with pytest.raises(ProviderError) as caught:
        effects.settled(call, stored)

    assert (caught.value.code, caught.value.errors) == (ErrorCode.PARTIAL, ())


async def test_a_failure_keeps_its_errors(call: Call) -> None:
    failure = ProviderError("partial", "Half.", errors=[FieldError("/a", "b")])

    assert msgspec.json.decode(effects.failed(call, None, failure, may_repeat=False).body) == {
        "code": "partial",
        "message": "Half.",
        "errors": [{"pointer": "/a", "message": "b"}],
    }


async def test_a_call_never_tried_gives_its_claim_back(call: Call) -> None:
    made = effects.gave_back(call, None, "not_found")

    assert (made.release, made.audit.outcome, made.audit.reason) == (True, "not_found", "not tried")


async def test_a_refusal_records_who_was_refused_and_why(call: Call) -> None:
    made = effects.refusal(call, "no right")

    assert (made.actor, made.outcome, made.reason, made.effect) == (
        "key_acme",
        "permission_denied",
        "no right",
        "write",
    )


async def test_events_without_an_id_are_numbered_within_their_request(call: Call) -> None:
    plain = effects.outbox_event(call, EmittedEvent(name="changed", data={}), 3)
    named = effects.outbox_event(call, EmittedEvent(name="changed", data={}, id="mine"), 3)

    assert (plain.id, named.id) == ("req_1-3", "mine")
    assert plain.traceparent == call.traceparent


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, Rate()),
        ({"rate": {"requests": 5}}, Rate(requests=5)),
        ({"timeout_seconds": 5, "actions": {"get": {"rate": {"requests": 1}}}}, Rate()),
    ],
)
async def test_a_tenants_rate_is_its_own_over_all_calls(policy: dict[str, object], expected: Rate) -> None:
    assert effects.tenant_rate(policy) == expected
