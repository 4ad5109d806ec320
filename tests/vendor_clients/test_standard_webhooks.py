"""Signing and verifying webhooks, checked against the reference library of the specification."""

from __future__ import annotations

import base64
import datetime
import json

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError as ReferenceRefusal

from erp.vendor_clients.standard_webhooks import (
    InvalidSecretError,
    SigningKeys,
    WebhookVerificationError,
    generate_secret,
)

# The example of the specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT_AT = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed(**changes: str) -> dict[str, str]:
    headers = SigningKeys([SECRET]).headers(message_id=MESSAGE_ID, body=BODY, sent_at=SENT_AT)
    return headers | {name.replace("_", "-"): value for name, value in changes.items()}


def test_the_example_of_the_specification_gets_its_signature() -> None:
    assert signed() == {
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": str(SENT_AT),
        "webhook-signature": SIGNATURE,
    }


def test_the_reference_library_accepts_what_is_signed_here() -> None:
    body = json.dumps({"type": "order.submitted", "data": {"note": "Größe"}}, ensure_ascii=False).encode()
    secret = generate_secret()
    headers = SigningKeys([secret]).headers(message_id="msg_1", body=body)
    assert Webhook(secret).verify(body, headers) == json.loads(body)


def test_what_the_reference_library_signs_is_accepted_here() -> None:
    moment = datetime.datetime.now(tz=datetime.UTC)
    headers = {
        "Webhook-Id": "msg_2",
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": Webhook(SECRET).sign("msg_2", moment, "hello"),
    }
    message = SigningKeys([SECRET]).verify(headers, b"hello")
    assert (message.id, message.sent_at) == ("msg_2", int(moment.timestamp()))


def test_during_a_rotation_receivers_with_the_old_and_the_new_secret_both_accept() -> None:
    old, new = generate_secret(), generate_secret()
    headers = SigningKeys([new, old]).headers(message_id="msg_3", body=BODY)
    assert headers["webhook-signature"].count("v1,") == 2
    assert Webhook(old).verify(BODY, headers) == {"test": 2432232314}
    assert Webhook(new).verify(BODY, headers) == {"test": 2432232314}
    with pytest.raises(ReferenceRefusal):
        Webhook(generate_secret()).verify(BODY, headers)


def test_a_receiver_that_knows_two_secrets_accepts_either_sender() -> None:
    old, new = generate_secret(), generate_secret()
    receiver = SigningKeys([new, old])
    for sender in (old, new):
        headers = SigningKeys([sender]).headers(message_id="msg_4", body=BODY)
        assert receiver.verify(headers, BODY).id == "msg_4"


def test_bodies_that_are_not_text_are_verified() -> None:
    body = b"\xff\xfe\x00"
    keys = SigningKeys([SECRET])
    assert keys.verify(keys.headers(message_id="msg_5", body=body), body).id == "msg_5"


@pytest.mark.parametrize("changed", [b'{"test": 2432232315}', b"", BODY + b" ", b"\xff"])
def test_a_changed_body_is_refused(changed: bytes) -> None:
    with pytest.raises(WebhookVerificationError, match="No signature matches"):
        SigningKeys([SECRET]).verify(signed(), changed, now=SENT_AT)
    assert SigningKeys([SECRET]).verify(signed(), BODY, now=SENT_AT).id == MESSAGE_ID


def test_a_changed_id_or_timestamp_is_refused() -> None:
    keys = SigningKeys([SECRET])
    for headers in (signed(webhook_id="msg_other"), signed(webhook_timestamp=str(SENT_AT + 1))):
        with pytest.raises(WebhookVerificationError, match="No signature matches"):
            keys.verify(headers, BODY, now=SENT_AT)


@pytest.mark.parametrize(
    ("now", "reason"), [(SENT_AT + 301, "too old"), (SENT_AT - 301, "from the future"), (SENT_AT + 1e8, "too old")]
)
def test_a_message_outside_the_tolerance_is_refused(now: float, reason: str) -> None:
    with pytest.raises(WebhookVerificationError, match=reason):
        SigningKeys([SECRET]).verify(signed(), BODY, now=now)


@pytest.mark.parametrize("now", [SENT_AT + 300, SENT_AT - 300])
def test_the_edge_of_the_tolerance_is_accepted(now: float) -> None:
    assert SigningKeys([SECRET]).verify(signed(), BODY, now=now).sent_at == SENT_AT


@pytest.mark.parametrize(
    "signature",
    [
        "",
        " ",
        "v1",
        "v1,",
        ",",
        "v1,a,b",
        "v1,not base64!",
        "v1,====",
        "v1,é",
        "v1,AAAA",
        "v1a," + base64.b64encode(b"x" * 64).decode(),
        "v2" + SIGNATURE[2:],
        SIGNATURE[3:],
        SIGNATURE.swapcase(),
        "\ud800",
        "v1,\x00",
        " ".join(["v1,AAAA"] * 100_000),
    ],
)
def test_malformed_signatures_raise_the_verification_error_and_nothing_else(signature: str) -> None:
    with pytest.raises(WebhookVerificationError):
        SigningKeys([SECRET]).verify(signed(webhook_signature=signature), BODY, now=SENT_AT)


@pytest.mark.parametrize("timestamp", ["", "x", "1e9", "-1", "+1614265330", "1614265330.5", "١٦", "9" * 400, "NaN"])
def test_malformed_timestamps_raise_the_verification_error_and_nothing_else(timestamp: str) -> None:
    with pytest.raises(WebhookVerificationError):
        SigningKeys([SECRET]).verify(signed(webhook_timestamp=timestamp), BODY, now=SENT_AT)


@pytest.mark.parametrize("message_id", ["", "\ud800", "a b", "é", "x" * 257, "a\nb"])
def test_malformed_ids_raise_the_verification_error_and_nothing_else(message_id: str) -> None:
    with pytest.raises(WebhookVerificationError, match="webhook-id"):
        SigningKeys([SECRET]).verify(signed(webhook_id=message_id), BODY, now=SENT_AT)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_required(missing: str) -> None:
    headers = signed()
    del headers[missing]
    with pytest.raises(WebhookVerificationError, match=missing):
        SigningKeys([SECRET]).verify(headers, BODY, now=SENT_AT)


def test_a_matching_signature_counts_among_others_that_do_not() -> None:
    headers = signed(webhook_signature=f"v1a,AAAA v1,AAAA garbage {SIGNATURE}")
    assert SigningKeys([SECRET]).verify(headers, BODY, now=SENT_AT).id == MESSAGE_ID


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "ü", "a\r\nx: y", "x" * 257])
def test_an_id_that_could_be_misread_is_not_signed(message_id: str) -> None:
    with pytest.raises(ValueError, match="webhook-id"):
        SigningKeys([SECRET]).headers(message_id=message_id, body=BODY)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_!", "whsec_" + "A" * 100, "whsec_é"])
def test_a_malformed_secret_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(InvalidSecretError) as refusal:
        SigningKeys([secret])
    assert secret.removeprefix("whsec_") not in str(refusal.value).replace("whsec_", "") or secret in {"", "whsec_"}


def test_no_secret_at_all_is_refused() -> None:
    with pytest.raises(InvalidSecretError, match="At least one"):
        SigningKeys([])


def test_the_repr_shows_no_secret() -> None:
    assert repr(SigningKeys([SECRET])) == "SigningKeys(1 secrets)"


def test_generated_secrets_have_32_bytes_and_differ() -> None:
    first, second = generate_secret(), generate_secret()
    assert first != second
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32
