"""What a tenant has said about personal data: how it is treated where, and where it is kept."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from erp.security.privacy.treatment import Treatment

Use = Literal["logs", "events", "audit", "exports", "prompts", "webhooks"]
USES: tuple[Use, ...] = get_args(Use)
WHOLE_BY_DEFAULT: frozenset[Use] = frozenset({"events"})
"""What stays with the tenant: its own bus, and whoever listens to its events."""

_Name = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
]
_Column = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_WithSubject = Annotated[str, Meta(max_length=512, pattern=r"^[^{}]*\{subject\}[^{}]*$")]
SUBJECT = "{subject}"


class _Place(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="domain", omit_defaults=True
):
    """Where data of persons is kept, and whether it may be erased there."""

    provider: Annotated[str, Meta(min_length=1, max_length=128)]
    connection: str = "default"
    keep: Annotated[str, Meta(max_length=500)] = ""
    """Why it is not erased, for example a duty to keep invoices for ten years; empty: it is."""


class Rows(_Place, frozen=True, tag="db"):
    """Rows of a table in which a column names the person."""

    table: _Name
    column: _Column


class Entries(_Place, frozen=True, tag="cache"):
    """Entries of a cache whose keys begin with a prefix that names the person."""

    prefix: _WithSubject


class Objects(_Place, frozen=True, tag="storage"):
    """Objects whose keys begin with a prefix that names the person."""

    prefix: _WithSubject


class Records(_Place, frozen=True, tag="integration"):
    """Records of a business application that a key field finds."""

    object: Annotated[str, Meta(min_length=1, max_length=256)]
    key: Annotated[str, Meta(min_length=1, max_length=256)]


class Events(_Place, frozen=True, tag="bus"):
    """Events that have been published: nobody can take them back, they go when their retention ends."""

    retention_days: Annotated[int, Meta(ge=0, le=36500)]


Place = Rows | Entries | Objects | Records | Events


_Destination = Annotated[str, Meta(pattern=r"^(ai|integration)/[a-z][a-z0-9_]{0,63}(#[a-z0-9][a-z0-9_-]{0,63})?$")]


class PrivacySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The settings of one tenant."""

    treatment: dict[Use, Treatment] = {}
    destinations: Annotated[dict[_Destination, Treatment], Meta(max_length=500)] = {}
    """By provider (``ai/local``) or connection (``integration/webhook#partner``); stands above the use."""
    only_marked: list[Literal["events", "exports"]] = []
    """Uses where names of fields and contents are not looked at, but what a contract marks alone."""
    places: Annotated[list[Place], Meta(max_length=500)] = []

    def treatment_of(self, use: Use) -> Treatment:
        """Return how personal data is treated for a use."""
        default: Treatment = "none" if use in WHOLE_BY_DEFAULT else "redact"
        return _named(self.treatment.get(use, default))

    def treatment_at(self, use: Use, provider: str, connection: str, *, is_own: bool) -> Treatment:
        """Return how it is treated on its way to a connection of ``provider``; ``is_own``: it does not leave the machine."""
        said = self.destinations.get(f"{provider}#{connection}") or self.destinations.get(provider)
        if said is not None:
            return _named(said)
        return "none" if is_own else self.treatment_of(use)


def _named(treatment: Treatment) -> Treatment:
    return "none" if treatment == "keep" else treatment
