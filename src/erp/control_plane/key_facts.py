"""What API keys and service accounts can be like."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.errors import FieldError, ProviderError
from erp.runtime.call_policy import Rate

ROLES = ("admin", "operator", "developer", "agent")
_SCOPE = re.compile(r"(providers|services|admin|\*):[a-z0-9_*/.-]{1,200}:[a-z_*]{1,64}\Z")


def check_facts(role: str, scopes: Sequence[str], expires_at: datetime.datetime | None) -> None:
    """Pass when a key can be like this.

    Raises:
        ProviderError: ``invalid_argument`` naming each field.
    """
    wrong = [
        FieldError(f"/scopes/{number}", "Use AREA:TARGET:EFFECT, for example providers:cache/*:read.")
        for number, scope in enumerate(scopes)
        if _SCOPE.match(scope) is None
    ]
    if role not in ROLES:
        wrong.append(FieldError("/role", f"Use one of {', '.join(ROLES)}."))
    if expires_at is not None and moments.of(expires_at) <= moments.now():
        wrong.append(FieldError("/expires_at", "Use a time to come."))
    if wrong:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "An API key cannot be like this.", errors=wrong)


def rate_text(rate: Mapping[str, Any] | None) -> str | None:
    """Return the rate of a key as it is stored.

    Raises:
        ProviderError: ``invalid_argument`` naming the field.
    """
    if rate is None:
        return None
    try:
        return msgspec.json.encode(msgspec.convert(rate, Rate)).decode()
    except msgspec.ValidationError as error:
        problem = FieldError("/rate", f"{error}.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The rate is not valid.", errors=[problem]) from None
