"""What a tenant says about how long it keeps what."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.expiry import RowClass
from erp.control_plane.retention import CLASSES, SHORTEST_DAYS, RecordClass
from erp.errors import FieldError, ProviderError

LONGEST_DAYS = 36_500

DataClass = Literal[
    "audit_security",
    "audit_refusals",
    "audit_configuration",
    "audit_calls",
    "operations",
    "privacy_operations",
    "delivered_events",
    "dead_events",
    "consents",
    "break_glass",
]
_Name = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
]
_Column = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Days = Annotated[int, Meta(ge=1, le=LONGEST_DAYS)]


class Bounds(msgspec.Struct, frozen=True):
    """For how many days a class is kept unless the tenant says otherwise (None: for ever), at least and at most."""

    default: int | None
    shortest: int = 1
    longest: int = LONGEST_DAYS

    def allow(self, days: int | None) -> bool:
        """Whether something of the class may be kept for so long."""
        return self.default is None if days is None else self.shortest <= days <= self.longest

    @property
    def words(self) -> str:
        """Say what is allowed."""
        return f"for {self.shortest} to {self.longest} days" + (", or for ever (null)" if self.default is None else "")


BOUNDS: dict[DataClass, Bounds] = {
    "audit_security": Bounds(None, SHORTEST_DAYS["security"]),
    "audit_refusals": Bounds(None, SHORTEST_DAYS["refusals"]),
    "audit_configuration": Bounds(None, SHORTEST_DAYS["configuration"]),
    "audit_calls": Bounds(None, SHORTEST_DAYS["calls"]),
    "operations": Bounds(1, 1, 365),
    "privacy_operations": Bounds(1, 1, 90),
    "delivered_events": Bounds(1, 1, 90),
    "dead_events": Bounds(None),
    "consents": Bounds(None, 30),
    "break_glass": Bounds(None, 90),
}
AUDIT: dict[DataClass, RecordClass] = {
    name: record for name in BOUNDS for record in CLASSES if name == f"audit_{record}"
}
ROWS: dict[DataClass, RowClass] = {
    "operations": "operations",
    "privacy_operations": "privacy_operations",
    "delivered_events": "delivered_events",
    "dead_events": "dead_events",
    "consents": "consents",
    "break_glass": "break_glass",
}


class RowRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How long the rows of a table in one of the tenant's databases are kept."""

    provider: Annotated[str, Meta(min_length=1, max_length=128)]
    connection: str = "default"
    table: _Name
    column: _Column
    """Says from when on the time runs."""
    key: _Column = "id"
    """Names one row."""
    days: _Days
    unit: Literal["date", "epoch_seconds", "epoch_milliseconds"] = "date"
    """What the column holds: a date or a moment as the database writes it, or a number since 1970."""

    @property
    def place(self) -> str:
        """Name the rule: ``db/sqlite#default visits.seen_at``."""
        return f"db/{self.provider}#{self.connection} {self.table}.{self.column}"


class Hold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A legal hold: nothing is deleted while it stands."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class RetentionPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The policy of one tenant; the days of audit records are kept with their rules."""

    days: dict[DataClass, _Days | None] = {}
    rows: Annotated[list[RowRule], Meta(max_length=200)] = []
    hold: Hold | None = None

    def days_of(self, name: DataClass) -> int | None:
        """Return for how many days a class is kept; None: for ever."""
        return self.days.get(name, BOUNDS[name].default)


def checked(policy: RetentionPolicy) -> RetentionPolicy:
    """Return ``policy`` when all of its times are allowed.

    Raises:
        ProviderError: ``invalid_argument`` naming each that is not.
    """
    errors = [
        FieldError(f"/days/{name}", f"Keep {name} {BOUNDS[name].words}.")
        for name, days in policy.days.items()
        if not BOUNDS[name].allow(days)
    ]
    if errors:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A time is not allowed.", errors=errors)
    return policy
