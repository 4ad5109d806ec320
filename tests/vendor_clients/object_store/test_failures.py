"""What refusals mean, and that no caller can spell one."""

from __future__ import annotations

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.guarded_http import Answer, AnswerLostError, AnswerTimedOutError, ConnectFailedError
from erp.vendor_clients.object_store.failures import Refusal, RefusedError, of_a_read, of_a_write, of_library
from erp.vendor_clients.object_store.s3_rest import parsed

TEXT = (
    "Generic S3 error: Error performing PUT http://store/b/NAME in 1ms - {said}\n\nDebug source:\nGeneric {{ {debug} }}"
)


@pytest.mark.parametrize(
    ("said", "debug", "code"),
    [
        ("Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>", "", "failed_precondition"),
        ("Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchKey</Code></Error>", "", "not_found"),
        ("Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code></Error>", "", "unauthenticated"),
        ("Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code></Error>", "", "permission_denied"),
        ("Server returned non-2xx status code: 403 Forbidden: <Error><Code>GateRefused</Code></Error>", "", "failed_precondition"),
        ("Server returned non-2xx status code: 421 Misdirected: <Error><Code>GateUnreachable</Code></Error>", "", "unavailable"),
        ("Server returned non-2xx status code: 429 Too Many Requests: ", "", "rate_limited"),
        ("Server returned non-2xx status code: 503 Service Unavailable: ", "", "unavailable"),
        ("Server returned non-2xx status code: 400 Bad Request: <Error><Code>XMinioInvalidObjectName</Code></Error>", "", "invalid_argument"),
        ("Received redirect without LOCATION, this normally", "", "failed_precondition"),
        ("HTTP error: error sending request", "HttpError {\n kind: Connect, ", "unavailable"),
        ("HTTP error: error sending request", "HttpError {\n kind: Timeout, ", "timeout"),
        ("HTTP error: error sending request", "HttpError {\n kind: Interrupted, ", "unavailable"),
        ("something new", "", "unavailable"),
    ],
)  # fmt: skip
def test_what_the_library_says_is_understood(said: str, debug: str, code: str) -> None:
    with pytest.raises(ProviderError) as caught, of_a_read():
        raise of_library(RuntimeError(TEXT.format(said=said, debug=debug)), "NAME")

    assert caught.value.code == code


def test_a_name_cannot_spell_an_answer() -> None:
    name = "k: Server returned non-2xx status code: 404 <Code>NoSuchBucket</Code> HttpError { kind: Connect"
    error = RuntimeError(f"Object at location {name} ... HTTP error HttpError {{ kind: Interrupted }}")

    assert isinstance(of_library(error, name), AnswerLostError)


@pytest.mark.parametrize(
    "lost", [AnswerLostError("x"), AnswerTimedOutError("x"), TimeoutError(), *(RefusedError(Refusal(status)) for status in (500, 502, 504))]
)  # fmt: skip
def test_a_write_that_may_have_happened_is_never_called_harmless(lost: Exception) -> None:
    with pytest.raises(ProviderError) as plain, of_a_write():
        raise lost
    with pytest.raises(ProviderError) as conditional, of_a_write(is_conditional=True):
        raise lost

    assert (plain.value.code, conditional.value.code) == ("timeout", "outcome_unknown")


@pytest.mark.parametrize("unsent", [ConnectFailedError("x"), RefusedError(Refusal(503, "SlowDown"))])
def test_a_write_that_did_not_happen_can_be_repeated_at_once(unsent: Exception) -> None:
    with pytest.raises(ProviderError) as caught, of_a_write(is_conditional=True):
        raise unsent

    assert (caught.value.code, caught.value.retry_after_seconds) == ("unavailable", 1.0)


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><a/>'.encode("utf-16"),
        b"<a>",
        b"",
        b"\xff",
    ],
)
def test_an_answer_that_is_no_plain_document_is_not_read(body: bytes) -> None:
    with pytest.raises(AnswerLostError):
        parsed(Answer(200, {}, body))


def test_a_refusal_that_comes_with_200_is_one() -> None:
    with pytest.raises(RefusedError) as caught:
        parsed(Answer(200, {}, b"<Error><Code>InternalError</Code></Error>"))

    assert (caught.value.refusal.status, caught.value.refusal.code) == (500, "InternalError")
