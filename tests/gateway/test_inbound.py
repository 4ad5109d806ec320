"""What the layer reads from headers, and what it refuses to believe."""

import pytest

from erp.errors import ProviderError
from erp.gateway.inbound import MAX_HEADER_BYTES, Inbound

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def inbound(**headers: str) -> Inbound:
    return Inbound([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer k1"}, {"authorization": "bearer  k1"}, {"x_api_key": "k1"}]
)
def test_a_key_is_taken_from_either_header(headers: dict[str, str]) -> None:
    assert inbound(**headers).credential == "k1"


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer "}, {"x_api_key": ""}]
)
def test_without_a_usable_credential_the_caller_is_told_how_to_send_one(headers: dict[str, str]) -> None:
    with pytest.raises(ProviderError) as refused:
        _ = inbound(**headers).credential
    assert refused.value.code == "unauthenticated"
    assert "Authorization: Bearer KEY" in refused.value.message


def test_a_given_request_id_is_kept_and_a_dangerous_one_replaced() -> None:
    assert inbound(x_request_id="order-17.a:b").request_id == "order-17.a:b"
    for wrong in ('a"b', "a\nb", "x" * 129, "ü"):
        assert inbound(x_request_id=wrong).request_id.startswith("req_")


def test_a_trace_is_continued_with_a_new_span() -> None:
    made = inbound(traceparent=TRACE).traceparent

    assert made[:35] == TRACE[:35]
    assert made[36:52] != TRACE[36:52]
    assert len(made) == 55


@pytest.mark.parametrize("wrong", ["", "nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", TRACE.upper()])
def test_a_malformed_trace_starts_a_new_one(wrong: str) -> None:
    made = inbound(traceparent=wrong).traceparent
    assert len(made) == 55
    assert "4bf92f3577b34da6a3ce929d0e0e4736" not in made


@pytest.mark.parametrize(("prefer", "seconds"), [("wait=5", 5.0), ("respond-async, wait=10", 10.0), ("wait=x", None)])
def test_prefer_wait_bounds_the_call(prefer: str, seconds: float | None) -> None:
    assert inbound(prefer=prefer).wait_seconds == seconds


@pytest.mark.parametrize(
    ("header", "value", "pointer"),
    [("x_connection", "../../etc", "/headers/X-Connection"), ("x_user_id", "a b", "/headers/X-User-Id")],
)
def test_malformed_headers_are_named(header: str, value: str, pointer: str) -> None:
    with pytest.raises(ProviderError) as refused:
        inbound(**{header: value}).check()
    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_headers_over_the_limit_are_431() -> None:
    with pytest.raises(ProviderError) as refused:
        inbound(x_filler="x" * MAX_HEADER_BYTES).check()
    assert refused.value.status == 431
