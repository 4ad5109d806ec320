"""The route that callers use: as a shadow while both sides are compared, then on the target alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from erp.cli.migrate.passes import MigrationError

if TYPE_CHECKING:
    from erp.cli.migrate.journal import Journal
    from erp.cli.migrate.side import Side
    from erp.cli.state.server import Server

MIRRORED = frozenset({"cache", "db", "storage"})
"""Domains with a shadow phase. On a bus the mirror would take events away from groups of the target."""
MAY_DIFFER = {
    "cache": ["/version"],
    "db": ["/last_insert_id", "/columns", "/version", "/engine", "/pool"],
    "storage": [
        "/etag",
        "/version",
        "/modified_at",
        "/objects/*/etag",
        "/objects/*/modified_at",
        "/next_cursor",
        "/url",
        "/expires_at",
    ],
}
POLL_SECONDS = 0.5
_CHANGEABLE = ("kind", "targets", "after_failures", "retry_after_seconds", "same_system", "mirror_effects", "ignore")

Show = Callable[[float, dict[str, Any]], None]


class Cutover:
    """One route, from the source to the target. What it was before is in the journal until it is switched."""

    def __init__(self, server: Server, name: str, sides: tuple[Side, Side], journal: Journal) -> None:
        self._server = server
        self.path = f"/routes/{sides[0].domain}/{name}"
        self._sides = sides
        self._journal = journal

    def check(self) -> None:
        """Require that the route leads to the source alone, or make it.

        Raises:
            MigrationError: it leads elsewhere: what goes there would not be copied.
        """
        from erp.cli.state.server import ServerError

        try:
            found = self._server.get(self.path)
        except ServerError as error:
            if error.code != "not_found":
                raise
            self._server.send("PUT", self.path, {**self._single(0), "revision": ""})
            return
        if self._journal.fact("route") is not None:
            return
        targets = [self._target(index) for index in (0, 1)]
        if [_place(one) for one in found["targets"]] not in ([_place(targets[0])], [_place(targets[1])]):
            message = (
                f"The route {self.path} does not lead to {self._sides[0].name} alone. "
                "How to fix: make it `single` first, or name the connection that it leads to as the source."
            )
            raise MigrationError(message)

    @property
    def is_switched(self) -> bool:
        """Whether it leads to the target already."""
        found = self._server.get(self.path)
        return [_place(one) for one in found["targets"]] == [_place(self._target(1))]

    def shadow(self, seconds: float, show: Show) -> dict[str, Any]:
        """Mirror all calls to the target for a time; return how the answers compared."""
        found = self._server.get(self.path)
        if self._journal.fact("route") is None:
            self._journal.note("route", {name: found[name] for name in _CHANGEABLE})
        ignore = MAY_DIFFER[self._sides[0].domain]
        wanted = {
            "kind": "shadow",
            "targets": [self._target(0), self._target(1)],
            "mirror_effects": True,
            "ignore": ignore,
        }
        self._server.send("PUT", self.path, wanted)
        begun = time.monotonic()
        while True:
            report: dict[str, Any] = self._server.get(self.path)["state"]["shadow"]
            passed = time.monotonic() - begun
            show(min(passed, seconds), report)
            if passed >= seconds:
                return report
            time.sleep(min(POLL_SECONDS, seconds - passed))

    def restore(self) -> None:
        """Put the route back to what it was before the shadow."""
        before = self._journal.fact("route")
        if before is not None:
            self._server.send("PUT", self.path, before)
            self._journal.forget("route")

    def switch(self) -> None:
        """Lead the route to the target alone, from one call to the next."""
        self._server.send("PUT", self.path, self._single(1))
        self._journal.forget("route")

    def _single(self, index: int) -> dict[str, Any]:
        return {"kind": "single", "targets": [self._target(index)]}

    def _target(self, index: int) -> dict[str, Any]:
        side = self._sides[index]
        return {"provider": side.provider, "connection": side.connection}


def _place(target: dict[str, Any]) -> tuple[str, str]:
    return target["provider"], target.get("connection", "default")
