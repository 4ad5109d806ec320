"""A request body becomes typed parameters, or a refusal that names everything wrong with it."""

import sys
from collections.abc import Iterator
from decimal import Decimal
from types import ModuleType
from typing import Any, Literal

import msgspec
import pytest

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.runtime.action import Action, field_errors, validator

MODELS = "erp_test_action_models"


class Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    sku: str
    quantity: int


class OrderRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    lines: list[Line] = []
    total: Decimal | None = None
    mode: Literal["fast", "slow"] = "fast"
    anything: Any = None


LINE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["sku", "quantity"],
    "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}},
}
PARAMS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "lines": {"type": "array", "items": LINE},
        "total": {"type": "string", "format": "decimal"},
        "mode": {"type": "string"},
        "anything": {},
    },
}


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    module = ModuleType(MODELS)
    module.OrderRequest = OrderRequest  # type: ignore[attr-defined]
    sys.modules[MODELS] = module
    yield
    del sys.modules[MODELS]


def action(**more: Any) -> Action:
    contract = {
        "effect": "write",
        "idempotent": False,
        "params": PARAMS,
        "models": {"module": MODELS, "request": "OrderRequest", "result": "OrderRequest"},
    }
    return Action("providers", "toy", "order", contract | more)


def refused(body: bytes, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        action(**more).decode(body)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    return caught.value


def test_a_body_becomes_typed_parameters_and_metadata() -> None:
    body = b'{"action": "order", "params": {"name": "a", "total": "1.10"}, "metadata": {"trace": [1]}}'

    request, metadata = action().decode(body)

    assert request == OrderRequest(name="a", total=Decimal("1.10"))
    assert metadata == {"trace": [1]}


def test_without_metadata_there_is_none() -> None:
    assert action().decode(b'{"params": {"name": "a"}}') == (OrderRequest(name="a"), None)


def test_every_error_is_named_at_its_place() -> None:
    error = refused(b'{"params": {"name": 5, "lines": [{"sku": "x", "quantity": 0}, {"quantity": "y"}]}}')

    assert error.message == "The request to toy.order has 4 errors; see errors[]."
    assert sorted(error.errors, key=lambda found: found.pointer) == [
        FieldError("/params/lines/0/quantity", "the value is less than the minimum of 1"),
        FieldError("/params/lines/1/quantity", 'the value is not of type "integer"'),
        FieldError("/params/lines/1/sku", "is required"),
        FieldError("/params/name", 'the value is not of type "string"'),
    ]


def test_unknown_and_missing_fields_are_named() -> None:
    error = refused(b'{"params": {"nmae": "a", "a/b~c": 1}, "extra": true}')

    assert {(found.pointer, found.message) for found in error.errors} == {
        ("/params/nmae", "is not a known field"),
        ("/params/a~1b~0c", "is not a known field"),
        ("/params/name", "is required"),
        ("/extra", "is not a known field"),
    }


def test_a_body_without_params_says_so() -> None:
    assert refused(b"{}").errors == (FieldError("/params", "is required"),)
    assert refused(b"[]").errors == (FieldError("", 'the value is not of type "object"'),)


@pytest.mark.parametrize(
    "params",
    [
        b'{"name": "hunter2hunter2"}',
        b'{"name": "a", "mode": "hunter2"}',
        b'{"name": "a", "total": "hunter2"}',
        b'{"name": "a", "lines": "hunter2"}',
        b'{"name": "a", "lines": [{"sku": "s", "quantity": "hunter2"}]}',
    ],
)
def test_messages_never_repeat_values(params: bytes) -> None:
    error = refused(b'{"params": ' + params + b"}", schema_check=True)

    assert error.errors
    assert "hunter2" not in f"{error.message} {error.errors} {error.detail}"


def test_what_only_the_type_refuses_is_still_named_at_its_place() -> None:
    error = refused(b'{"params": {"name": "a", "mode": "no"}}')

    assert error.errors == (FieldError("/params/mode", "Invalid enum value"),)


def test_what_the_type_cannot_express_is_checked_against_the_schema() -> None:
    body = b'{"params": {"name": "too long"}}'

    assert refused(body, schema_check=True).errors == (
        FieldError("/params/name", "the value is longer than 5 characters"),
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"params": {"name": "a"}} tail',
        b'{"params": {"name": "\\ud800"}}',
        b'{"params": {"name": 5',
        b'{"params": {"name": 5}, "metadata": {"a": "\xff"}}',
    ],
)
def test_malformed_json_is_refused_even_after_a_wrong_field(body: bytes) -> None:
    error = refused(body)

    assert error.message.startswith("The body is not valid JSON: ")
    assert error.errors == (FieldError("", "Send a JSON object with the member params."),)


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000

    assert refused(b'{"params": {"name": "a", "anything": ' + deep + b"}}").message == (
        "The body is not valid JSON: it is nested too deeply."
    )


def test_nesting_beyond_the_validator_is_refused_and_does_not_fail() -> None:
    deep = b"[" * 400 + b"]" * 400
    error = refused(b'{"params": {"anything": ' + deep + b"}}")

    assert error.errors == (FieldError("", "The document is nested too deeply to be checked."),)
    assert field_errors(validator(PARAMS), {"name": "a"}) == []


def test_another_action_in_the_body_is_refused() -> None:
    error = refused(b'{"action": "other", "params": {"name": "a"}}')

    assert error.errors == (FieldError("/action", '"order" was expected'),)


def test_metadata_must_be_an_object() -> None:
    error = refused(b'{"params": {"name": "a"}, "metadata": [1]}')

    assert error.errors == (FieldError("/metadata", 'the value is not of type "object"'),)


def test_a_deprecated_action_says_since_when_and_until_when() -> None:
    deprecated = action(deprecated={"since": "2026-01-02", "sunset": "2027-03-04", "use": "order2"})

    assert deprecated.deprecation_headers == (
        (b"deprecation", b"@1767312000"),
        (b"sunset", b"Thu, 04 Mar 2027 00:00:00 GMT"),
    )
    assert action(deprecated={"since": "2026-01-02"}).deprecation_headers == ((b"deprecation", b"@1767312000"),)
    assert action().deprecation_headers == ()


def test_only_reads_are_without_effect() -> None:
    effects = {effect: action(effect=effect).is_effectful for effect in ("read", "write", "destructive")}

    assert effects == {"read": False, "write": True, "destructive": True}
    assert action().ref == "toy.order"
