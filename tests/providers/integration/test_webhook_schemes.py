"""How peers prove that a webhook is theirs: every scheme accepts its own and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks import Webhook

from erp.providers.integration.webhook import schemes
from erp.providers.integration.webhook.schemes import SCHEMES, RefusedError, Scheme
from erp.vendor_clients.standard_webhooks import InvalidSecretError, SigningKeys, generate_secret

NOW = 1_764_000_000.0
TEXT_SECRET = "a shared secret of a shop"
STANDARD_SECRET = generate_secret()
BODY = json.dumps({"id": "evt_1", "type": "order.paid", "note": "Größe"}, ensure_ascii=False).encode()

Headers = dict[str, str]


def digest(signed: bytes, secret: str = TEXT_SECRET) -> bytes:
    return hmac.digest(secret.encode(), signed, hashlib.sha256)


def standard(body: bytes, at: float) -> Headers:
    return SigningKeys([STANDARD_SECRET]).headers(message_id="msg_1", body=body, sent_at=at)


def github(body: bytes, at: float) -> Headers:
    return {
        "x-hub-signature-256": f"sha256={digest(body).hex()}",
        "x-github-delivery": "72d3162e",
        "x-github-event": "push",
    }


def stripe(body: bytes, at: float) -> Headers:
    return {"stripe-signature": f"t={int(at)},v1={digest(f'{int(at)}.'.encode() + body).hex()},v0=00"}


def shopify(body: bytes, at: float) -> Headers:
    return {
        "x-shopify-hmac-sha256": base64.b64encode(digest(body)).decode(),
        "x-shopify-webhook-id": "b54557e4",
        "x-shopify-topic": "orders/paid",
    }


def gitlab(body: bytes, at: float) -> Headers:
    return {"x-gitlab-token": TEXT_SECRET, "idempotency-key": "f5a2", "x-gitlab-event": "Push Hook"}


def generic(body: bytes, at: float) -> Headers:
    return {"x-signature": digest(body).hex()}


Sign = Callable[[bytes, float], Headers]
PEERS: list[tuple[str, Sign, str, str]] = [
    ("standard_webhooks", standard, "msg_1", "order.paid"),
    ("github", github, "72d3162e", "push"),
    ("stripe", stripe, "evt_1", "order.paid"),
    ("shopify", shopify, "b54557e4", "orders/paid"),
    ("gitlab", gitlab, "f5a2", "Push Hook"),
    ("hmac_sha256", generic, f"sha256_{hashlib.sha256(BODY).hexdigest()}", "order.paid"),
]
WITH_TIME = [peer for peer in PEERS if peer[0] in {"standard_webhooks", "stripe"}]
WITH_SIGNATURE = [peer for peer in PEERS if peer[0] != "gitlab"]


def secret_of(name: str) -> str:
    return STANDARD_SECRET if name == "standard_webhooks" else TEXT_SECRET


def read(name: str, headers: Headers, body: bytes = BODY, now: float = NOW, **facts: Any) -> schemes.Facts:
    return schemes.read(SCHEMES[name], facts.get("secrets", [secret_of(name)]), headers, body, now)


@pytest.mark.parametrize(("name", "sign", "id_", "event"), PEERS, ids=[peer[0] for peer in PEERS])
def test_what_the_peer_signed_is_accepted_with_its_id_and_name(name: str, sign: Sign, id_: str, event: str) -> None:
    facts = read(name, sign(BODY, NOW))
    assert (facts.id, facts.name) == (id_, event)


def test_what_the_reference_library_signs_is_accepted() -> None:
    headers = standard(BODY, NOW)
    import datetime

    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    headers["webhook-signature"] = Webhook(STANDARD_SECRET).sign("msg_1", moment, BODY.decode())
    assert read("standard_webhooks", headers).id == "msg_1"


@pytest.mark.parametrize(("name", "sign", "id_", "event"), WITH_SIGNATURE, ids=[peer[0] for peer in WITH_SIGNATURE])
def test_a_changed_body_is_refused(name: str, sign: Sign, id_: str, event: str) -> None:
    with pytest.raises(RefusedError, match="No signature matches"):
        read(name, sign(BODY, NOW), BODY + b" ")


@pytest.mark.parametrize(("name", "sign", "id_", "event"), PEERS, ids=[peer[0] for peer in PEERS])
def test_another_secret_and_a_missing_header_are_refused(name: str, sign: Sign, id_: str, event: str) -> None:
    other = generate_secret() if name == "standard_webhooks" else "another secret of 20"
    with pytest.raises(RefusedError):
        read(name, sign(BODY, NOW), secrets=[other])
    with pytest.raises(RefusedError, match="missing"):
        read(name, {})


@pytest.mark.parametrize(("name", "sign", "id_", "event"), PEERS, ids=[peer[0] for peer in PEERS])
def test_of_two_secrets_either_is_enough(name: str, sign: Sign, id_: str, event: str) -> None:
    other = generate_secret() if name == "standard_webhooks" else "another secret of 20"
    assert read(name, sign(BODY, NOW), secrets=[other, secret_of(name)]).id == id_


@pytest.mark.parametrize(("name", "sign", "id_", "event"), WITH_TIME, ids=[peer[0] for peer in WITH_TIME])
@pytest.mark.parametrize(("age", "is_fresh"), [(299, True), (301, False), (-299, True), (-302, False)])
def test_a_signed_time_counts_for_five_minutes(
    name: str, sign: Sign, id_: str, event: str, age: float, is_fresh: bool
) -> None:
    headers = sign(BODY, NOW)
    if is_fresh:
        assert read(name, headers, now=NOW + age).sent_at == NOW
    else:
        with pytest.raises(RefusedError, match=r"old|future"):
            read(name, headers, now=NOW + age)


def test_the_time_cannot_be_moved_without_the_secret() -> None:
    headers = standard(BODY, NOW - 1000) | {"webhook-timestamp": str(int(NOW))}
    with pytest.raises(RefusedError, match="No signature matches"):
        read("standard_webhooks", headers)
    moved = stripe(BODY, NOW - 1000)["stripe-signature"].replace(str(int(NOW - 1000)), str(int(NOW)))
    with pytest.raises(RefusedError, match="No signature matches"):
        read("stripe", {"stripe-signature": moved})


@pytest.mark.parametrize(
    "signature",
    ["", "v1", "v1,", "v1,,", "v1,!!!", "v2,AAAA", "v1a,AAAA", ",", " ", "v1,\xff", "x" * 100_000, "v1,A " * 9999],
)
def test_a_malformed_signature_is_refused_and_never_an_error(signature: str) -> None:
    with pytest.raises(RefusedError):
        read("standard_webhooks", standard(BODY, NOW) | {"webhook-signature": signature})


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", "9" * 13, "١٧٦٤", "1764000000.0"])
def test_a_malformed_time_is_refused_and_never_an_error(timestamp: str) -> None:
    with pytest.raises(RefusedError):
        read("standard_webhooks", standard(BODY, NOW) | {"webhook-timestamp": timestamp})


def test_a_missing_id_is_refused_where_the_signature_covers_it() -> None:
    headers = standard(BODY, NOW)
    del headers["webhook-id"]
    with pytest.raises(RefusedError, match="webhook-id"):
        read("standard_webhooks", headers)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 5000, b"null", b'{"type": true}', b'{"type": {"a": 1}}'])
def test_a_body_of_any_kind_has_a_name_and_an_id(body: bytes) -> None:
    facts = read("hmac_sha256", generic(body, NOW), body)
    assert (facts.name, facts.id) == ("webhook", f"sha256_{hashlib.sha256(body).hexdigest()}")


def test_a_long_id_is_stored_as_its_digest() -> None:
    facts = read("github", github(BODY, NOW) | {"x-github-delivery": "x" * 300})
    assert facts.id == f"sha256_{hashlib.sha256(b'x' * 300).hexdigest()}"


def test_a_row_of_a_configuration_reads_a_peer_nobody_foresaw() -> None:
    row = Scheme(
        signature_header="x-acme-signature",
        prefix="v0=",
        signed="v0:{timestamp}:{body}",
        timestamp_header="x-acme-time",
        tolerance_seconds=60,
        id_pointer="/event~1id",
        name_pointer="/event/kind",
    )
    body = b'{"event/id": 77, "event": {"kind": "moved"}}'
    headers = {
        "x-acme-time": str(int(NOW)),
        "x-acme-signature": f"v0={digest(b'v0:%d:' % int(NOW) + body).hex()}",
    }
    facts = schemes.read(row, [TEXT_SECRET], headers, body, NOW + 59)
    assert (facts.id, facts.name) == ("77", "moved")
    with pytest.raises(RefusedError):
        schemes.read(row, [TEXT_SECRET], headers, body, NOW + 61)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"signature_header": "x-s", "signed": "{timestamp}"},
        {"signature_header": "x-s", "signed": "{timestamp}.{body}"},
        {"signature_header": "x-s", "signed": "{id}.{body}"},
    ],
)
def test_a_row_that_would_prove_nothing_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"signature_header|signed"):
        Scheme(**row)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("standard_webhooks", "plain"),
        ("github", "short"),
        ("github", "with\nnewline but long enough"),
        ("token", "x" * 20),
    ],
)
def test_a_secret_a_scheme_cannot_use_is_refused(name: str, secret: str) -> None:
    with pytest.raises(InvalidSecretError) as refusal:
        schemes.check_secret(SCHEMES[name], secret)
    assert secret not in str(refusal.value)


def test_new_secrets_are_usable_and_differ() -> None:
    for name, scheme in SCHEMES.items():
        made = [schemes.new_secret(scheme) for _ in range(2)]
        if name == "token":
            assert made == [None, None]
            continue
        assert made[0] != made[1]
        schemes.check_secret(scheme, made[0] or "")
