"""Keeps calls in the region of their tenant: asks the policy about the connection that a call has come to.

A route leads to several connections and a default may change, so that only here, before anything is opened or sent, it is
known where data would go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import effects
from erp.runtime.question import question_of

if TYPE_CHECKING:
    from erp.runtime.call import Call
    from erp.runtime.ports import Journal, Policy


class OutOfRegionError(ProviderError):
    """A connection that the call must not reach. Never a reason to try it again, nor the fault of its server."""


async def stay(call: Call, region: str, policy: Policy, journal: Journal) -> None:
    """Pass when ``call`` may go to a connection in ``region``.

    Raises:
        OutOfRegionError: ``permission_denied``; it is audited.
    """
    question = msgspec.structs.replace(question_of(call), region=region)
    decision = policy.known(question) or await policy.decide(question)
    if not decision.allow:
        journal.note(effects.refusal(call, decision.reason))
        message = f"{call.action.ref} is not allowed: {decision.reason}."
        raise OutOfRegionError(ErrorCode.PERMISSION_DENIED, message)
