"""Schema marks come first, then names of fields, then texts."""

from __future__ import annotations

from typing import Any

import pytest

from erp.contracts.loading import catalog
from erp.errors import ProviderError
from erp.security.privacy.fields import kind_of
from erp.security.privacy.marks import marks_of
from erp.security.privacy.scanning import Finding, found_in, treated
from erp.security.privacy.treatment import Treatments

DOCUMENT: dict[str, Any] = {
    "customer": {"name": "Ada Byron", "eMail": "ada@example.com", "phone": "030 1234567", "email_verified": True},
    "product": {"name": "Steel coil", "sku": "4711-0815"},
    "contacts": [{"full_name": "Jo Li", "note": "ring +49 170 1234567"}],
    "by_address": {"ada@example.com": 3},
    "phone": "none",
    "total": 1234567.5,
}
SECRET = b"p" * 32


def test_fields_are_read_by_their_names_and_texts_by_what_they_say() -> None:
    assert {(one.field, one.kind) for one in found_in(DOCUMENT)} == {
        ("customer/name", "name"),
        ("customer/eMail", "email"),
        ("customer/phone", "phone"),
        ("contacts/*/full_name", "name"),
        ("contacts/*/note", "phone"),
    }


def test_what_is_treated_is_replaced_and_the_rest_is_as_it_was() -> None:
    made = treated(DOCUMENT, Treatments(SECRET).of("acme", "redact"))
    assert made == {
        "customer": {"name": "[name]", "eMail": "[email]", "phone": "[phone]", "email_verified": True},
        "product": {"name": "Steel coil", "sku": "4711-0815"},
        "contacts": [{"full_name": "[name]", "note": "ring [phone]"}],
        "by_address": {"[email]": 3},
        "phone": "none",
        "total": 1234567.5,
    }
    assert DOCUMENT["customer"]["name"] == "Ada Byron"


def test_a_mark_of_the_schema_wins_over_the_name() -> None:
    schema = {
        "properties": {
            "lines": {"items": {"$ref": "#/$defs/Line"}},
            "rest": {"additionalProperties": {"x-erp-pii": "name"}},
        }
    }
    marks = marks_of(schema, {"Line": {"properties": {"ref": {"type": "string", "x-erp-pii": "name"}}}})
    assert marks == {"lines/*/ref": "name", "rest/*": "name"}
    document = {"lines": [{"ref": "Ada"}], "rest": {"anything": "Byron"}, "ref": "kept"}
    assert found_in(document, marks) == [
        Finding(field="lines/*/ref", kind="name"),
        Finding(field="rest/*", kind="name"),
    ]
    made = treated(document, Treatments(SECRET).of("acme", "redact"), marks)
    assert made == {"lines": [{"ref": "[name]"}], "rest": {"anything": "[name]"}, "ref": "kept"}


def test_schemas_that_refer_to_themselves_end() -> None:
    node: dict[str, Any] = {"properties": {"next": {"$ref": "#/$defs/Node"}, "who": {"x-erp-pii": "name"}}}
    assert "next/who" in marks_of(node, {"Node": node})


def test_the_marks_of_the_order_contract_are_found() -> None:
    contract = catalog()["services"]["order"]
    marks = marks_of(contract["actions"]["submit"]["params"], contract.get("$defs", {}))
    assert marks["customer/email"] == "email"
    assert marks["customer/name"] == "name"


@pytest.mark.parametrize(
    ("name", "parent", "kind"),
    [
        ("e_mail", "", "email"),
        ("email", "", "email"),
        ("customerEmail", "", "email"),
        ("first_name", "", "name"),
        ("name", "customers", "name"),
        ("name", "product", ""),
        ("DateOfBirth", "", "birth_date"),
        ("email_template", "", ""),
        ("customer_id", "", ""),
        ("steuer_id", "", "de_steuer_id"),
        ("mobile_phone", "", "phone"),
        ("", "", ""),
    ],
)
def test_names_of_fields(name: str, parent: str, kind: str) -> None:
    assert kind_of(name, parent) == kind


def test_hashes_and_tokens_are_equal_within_a_tenant_and_different_between_two() -> None:
    treatments = Treatments(SECRET)
    for treatment in ("hash", "tokenise"):
        ours, theirs = treatments.of("acme", treatment), treatments.of("globex", treatment)
        assert ours("email", "a@b.example") == ours("email", "a@b.example")
        assert ours("email", "a@b.example") != theirs("email", "a@b.example")
        assert "a@b" not in ours("email", "a@b.example")


def test_a_token_is_revealed_to_its_tenant_alone() -> None:
    treatments = Treatments(SECRET)
    token = treatments.of("acme", "tokenise")("email", "ada@example.com")
    assert treatments.revealed("acme", token) == ("email", "ada@example.com")
    for tenant, text in (
        ("globex", token),
        ("acme", token[:-2] + "AA"),
        ("acme", "tok_x"),
        ("acme", token.replace("email", "name")),
    ):
        with pytest.raises(ProviderError) as failure:
            treatments.revealed(tenant, text)
        assert failure.value.code == "not_found"


def test_a_document_without_end_is_cut() -> None:
    deep: Any = "ada@example.com"
    for _ in range(100):
        deep = [deep]
    assert "ada" not in repr(treated(deep, Treatments(SECRET).of("acme", "redact")))
