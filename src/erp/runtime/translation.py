"""Turns whatever a provider raised into the closed error list."""

from __future__ import annotations

import asyncio
from typing import Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError


def translated(provider: Any, error: Exception, ref: str) -> ProviderError:
    """Return ``error`` as a ProviderError, by the provider's own table; unknown ones are ``internal``."""
    if isinstance(error, ProviderError):
        return error
    table = getattr(provider, "translate", {})
    for kind in type(error).__mro__:
        if kind in table:
            code = ErrorCode(table[kind])
            return _described(code, f"{ref}: {code.spec.title}", error)
    return _described(ErrorCode.INTERNAL, f"{ref} failed in a way it did not foresee.", error)


def is_cancelled() -> bool:
    """Whether the running task is being cancelled; else a CancelledError leaked out of a provider."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _described(code: ErrorCode, message: str, error: Exception) -> ProviderError:
    made = ProviderError(code, message, detail=f"{type(error).__name__}: {error}")
    made.__cause__ = error
    return made
