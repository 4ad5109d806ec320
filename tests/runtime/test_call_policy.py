"""Which protection settings win."""

import msgspec
import pytest

from erp.runtime import call_policy
from erp.runtime.call_policy import Breaker, Bulkhead, CallPolicy, Rate, Retry


def test_without_overrides_the_defaults_hold() -> None:
    assert call_policy.resolve("get", {}) == CallPolicy()


def test_later_overrides_win_and_an_action_wins_over_its_connection() -> None:
    tenant = {"timeout_seconds": 10, "retry": {"max_attempts": 5}, "actions": {"get": {"timeout_seconds": 4}}}
    connection = {"timeout_seconds": 3, "actions": {"get": {"timeout_seconds": 1}, "set": {"timeout_seconds": 2}}}

    assert call_policy.resolve("get", {}, tenant, connection).timeout_seconds == 1
    assert call_policy.resolve("set", {}, tenant, connection).timeout_seconds == 2
    assert call_policy.resolve("other", {}, tenant, connection).timeout_seconds == 3
    assert call_policy.resolve("get", {}, tenant, connection).retry == Retry(max_attempts=5)


def test_the_limits_of_a_provider_are_its_defaults() -> None:
    limits = {"max_concurrency": 4, "timeout_seconds": 7}

    assert call_policy.resolve("get", limits).bulkhead == Bulkhead(max_concurrency=4)
    assert call_policy.resolve("get", limits, {"bulkhead": {"max_concurrency": 2}}).bulkhead.max_concurrency == 2
    assert call_policy.resolve("get", limits).timeout_seconds == 7


def test_settings_not_named_keep_their_defaults() -> None:
    policy = call_policy.resolve("get", {}, {"breaker": {"open_seconds": 1}, "rate": {"requests": 5}})

    assert policy.breaker == Breaker(open_seconds=1)
    assert policy.rate == Rate(requests=5)


@pytest.mark.parametrize(
    "override",
    [
        {"timeout": 3},
        {"retry": {"attempts": 3}},
        {"timeout_seconds": "3"},
        {"actions": {"get": {"nonsense": 1}}},
        {"timeout_seconds": 0},
        {"retry": {"max_attempts": 0}},
        {"retry": {"base_seconds": -1}},
        {"breaker": {"failure_threshold": 0}},
        {"bulkhead": {"max_concurrency": 0}},
        {"rate": {"requests": 0}},
        {"rate": {"period_seconds": 0}},
        {"rate": {"burst": 0}},
    ],
)
def test_a_setting_that_is_unknown_mistyped_or_out_of_range_is_refused(override: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        call_policy.resolve("get", {}, override)
