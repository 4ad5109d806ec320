"""How long versions of secrets stay that a rotation has replaced, as providers of secrets plan it."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping
from typing import Protocol

import msgspec


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """What is planned for a version of a secret that a rotation has replaced."""

    ends_at: datetime.datetime
    """When the version is destroyed; later where something still uses it."""
    is_over: bool
    """Whether nothing may use it any more: it is destroyed, or is just about to be."""


class Overlaps(Protocol):
    """The versions of one connection's secrets that rotations have replaced.

    The layer destroys each by the action ``destroy_version`` when its overlap is over and nothing uses it any more.
    """

    def replacing(
        self, path: str, versions: Mapping[int, str], seconds: float
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Store the new version within this, so that no killed process leaves those before for ever.

        ``versions``: those before by number, and as ``newest`` names them. They stay for ``seconds`` after nothing uses
        them any more. When storing fails without effect, what was not planned before is not planned after.
        """

    async def of(self, path: str) -> Mapping[str, Overlap]:
        """Return what is planned for the versions of a secret, as ``newest`` names them."""

    async def end(self, path: str, version_id: str) -> None:
        """Remember that nothing may use a version any more; for systems that cannot destroy it themselves."""

    async def forget(self, path: str) -> None:
        """Plan nothing any more for a secret that is gone with all its versions."""


class OverlapKeeper(Protocol):
    """Gives every connection its ``Overlaps``."""

    def at(self, tenant: str, domain: str, provider: str, connection: str) -> Overlaps: ...
