"""Providers that break one rule of configuration, secrets or their peer."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, ClassVar

from tests.conformance.saboteur import breaks

from erp.runtime.spi import ErrorCode, Health, ProviderError

REF = "cache/memory"


def configured(**properties: Any) -> dict[str, Any]:
    return {"config": {"type": "object", "additionalProperties": False, "properties": properties}}


OPEN = {"config": {"type": "object", "additionalProperties": True, "properties": {}}}
LOOSE = configured(max_bytes={"type": ["integer", "array"], "default": 65536})
WRONG_DEFAULT = configured(unused={"type": "integer", "minimum": 5, "default": 1})


def secretive(secret: str) -> dict[str, Any]:
    """A manifest with a secret setting; each saboteur has its own secret, for what one logs all can see."""
    password = {"type": "string", "x-erp-secret": True}
    return {**configured(password=password), "conformance": {"server": None, "config": {"password": secret}}}


REMOTE = {
    **configured(address={"type": "string"}, password={"type": "string", "x-erp-secret": True}),
    "authentication": [{"profile": "password", "fields": ["password"]}],
    "conformance": {
        "server": "toy",
        "config": {"address": "up", "password": "canary-of-the-peer"},
        "unreachable": {"address": "down"},
        "wrong_credentials": {"password": "wrong-one"},
    },
}


@breaks("CONF-01", ref=REF, manifest=OPEN)
class TakesAnySetting:
    """Its manifest allows what it does not know."""


@breaks("CONF-02", ref=REF, manifest=LOOSE, also=("CACHE-08",))
class TakesAnyType:
    """Its manifest allows a list of bytes."""


@breaks("CONF-03", ref=REF)
class ClosesForAllOfTheConnection:
    closed: ClassVar[set[str]] = set()

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.place = str(context.data_dir)
        self.closed.discard(self.place)

    async def close(self) -> None:
        if "case-" in self.place:
            self.closed.add(self.place)

    async def set(self, request: Any, context: Any) -> Any:
        if self.place in self.closed:
            raise ProviderError(ErrorCode.UNAVAILABLE, "Closed.")
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CONF-04", ref=REF, manifest=WRONG_DEFAULT)
class DefaultsToWhatItRefuses:
    """Its manifest refuses its own default."""


@breaks("SEC-01", ref=REF, manifest=secretive("canary-of-the-log"))
class LogsItsPassword:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        logging.getLogger("toy").error("connecting with %s", config.get("password"))


@breaks("SEC-02", ref=REF, manifest=secretive("canary-of-the-repr"))
class ShowsItsPassword:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.peer = SimpleNamespace(password=config.get("password"))


class Remote:
    """A correct provider with a peer that can be down and refuse a password."""

    unavailable: ClassVar[Any] = ErrorCode.UNAVAILABLE
    unauthenticated: ClassVar[Any] = ErrorCode.UNAUTHENTICATED

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.is_down = config["address"] == "down"
        self.is_refused = config["password"] == "wrong-one"

    async def open(self) -> None:
        if self.is_down:
            raise ProviderError(self.unavailable, "The peer does not answer.")
        if self.is_refused:
            raise ProviderError(self.unauthenticated, "The peer refuses the password.")


@breaks("NET-01", ref=REF, manifest=REMOTE, also=("NET-02",))
class DownIsNotFound(Remote):
    unavailable = ErrorCode.NOT_FOUND


@breaks("NET-02", ref=REF, manifest=REMOTE)
class DownIsWell(Remote):
    async def open(self) -> None:
        if not self.is_down:
            await super().open()

    async def set(self, request: Any, context: Any) -> Any:
        if self.is_down:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The peer does not answer.")
        return await super().set(request, context)  # type: ignore[misc]

    async def health(self) -> Health:
        return Health(status="ok")


@breaks("NET-03", ref=REF, manifest=REMOTE)
class WrongPasswordsAreForbidden(Remote):
    unauthenticated = ErrorCode.PERMISSION_DENIED
