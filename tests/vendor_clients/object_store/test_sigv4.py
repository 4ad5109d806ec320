"""Signatures equal those of botocore, which Amazon wrote."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as TheirCredentials

from erp.vendor_clients.object_store.endpoint import quoted
from erp.vendor_clients.object_store.sigv4 import Credentials, Signer, query_text

NOW = datetime.datetime(2026, 11, 28, 23, 5, 4, tzinfo=datetime.UTC)
NAMES = ["a", "a b/ü+~(1)*'!", "%2E.%E/x", "🔑=&?#", "a%25b"]


@pytest.fixture(autouse=True)
def _frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None))


def theirs(auth: Any, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> AWSRequest:
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    request.context["payload_signing_enabled"] = True
    auth.add_auth(request)
    return request


@pytest.mark.parametrize("token", [None, "temporary+/="])
@pytest.mark.parametrize("name", NAMES)
def test_headers_are_signed_as_amazon_signs_them(name: str, token: str | None) -> None:
    path, query, headers = (
        f"/bucket/{quoted(name)}",
        {"uploadId": "a+/=b", "partNumber": "1"},
        {"content-type": "a/b;  c=d"},
    )
    ours = Signer(Credentials("key", "secret/+", token), "eu-west-1").headers(
        "PUT", "s3.example:9000", path, query=query, headers=headers, body=b"content", now=NOW
    )

    request = theirs(
        S3SigV4Auth(TheirCredentials("key", "secret/+", token), "s3", "eu-west-1"),
        "PUT",
        f"https://s3.example:9000{path}?{query_text(query)}",
        headers | {"X-Amz-Content-SHA256": ours["x-amz-content-sha256"]},
        b"content",
    )
    assert ours["authorization"] == request.headers["Authorization"]


@pytest.mark.parametrize("token", [None, "temporary+/="])
@pytest.mark.parametrize("name", NAMES)
def test_links_are_signed_as_amazon_signs_them(name: str, token: str | None) -> None:
    path, headers = f"/bucket/{quoted(name)}", {"content-type": "text/csv"}
    ours = Signer(Credentials("key", "secret/+", token), "eu-west-1").query(
        "PUT", "s3.example", path, seconds=900, headers=headers, now=NOW
    )

    auth = S3SigV4QueryAuth(TheirCredentials("key", "secret/+", token), "s3", "eu-west-1", expires=900)
    request = theirs(auth, "PUT", f"https://s3.example{path}", headers)
    assert parse_qs(ours) == parse_qs(urlsplit(request.url).query)


def test_secrets_are_not_shown() -> None:
    credentials = Credentials("key", "very-secret", "very-temporary")

    assert "very" not in f"{credentials!r}{Signer(credentials, 'eu-west-1')!r}"


def test_names_are_escaped_as_amazon_escapes_them() -> None:
    assert [quoted(name) for name in NAMES] == [quote(name, safe="/~") for name in NAMES]
