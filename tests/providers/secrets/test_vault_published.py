"""The double of Vault answers as the vendor's published OpenAPI document says; and an answer that does not is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import hvac
import pytest
from tests.support import vault_double
from tests.support.vault_double import JWT, ROLE_ID, SECRET_ID, Double, Vault
from tests.support.vault_published import DOCUMENT, NULLS, UNDESCRIBED, Published

NOW = "2026-01-02T03:04:05.123456789Z"
WRITTEN = {"created_time": NOW, "custom_metadata": None, "deletion_time": "", "destroyed": False, "version": 1}
FACTS = {
    "cas_required": False,
    "created_time": NOW,
    "current_version": 1,
    "custom_metadata": None,
    "delete_version_after": "0s",
    "max_versions": 0,
    "oldest_version": 1,
    "updated_time": NOW,
    "versions": {},
}
LOGINS: dict[str, dict[str, str]] = {
    "approle": {"role_id": ROLE_ID, "secret_id": SECRET_ID},
    "jwt": {"role": "erp", "jwt": JWT},
    "kubernetes": {"role": "erp", "jwt": JWT},
}


def test_the_document_names_where_it_is_from() -> None:
    assert (DOCUMENT["info"]["version"], DOCUMENT["source"]) == (
        "1.22.0",
        {
            "repository": "hashicorp/vault-client-typescript",
            "path": "openapi.json",
            "commit": "8ff5551e40c2f8e862d54c905e68f0d8131d6369",
            "license": "MPL-2.0",
        },
    )


def ask(vault: Vault, method: str, path: str, body: Any = None, *, token: str = "") -> tuple[int, Any]:
    return vault.answer(method, f"/v1/{path}", body, {"x-vault-token": token or vault.root_token})


def logins(vault: Vault) -> list[int]:
    statuses = [ask(vault, "POST", f"auth/{name}/login", body)[0] for name, body in LOGINS.items()]
    token = (set(vault.tokens) - {vault.root_token}).pop()
    for method, action in (("GET", "lookup-self"), ("PUT", "renew-self"), ("POST", "revoke-self")):
        statuses.append(ask(vault, method, f"auth/token/{action}", token=token)[0])
    return statuses


def secrets(vault: Vault) -> list[int]:
    asked: list[tuple[str, str, Any]] = [
        ("POST", "secret/data/a/b", {"data": {"value": "v"}}),
        ("GET", "secret/data/a/b", None),
        ("GET", "secret/metadata/a/b", None),
        ("LIST", "secret/metadata/a", None),
        ("GET", "secret/metadata/a/?list=true", None),
        ("LIST", "secret/metadata/", None),
        ("POST", "secret/metadata/a/b", {"max_versions": 5}),
        ("POST", "secret/delete/a/b", {"versions": [1]}),
        ("POST", "secret/undelete/a/b", {"versions": [1]}),
        ("POST", "secret/destroy/a/b", {"versions": [1]}),
        ("DELETE", "secret/data/a/b", None),
        ("GET", "secret/data/a/b", None),
        ("DELETE", "secret/metadata/a/b", None),
        ("GET", "secret/data/a/b", None),
    ]
    return [ask(vault, *one)[0] for one in asked]


def keys(vault: Vault) -> str:
    made = ask(vault, "POST", "transit/keys/erp")
    assert (made[0], made[1]["data"]["latest_version"]) == (200, 1)
    sealed = ask(vault, "POST", "transit/encrypt/erp", {"plaintext": "eA=="})[1]["data"]["ciphertext"]
    assert ask(vault, "POST", "transit/keys/erp")[0] == ask(vault, "GET", "transit/keys/erp")[0] == 200
    opened: str = ask(vault, "POST", "transit/decrypt/erp", {"ciphertext": sealed})[1]["data"]["plaintext"]
    return opened


def healths(vault: Vault) -> list[int]:
    statuses = [ask(vault, "GET", "sys/health")[0]]
    vault.is_standby = True
    statuses.append(ask(vault, "GET", "sys/health")[0])
    vault.is_sealed = True
    return [*statuses, ask(vault, "GET", "sys/health")[0]]


def test_all_operations_of_the_double_answer_as_the_document_says_and_what_it_leaves_open_is_known() -> None:
    vault = Vault()
    assert logins(vault) == [200, 200, 200, 200, 200, 204]
    assert secrets(vault) == [200, 200, 200, 200, 200, 200, 204, 204, 204, 204, 204, 404, 204, 404]
    assert keys(vault) == "eA=="
    assert healths(vault) == [200, 429, 503]

    published = vault.published
    assert published.violations == []
    assert published.operations == {(verb, path) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}
    assert published.undescribed == set(UNDESCRIBED)
    assert published.nulls == set(NULLS)


def test_every_handler_of_the_engine_is_an_operation_of_the_document() -> None:
    handlers = [
        re.fullmatch(r"_(data|metadata|delete|undelete|destroy)_(get|post|delete|list)", name) for name in dir(Vault)
    ]
    asked = {(one[1], one[2]) for one in handlers if one}
    assert len(asked) == 10
    for kind, method in asked:
        path = f"/{{kv_v2_mount_path}}/{kind}/{{path}}{'/' if method == 'list' else ''}"
        assert ("get" if method == "list" else method) in DOCUMENT["paths"][path]


def test_what_is_said_to_be_left_open_is_left_open_by_the_document() -> None:
    for verb, template, status in UNDESCRIBED:
        assert DOCUMENT["paths"][template][verb]["responses"].get(str(status)) is None


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "secret/data/a", 200, {"data": WRITTEN}),
        ("POST", "secret/data/a", 200, {"data": {**WRITTEN, "custom_metadata": {"owner": "erp"}}}),
        ("GET", "secret/metadata/a", 200, {"data": FACTS}),
        (
            "GET",
            "secret/metadata/a",
            200,
            {"data": {**FACTS, "last_updated_by": {}, "delete_version_after": "3h25m19s"}},
        ),
        ("LIST", "secret/metadata/a", 200, {"data": {"keys": ["b", "c/"]}}),
        ("DELETE", "secret/data/a", 204, None),
        ("GET", "other/data/a", 404, {"errors": []}),
        ("GET", "secret/data/a", 429, {"errors": ["rate limit quota exceeded"]}),
    ],
)
def test_an_answer_that_the_document_describes_is_good(method: str, path: str, status: int, body: Any) -> None:
    published = Published()
    assert published.check(method, path, status, body) is None
    assert published.violations == []


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "problem"),
    [
        (
            "POST",
            "secret/data/a",
            200,
            {"data": {**WRITTEN, "version": "1"}},
            'data/version: "1" is not of type "integer"',
        ),
        ("POST", "secret/data/a", 200, {"data": {**WRITTEN, "owner": "x"}}, "'owner' was unexpected"),
        ("POST", "secret/data/a", 200, {"data": {}}, '"created_time" is a required property'),
        ("POST", "secret/data/a", 200, {"data": None}, 'data: null is not of type "object"'),
        ("POST", "secret/data/a", 200, {}, "the answer has no data"),
        ("POST", "secret/data/a", 200, None, "the answer has no data"),
        (
            "POST",
            "secret/data/a",
            200,
            {"data": {**WRITTEN, "created_time": "now"}},
            'data/created_time: "now" is not a "date-time"',
        ),
        ("GET", "secret/metadata/a", 200, {"data": {**FACTS, "delete_version_after": "PT1H"}}, 'is not a "duration"'),
        (
            "GET",
            "secret/metadata/a",
            200,
            {"data": {**FACTS, "versions": None}},
            'data/versions: null is not of type "object"',
        ),
        (
            "GET",
            "secret/data/a",
            200,
            {"data": {"data": None, "metadata": {}}},
            'data/data: null is not of type "object"',
        ),
        ("GET", "secret/data/a", 404, {"data": {"data": None}}, '"metadata" is a required property'),
        ("LIST", "secret/metadata/a", 200, {"data": {"keys": [1]}}, 'data/keys/0: 1 is not of type "string"'),
        ("POST", "secret/data/a", 202, {"data": WRITTEN}, "the document has no answer 202"),
        ("DELETE", "secret/data/a", 200, {"data": {}}, "the document has no answer 200"),
        ("DELETE", "secret/data/a", 204, {}, "204 has no body"),
        ("POST", "transit/keys/erp", 204, None, "the document has no answer 204"),
        ("GET", "sys/health", 472, {"sealed": False}, "UNDESCRIBED gives no reason"),
        ("GET", "secret/subkeys/a", 200, {"data": {}}, "the document has no such operation"),
        ("GET", "auth/token/renew-self", 200, {}, "the document has no such operation"),
        ("GET", "auth/github/login", 200, {}, "the document has no such operation"),
        ("GET", "secret/data/a", 403, {"errors": "permission denied"}, "an error is a list of texts"),
        ("GET", "secret/data/a", 403, {"errors": [None]}, "an error is a list of texts"),
        ("GET", "secret/data/a", 403, {"errors": [], "code": 7}, "an error is a list of texts"),
    ],
)
def test_an_answer_that_breaks_the_document_is_found(
    method: str, path: str, status: int, body: Any, problem: str
) -> None:
    published = Published()
    found = published.check(method, path, status, body)
    assert found is not None
    assert problem in found
    assert published.violations == [found]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setattr(vault_double, "now", lambda: "yesterday")
    made = Double()
    yield made
    made.vault.published.violations.clear()
    made.close()


def test_a_double_that_breaks_the_document_answers_500_and_fails_the_test_at_its_end(broken: Double) -> None:
    client = hvac.Client(url=broken.address, token=broken.vault.root_token)
    with pytest.raises(
        hvac.exceptions.InternalServerError, match='data/created_time: "yesterday" is not a "date-time"'
    ):
        client.secrets.kv.v2.create_or_update_secret("a", {"value": "v"})
    with pytest.raises(AssertionError, match="POST secret/data/a: data/created_time"):
        broken.close()
