"""Events on the wire: CloudEvents 1.0 in structured JSON.

Rules: CloudEvents 1.0.2, "JSON Event Format" sections 2 and 3. Extensions stand beside the attributes of the
specification; binary data is ``data_base64`` and is handed on as base64 text.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from erp.contracts.models.bus import CloudEvent

CONTENT_TYPE = "application/cloudevents+json"

_ATTRIBUTES = frozenset(CloudEvent.__struct_fields__) - {"extensions"}
_encoder = msgspec.json.Encoder(decimal_format="string")
_plain = msgspec.json.Decoder(CloudEvent)
_loose = msgspec.json.Decoder(dict[str, Any])


def encode(event: CloudEvent) -> bytes:
    """Return the event as a JSON object."""
    if event.extensions is UNSET:
        return _encoder.encode(event)
    document: dict[str, Any] = msgspec.to_builtins(event, builtin_types=(bytes,))
    extensions = document.pop("extensions")
    return _encoder.encode({**extensions, **document})


def decode(body: bytes) -> CloudEvent:
    """Return the event of a JSON object, whoever wrote it.

    Raises:
        msgspec.DecodeError: it is not a CloudEvent of version 1.0 (``msgspec.ValidationError`` included).
    """
    try:
        event = _plain.decode(body)
    except msgspec.ValidationError:
        return _extended(_loose.decode(body))
    return event if event.extensions is UNSET else _extended(_loose.decode(body))


def _extended(document: dict[str, Any]) -> CloudEvent:
    if "data_base64" in document:
        document["data"] = document.pop("data_base64")
    known = {name: value for name, value in document.items() if name in _ATTRIBUTES}
    others = {name: _text(value) for name, value in document.items() if name not in _ATTRIBUTES and value is not None}
    return msgspec.convert({**known, "extensions": others} if others else known, CloudEvent)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
