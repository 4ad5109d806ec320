"""Counts of calls as OpenMetrics: all tenants summed for the operator, one tenant's own for itself."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from erp.telemetry import call_metrics
from erp.telemetry.call_metrics import BUCKETS_SECONDS, CallMetrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: bytes) -> Samples:
    """Return the samples of an exposition that keeps to OpenMetrics."""
    assert text.endswith(b"# EOF\n")
    families = text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]  # published without types
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> CallMetrics:
    made = CallMetrics()
    made.series("acme", "cache/memory", "get").observe("ok", 0.002, 0.001)
    made.series("acme", "cache/memory", "get").observe("timeout", 40.0, 39.0)
    made.series("globex", "cache/memory", "get").observe("ok", 0.002, 0.001)
    made.series("globex", "order", "submit").observe("ok", 0.3, 0.2)
    return made


def test_the_operator_sees_sums_over_tenants_without_their_names(metrics: CallMetrics) -> None:
    metrics.in_flight = 7
    text = metrics.exposition()
    samples = parsed(text)
    get = (("action", "get"), ("target", "cache/memory"))

    assert samples["erp_calls_total", (get[0], ("code", "ok"), get[1])] == 2
    assert samples["erp_calls_total", (get[0], ("code", "timeout"), get[1])] == 1
    assert samples["erp_call_duration_seconds_count", get] == 3
    assert samples["erp_call_duration_seconds_sum", get] == pytest.approx(40.004)
    assert samples["erp_provider_seconds_total", get] == pytest.approx(39.002)
    assert samples["erp_calls_in_flight", ()] == 7
    assert b"acme" not in text
    assert b"globex" not in text
    assert b"tenant" not in text


def test_buckets_are_cumulative_and_end_in_infinity(metrics: CallMetrics) -> None:
    samples = parsed(metrics.exposition())
    counts = [
        samples["erp_call_duration_seconds_bucket", (("action", "get"), ("le", str(bound)), ("target", "cache/memory"))]
        for bound in (*BUCKETS_SECONDS, "+Inf")
    ]

    assert counts == [0, 0] + [2] * 13 + [3]


def test_a_duration_on_a_bound_counts_below_it() -> None:
    metrics = CallMetrics()
    metrics.series("acme", "order", "submit").observe("ok", 0.0005, 0.0)

    assert metrics.series("acme", "order", "submit").buckets[0] == 1


def test_a_tenant_sees_its_own_calls_of_one_provider_and_nothing_else(metrics: CallMetrics) -> None:
    metrics.series("initech", "cache/memory", "delete").observe("internal", 1.0, 1.0)
    text = metrics.exposition(tenant="acme", target="cache/memory")
    samples = parsed(text)

    assert {key: value for key, value in samples.items() if key[0] == "erp_calls_total"} == {
        ("erp_calls_total", (("action", "get"), ("code", "ok"), ("target", "cache/memory"))): 1,
        ("erp_calls_total", (("action", "get"), ("code", "timeout"), ("target", "cache/memory"))): 1,
    }
    for foreign in (b"globex", b"order", b"delete", b"internal", b"in_flight"):
        assert foreign not in text


def test_who_has_made_no_call_sees_no_sample(metrics: CallMetrics) -> None:
    assert parsed(metrics.exposition(tenant="nobody", target="cache/memory")) == {}
    assert parsed(CallMetrics().exposition()) == {("erp_calls_in_flight", ()): 0}


def test_labels_with_quotes_and_line_ends_keep_the_format() -> None:
    metrics = CallMetrics()
    metrics.series("acme", 'a"b\n\\', "get").observe("ok", 0.1, 0.1)

    labels = (("action", "get"), ("code", "ok"), ("target", 'a"b\n\\'))
    assert parsed(metrics.exposition())["erp_calls_total", labels] == 1


def test_beyond_a_number_of_series_new_ones_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_metrics, "MAX_SERIES", 2)
    metrics = CallMetrics()
    for name in ("a", "b", "c", "d", "a"):
        metrics.series("acme", f"cache/{name}", "get").observe("ok", 0.1, 0.1)

    samples = parsed(metrics.exposition())
    totals = {labels[2][1]: value for (name, labels), value in samples.items() if name == "erp_calls_total"}
    assert totals == {"cache/a": 2, "cache/b": 1, "other": 2}
    assert parsed(metrics.exposition(tenant="acme", target="cache/c")) == {}
