"""A tiny domain, and a provider that does what its script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.runtime.context import CallContext
from erp.runtime.manifest import ProviderManifest
from erp.runtime.spi import Config, ErrorTable, Health, OpenContext


class KeyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    key: str


class PutRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    key: str
    amount: Decimal = Decimal(0)


class ToyResult(msgspec.Struct, kw_only=True):
    value: Any = None
    amount: Decimal | None = None


KEY: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 20}
PARAMS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["key"],
    "properties": {"key": KEY},
}
PUT_PARAMS: dict[str, Any] = {
    **PARAMS,
    "properties": {"key": KEY, "amount": {"type": "string", "pattern": "^[0-9.]+$"}},
}


def contract(effect: str = "read", *, idempotent: bool = True, **more: Any) -> dict[str, Any]:
    """Return an action's contract as the catalog holds it."""
    request = "PutRequest" if effect == "write" else "KeyRequest"
    return {
        "effect": effect,
        "idempotent": idempotent,
        "params": PUT_PARAMS if effect == "write" else PARAMS,
        "result": {"type": "object"},
        "models": {"module": __name__, "request": request, "result": "ToyResult"},
        **more,
    }


DOMAINS: dict[str, Any] = {
    "toy": {
        "actions": {
            "get": contract(),
            "put": contract("write"),
            "append": contract("write", idempotent=False),
            "expire": contract("write", capability="ttl"),
            "watch": contract(streaming=True),
            "record": contract("write", streaming=True),
            "reveal": contract(internal=True),
        }
    }
}
SERVICES: dict[str, Any] = {"shop": {"actions": {"buy": contract("write"), "browse": contract()}}}


def manifest(name: str = "box", **more: Any) -> ProviderManifest:
    """Return the manifest of a toy provider."""
    facts: dict[str, Any] = {
        "ref": f"toy/{name}",
        "title": name.title(),
        "summary": "A toy.",
        "version": "1.0.0",
        "contract": "1.0.0",
        "stability": "beta",
        "implementation": f"{__name__}:ToyProvider",
        "config": {"type": "object", "properties": {"secret": {"type": "string", "x-erp-secret": True}}},
        "scope": "shared",
    }
    return msgspec.convert(facts | more, ProviderManifest)


Step = Callable[[Any, CallContext], Awaitable[Any]]


@dataclass
class Script:
    """What the toy provider does, and what was done to it."""

    steps: list[str] = field(default_factory=list)
    method: Step | None = None
    on_open: Callable[[ToyProvider], Awaitable[None]] | None = None
    on_close: Callable[[ToyProvider], Awaitable[None]] | None = None
    health: Health | BaseException = field(default_factory=lambda: Health(status="ok"))
    items: list[Any] = field(default_factory=list)
    constructed: list[ToyProvider] = field(default_factory=list)
    opened: list[ToyProvider] = field(default_factory=list)
    closed: list[ToyProvider] = field(default_factory=list)
    attempts: int = 0
    """Calls of any method."""
    streams_ended: int = 0

    def fails(self, *errors: BaseException) -> None:
        """Let the next calls fail with ``errors``, the later ones succeed."""
        waiting = list(errors)

        async def method(request: Any, context: CallContext) -> ToyResult:
            if waiting:
                raise waiting.pop(0)
            return ToyResult(value="recovered")

        self.method = method


class ToyProvider:
    """Does what its script says."""

    translate: ClassVar[ErrorTable] = {OSError: ErrorCode.INTERNAL, ConnectionError: ErrorCode.UNAVAILABLE}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self.config = config
        self.context = context
        self.script: Script = config["script"]
        self.is_closed = False
        self.script.constructed.append(self)

    async def open(self) -> None:
        if self.script.on_open is not None:
            await self.script.on_open(self)
        self.script.opened.append(self)

    async def close(self) -> None:
        self.is_closed = True
        self.script.closed.append(self)
        if self.script.on_close is not None:
            await self.script.on_close(self)

    async def health(self) -> Health:
        if isinstance(self.script.health, BaseException):
            raise self.script.health
        return self.script.health

    async def _do(self, request: Any, context: CallContext) -> Any:
        self.script.attempts += 1
        self.script.steps.append("provider")
        assert not self.is_closed, "a closed provider was called"
        if self.script.method is not None:
            return await self.script.method(request, context)
        return ToyResult(value=request.key)

    get = put = append = expire = reveal = _do

    async def watch(self, request: Any, context: CallContext) -> AsyncIterator[ToyResult]:
        self.script.attempts += 1
        try:
            for item in self.script.items:
                if isinstance(item, BaseException):
                    raise item
                if callable(item):
                    await item()
                    continue
                yield ToyResult(value=item)
        finally:
            self.script.streams_ended += 1

    record = watch


async def hang(*_: Any) -> None:
    """Never answer."""
    await asyncio.sleep(60)
