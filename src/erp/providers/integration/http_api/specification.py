"""What the configuration says about the peer's interface: objects, their paths and pages, triggers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Action = Literal["upsert", "delete", "fetch", "sync"]


class Paging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one page of a list leads to the next."""

    style: Literal["none", "cursor", "page", "offset", "link"] = "none"
    """``link``: by the header ``Link`` with ``rel="next"`` (RFC 8288)."""
    size: Annotated[int, Meta(ge=1, le=10_000)] = 100
    size_param: str | None = None
    position_param: str = ""
    """Query parameter for cursor, page number or offset."""
    first_page: int = 1
    next_cursor: str = "/next_cursor"
    """JSON Pointer to the cursor of the next page in the answer."""


class Listing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are listed."""

    path: str
    items: str = ""
    """JSON Pointer to the list in the answer; empty when the answer is the list."""
    paging: Paging = Paging()
    since_param: str | None = None
    since_format: Literal["rfc3339", "unix"] = "rfc3339"
    lookback_seconds: float = 300.0
    """How late a change may become visible: each reading goes back so far before the start of the one before."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of request; ``{field}`` in the path is a key of the record."""

    path: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    record: str = ""
    """JSON Pointer to the record in request and answer; empty when the body is the record."""


class ObjectSpecification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of record."""

    key: Annotated[list[str], Meta(min_length=1)]
    title: str | None = None
    id_field: str | None = None
    version_field: str | None = None
    changed_field: str | None = None
    deleted_field: str | None = None
    """A record in which this is neither false nor null nor absent is deleted."""
    listing: Listing | None = msgspec.field(default=None, name="list")
    get: Request | None = None
    put: Request | None = None
    """Creates the record or replaces it, whichever is needed."""
    create: Request | None = None
    update: Request | None = None
    delete: Request | None = None

    @property
    def actions(self) -> tuple[Action, ...]:
        """What can be done with the object."""
        can: dict[Action, bool] = {
            "upsert": self.put is not None or None not in {self.get, self.create, self.update},
            "delete": self.delete is not None,
            "fetch": self.get is not None,
            "sync": self.listing is not None,
        }
        return tuple(action for action, is_possible in can.items() if is_possible)


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something the peer can start."""

    path: str
    method: Literal["POST", "PUT"] = "POST"
    title: str | None = None


def at_pointer(document: Any, pointer: str) -> Any:
    """The value a JSON Pointer (RFC 6901) leads to; None when there is none."""
    found = document
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def wrapped(record: Any, pointer: str) -> Any:
    """A document in which ``pointer`` leads to ``record``."""
    for step in reversed(pointer.split("/")[1:]):
        record = {step.replace("~1", "/").replace("~0", "~"): record}
    return record
