"""One action of a contract as the pipeline sees it: effect, types, decoder, validator."""

from __future__ import annotations

import datetime
import importlib
import re
from email.utils import format_datetime
from functools import cached_property
from typing import Any, Literal

import jsonschema_rs
import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError

Area = Literal["providers", "services"]

_REPEATED_VALUE = re.compile(r"^Invalid enum value .*", re.DOTALL)


class Action:
    """An action of a domain or service. Types and validators are made at first use."""

    def __init__(self, area: Area, group: str, name: str, contract: dict[str, Any]) -> None:
        self.area: Area = area
        self.group = group
        self.name = name
        self.contract = contract
        self.effect: str = contract["effect"]
        self.is_effectful = self.effect != "read"
        self.idempotent: bool = contract["idempotent"]
        self.capability: str | None = contract.get("capability")
        self.streaming: bool = contract.get("streaming", False)
        self.internal: bool = contract.get("internal", False)
        self.schema_check: bool = contract.get("schema_check", False)

    @property
    def ref(self) -> str:
        """``cache.get``: how logs, metrics and audit records name the action."""
        return f"{self.group}.{self.name}"

    @cached_property
    def request_type(self) -> type[msgspec.Struct]:
        """The generated type of the parameters."""
        return self._model("request")

    @cached_property
    def result_type(self) -> type[msgspec.Struct]:
        """The generated type of the result, or of one item when streaming."""
        return self._model("result")

    def _model(self, part: str) -> type[msgspec.Struct]:
        models = self.contract["models"]
        found: type[msgspec.Struct] = getattr(importlib.import_module(models["module"]), models[part])
        return found

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        envelope = msgspec.defstruct(
            "Envelope",
            [
                ("params", self.request_type),
                ("metadata", dict[str, Any] | msgspec.UnsetType, msgspec.UNSET),
                ("action", Literal[self.name] | msgspec.UnsetType, msgspec.UNSET),
            ],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        return msgspec.json.Decoder(envelope)

    @cached_property
    def _validator(self) -> Any:
        envelope = {
            "type": "object",
            "additionalProperties": False,
            "required": ["params"],
            "properties": {
                "params": self.contract["params"],
                "metadata": {"type": "object"},
                "action": {"const": self.name},
            },
        }
        return validator(envelope)

    def decode(self, body: bytes) -> tuple[Any, dict[str, Any] | None]:
        """Return the typed parameters and the metadata of a request body.

        Raises:
            ProviderError: ``invalid_argument`` with every error, each with its JSON Pointer.
        """
        try:
            envelope = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self._explained(body, str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(error) from None
        if self.schema_check and (errors := field_errors(self._validator, msgspec.json.decode(body))):
            raise self._refusal(errors)
        metadata = envelope.metadata
        return envelope.params, None if metadata is msgspec.UNSET else metadata

    def _explained(self, body: bytes, first_error: str) -> ProviderError:
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return malformed(error)
        return self._refusal(field_errors(self._validator, document) or [_first_error(first_error)])

    def _refusal(self, errors: list[FieldError]) -> ProviderError:
        plural = "errors" if len(errors) > 1 else "error"
        message = f"The request to {self.ref} has {len(errors)} {plural}; see errors[]."
        return ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=errors)

    @cached_property
    def deprecation_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """``Deprecation`` (RFC 9745) and ``Sunset`` (RFC 8594) of a deprecated action."""
        deprecated = self.contract.get("deprecated")
        if not deprecated:
            return ()
        since = _midnight(deprecated["since"])
        headers = [(b"deprecation", f"@{int(since.timestamp())}".encode())]
        if sunset := deprecated.get("sunset"):
            headers.append((b"sunset", format_datetime(_midnight(sunset), usegmt=True).encode()))
        return tuple(headers)


def malformed(error: Exception) -> ProviderError:
    """Describe a body that is not JSON at all (or nested too deeply)."""
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ProviderError(
        ErrorCode.INVALID_ARGUMENT,
        f"The body is not valid JSON: {reason}.",
        errors=[FieldError("", "Send a JSON object with the member params.")],
    )


def validator(schema: dict[str, Any]) -> Any:
    """Return a validator whose messages never repeat the values they complain about."""
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, mask="the value")


def field_errors(checker: Any, document: Any) -> list[FieldError]:
    """Return everything ``checker`` finds wrong with ``document``, each at its JSON Pointer."""
    try:
        return [found for error in checker.iter_errors(document) for found in _explained(error)]
    except ValueError:
        return [FieldError("", "The document is nested too deeply to be checked.")]


def _explained(error: Any) -> list[FieldError]:
    pointer = "".join(f"/{_escape(str(part))}" for part in error.instance_path)
    kind = error.kind.as_dict()
    if error.kind.name == "additionalProperties":
        return [FieldError(f"{pointer}/{_escape(name)}", "is not a known field") for name in kind["unexpected"]]
    if error.kind.name == "required":
        return [FieldError(f"{pointer}/{_escape(kind['property'])}", "is required")]
    return [FieldError(pointer, error.message[:500])]


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _first_error(text: str) -> FieldError:
    message, _, path = text.partition(" - at ")
    return FieldError(_pointer_of_path(path), _REPEATED_VALUE.sub("Invalid enum value", message))


def _pointer_of_path(path: str) -> str:
    """Turn msgspec's ``$.params.lines[0]`` into ``/params/lines/0`` (RFC 6901)."""
    inner = path.strip("`").removeprefix("$").replace("[", ".").replace("]", "")
    return inner.replace(".", "/")


def _midnight(day: str) -> datetime.datetime:
    return datetime.datetime.combine(datetime.date.fromisoformat(str(day)), datetime.time(), datetime.UTC)
