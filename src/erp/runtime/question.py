"""What a policy is asked and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.runtime.context import Actor

if TYPE_CHECKING:
    from erp.runtime.call import Call

LONGEST_FACT = 256


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """May ``actor`` do this? Everything a decision may depend on beside what the policy itself knows."""

    actor: Actor
    area: str
    """``providers``, ``services`` or ``admin``."""
    domain: str
    name: str
    action: str
    effect: str
    """``read``, ``write`` or ``destructive``."""
    tenant: str = ""
    """Whose things it is about; empty: the actor's own tenant's."""
    connection: str = ""
    region: str = ""
    """Where the connection keeps data; empty: nobody has said."""
    purpose: str = ""
    """What personal data is used for; empty: the call does not say."""
    subject: str = ""
    """Whose personal data."""


class Decision(msgspec.Struct, frozen=True):
    """A policy's answer with its reason (for the audit record and, safely worded, the caller)."""

    allow: bool
    reason: str
    grants: tuple[str, ...] = ()
    """Everything that speaks for it."""
    denials: tuple[str, ...] = ()
    """Everything that speaks against it; one is enough."""


class Policy(Protocol):
    """Decides whether an actor may do a thing. Deny by default."""

    def known(self, question: Question) -> Decision | None:
        """Return a decision that is remembered and still good; None: ask ``decide``."""

    async def decide(self, question: Question) -> Decision:
        """Return the decision.

        Raises:
            ProviderError: ``unavailable`` when the policy gives no answer: then nothing is allowed.
        """


def question_of(call: Call) -> Question:
    """Return what the policy is asked about a call.

    Raises:
        ProviderError: ``invalid_argument`` when the metadata names a purpose or a subject that is no short text.
    """
    action = call.action
    purpose = subject = ""
    if call.metadata:
        purpose, subject = _stated(call.metadata, "purpose"), _stated(call.metadata, "subject")
    return Question(
        actor=call.actor,
        area=action.area,
        domain=action.group,
        name=call.provider,
        action=action.name,
        effect=action.effect,
        connection=call.connection,
        purpose=purpose,
        subject=subject,
    )


def _stated(metadata: dict[str, Any], name: str) -> str:
    text = metadata.get(name, "")
    if isinstance(text, str) and len(text) <= LONGEST_FACT:
        return text
    error = FieldError(f"/metadata/{name}", f"Use a text of at most {LONGEST_FACT} characters.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The metadata of the call is malformed.", errors=[error])
