"""Values of one database as those of another: the form both are compared in, and the form they are sent in."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import uuid
from collections.abc import Callable
from typing import Any, Literal

from erp.cli.migrate.passes import MigrationError

Kind = Literal["any", "bool", "int", "float", "decimal", "text", "bytes", "date", "datetime", "instant", "uuid", "json"]

_TAGS = {"decimal": "$decimal", "date": "$date", "datetime": "$datetime", "instant": "$datetime", "uuid": "$uuid"}
_KINDS: dict[Kind, set[str]] = {
    "bool": {"BOOLEAN", "BIT"},
    "int": {"TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT", "INT128", "UTINYINT", "USMALLINT", "UMEDIUMINT", "UINT", "UBIGINT", "SERIAL", "BIGSERIAL", "SMALLSERIAL"},
    "float": {"FLOAT", "DOUBLE"},
    "decimal": {"DECIMAL", "BIGDECIMAL", "UDECIMAL", "MONEY", "SMALLMONEY"},
    "bytes": {"BINARY", "VARBINARY", "BLOB", "TINYBLOB", "MEDIUMBLOB", "LONGBLOB", "IMAGE"},
    "date": {"DATE", "DATE32"},
    "datetime": {"DATETIME", "DATETIME2", "SMALLDATETIME", "TIMESTAMP", "TIMESTAMPNTZ"},
    "instant": {"TIMESTAMPTZ", "TIMESTAMPLTZ"},
    "uuid": {"UUID", "UNIQUEIDENTIFIER"},
    "json": {"JSON", "JSONB", "VARIANT", "OBJECT"},
}  # fmt: skip
KIND_OF: dict[str, Kind] = {name: kind for kind, names in _KINDS.items() for name in names}


def canonical(value: Any, kind: Kind, place: str) -> Any:
    """Return the form in which a value of either side is compared, for a target column of this kind.

    Raises:
        MigrationError: the value has no form in such a column; ``place`` says which it is.
    """
    if value is None or kind == "any":
        return value
    try:
        return _FORMS[kind](value)
    except (ValueError, TypeError, KeyError, decimal.InvalidOperation):
        message = (
            f"{place} holds a {type(value).__name__} that is no {kind}. "
            "How to fix: mend it at the source, or make the column at the target of a type that takes it, and run this again."
        )
        raise MigrationError(message) from None


def parameter(form: Any, kind: Kind) -> Any:
    """Return a compared form as a parameter of a statement (``Scalar`` of the contract)."""
    if form is None or isinstance(form, dict) or kind in {"any", "bool", "int", "float", "text", "json"}:
        return form
    if kind == "bytes":
        return {"$bytes": form}
    return {_TAGS[kind]: form}


def _bool(value: Any) -> bool:
    if value in {0, 1, "0", "1", "true", "false"}:
        return value in {1, "1", "true"}
    raise ValueError


def _decimal(value: Any) -> str:
    number = decimal.Decimal(repr(value) if isinstance(value, float) else str(value))
    return format(number.normalize() + 0, "f")


def _bytes(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["$bytes"])
    return base64.b64encode(str(value).encode()).decode()


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return base64.b64decode(value["$bytes"]).decode()
    return value if isinstance(value, str) else json.dumps(value)


def _date(value: Any) -> str:
    return datetime.datetime.fromisoformat(value).date().isoformat()


def _datetime(value: Any) -> str:
    """One without a zone; what has one is brought to UTC."""
    moment = datetime.datetime.fromisoformat(value)
    return (moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment).isoformat()


def _instant(value: Any) -> str:
    """One in UTC; what has no zone is taken to be in it."""
    moment = datetime.datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC).isoformat()


def _json(value: Any) -> str:
    found = json.loads(value) if isinstance(value, str) else value
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_FORMS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": int,
    "float": float,
    "decimal": _decimal,
    "text": _text,
    "bytes": _bytes,
    "date": _date,
    "datetime": _datetime,
    "instant": _instant,
    "uuid": lambda value: str(uuid.UUID(str(value))),
    "json": _json,
}
