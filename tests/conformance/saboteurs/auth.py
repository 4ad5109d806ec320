"""Identity providers that break one rule each."""

from __future__ import annotations

import itertools
from typing import Any

from tests.conformance.saboteur import breaks

from erp.runtime.spi import UNSET

REF = "auth/local"


@breaks("AUTH-01", ref=REF, also=("AUTH-20", "AUTH-30", "AUTH-40", "AUTH-41"))
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
        found = await self._identity.introspect(request.credential)  # type: ignore[attr-defined]
        if found.client_id is None:
            result.active = found.active
        return result


@breaks("AUTH-20", ref=REF)
class DoesNotSayWhenItEnds:
    async def exchange(self, request: Any, context: Any) -> Any:
        result = await super().exchange(request, context)  # type: ignore[misc]
        result.expires_in_seconds = UNSET
        return result


@breaks("AUTH-21", ref=REF)
class ExchangesForAnyTenant:
    async def exchange(self, request: Any, context: Any) -> Any:
        request.actor_token = UNSET
        return await super().exchange(request, context)  # type: ignore[misc]


@breaks("AUTH-22", ref=REF)
class ForgetsTheScopes:
    async def exchange(self, request: Any, context: Any) -> Any:
        request.scopes = UNSET
        return await super().exchange(request, context)  # type: ignore[misc]


@breaks("AUTH-23", ref=REF)
class ForgetsTheAudience:
    async def verify(self, request: Any, context: Any) -> Any:
        result = await super().verify(request, context)  # type: ignore[misc]
        if request.audience == "https://elsewhere.example":
            result.active = True
        return result


@breaks("AUTH-30", ref=REF)
class NamesNoIssuer:
    async def introspect(self, request: Any, context: Any) -> Any:
        result = await super().introspect(request, context)  # type: ignore[misc]
        result.issuer = UNSET
        return result


@breaks("AUTH-31", ref=REF)
class SaysWhoIssuedWhatIsInvalid:
    async def introspect(self, request: Any, context: Any) -> Any:
        result = await super().introspect(request, context)  # type: ignore[misc]
        if not result.active:
            result.issuer = "urn:erp:platform"
        return result


@breaks("AUTH-40", ref=REF)
class AllowsWhatItDoesNotKnow:
    async def evaluate(self, request: Any, context: Any) -> Any:
        result = await super().evaluate(request, context)  # type: ignore[misc]
        result.decision = result.decision or request.action == "no_such_action"
        return result


@breaks("AUTH-41", ref=REF)
class DecidesForAnyTenant:
    async def evaluate(self, request: Any, context: Any) -> Any:
        result = await super().evaluate(request, context)  # type: ignore[misc]
        result.decision = result.decision or (context.tenant == "beta" and request.subject.id.startswith("key_"))
        return result
