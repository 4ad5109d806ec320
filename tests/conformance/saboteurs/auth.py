"""Identity providers that break one rule each."""

from __future__ import annotations

import itertools
from typing import Any

from tests.conformance.saboteur import breaks

from erp.errors import ProviderError

REF = "auth/local"


@breaks("AUTH-01", ref=REF)
class NamesEverybodyAnew:
    numbers = itertools.count()

    async def verify(self, request: Any, context: Any) -> Any:
        result = await super().verify(request, context)  # type: ignore[misc]
        if result.active:
            result.subject.id += f"-{next(self.numbers)}"
        return result


@breaks("AUTH-02", ref=REF)
class TrustsUnsignedTokens:
    async def verify(self, request: Any, context: Any) -> Any:
        result = await super().verify(request, context)  # type: ignore[misc]
        result.active = result.active or request.credential.startswith("eyJhbGciOiJub25l")
        return result


@breaks("AUTH-03", ref=REF)
class ForgetsTheTenant:
    async def verify(self, request: Any, context: Any) -> Any:
        result = await super().verify(request, context)  # type: ignore[misc]
        try:
            await self._identity.authenticate(request.credential)  # type: ignore[attr-defined]
        except ProviderError:
            return result
        result.active = True
        return result
