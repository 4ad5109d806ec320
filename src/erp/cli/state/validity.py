"""Whether a state file can be applied at all: everything that can be known is checked before anything is done."""

from __future__ import annotations

import datetime
import re
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from erp.cli.state import shape
from erp.cli.state.actors import Actors
from erp.cli.state.document import MAX_BYTES, Document, Finding, Place, StateError, parse
from erp.cli.state.plan import PLATFORM, Allowed, Plan, Snapshot
from erp.cli.state.resources import CONNECTIONS, KEYS, ROUTES, SCHEDULES, Change, Kind, Present
from erp.cli.state.server import Server, ServerError

if TYPE_CHECKING:
    from pathlib import Path

_REFERENCE = re.compile(r"secret://[^#\s]+(#[1-9][0-9]*)?\Z")
_PLAIN = "holds a secret in plain text. Store it with put of secrets/local and write the reference here that it answers"
_DEFAULT = "default"


def load(path: Path) -> Document:
    """Return a state file (``-``: standard input) that its schema has no fault with.

    Raises:
        StateError: with everything that is wrong and where.
    """
    document = parse(_text(path))
    found = shape.findings(document.value, shape.schema()) or _times(document.value)
    refuse(document, found)
    return document


def _text(path: Path) -> str:
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StateError([Finding((), f"The file cannot be read: {error}.")]) from None
    if len(content) > MAX_BYTES:
        raise StateError([Finding((), f"The file is larger than {MAX_BYTES} bytes. Split it by tenants.")])
    return text


def refuse(document: Document, findings: list[Finding]) -> None:
    """Raise ``StateError`` when there are findings."""
    if findings:
        raise StateError([document.located(finding) for finding in findings])


def _times(state: dict[str, Any]) -> list[Finding]:
    found = []
    for tenant, entry in state["tenants"].items():
        for name, key in ((entry or {}).get("keys") or {}).items():
            place = ("tenants", tenant, "keys", name, "expires_at")
            try:
                when = datetime.datetime.fromisoformat(key.get("expires_at") or "2000-01-01T00:00:00Z")
            except ValueError:
                found.append(Finding(place, "is no time that exists"))
                continue
            if when.tzinfo is None:
                found.append(Finding(place, "has no time zone; write it as in 2027-01-31T12:00:00Z"))
    return found


class Validity:
    """Checks a state that its schema has no fault with against what the server knows."""

    def __init__(self, server: Server, state: dict[str, Any], found: Snapshot) -> None:
        self._server = server
        self._state = state
        self._found = found
        self._providers: dict[str, dict[str, Any] | ServerError] = {}
        self._removed: set[tuple[str, str, str]] = set()
        """Tenant, section and name of what will be gone."""

    def findings(self, plan: Plan, allowed: Allowed) -> list[Finding]:
        """Return everything that would make applying the plan fail, as far as it can be known."""
        gone = [one for one in plan.doable(allowed) if one.verb == "remove"]
        self._removed = {(one.tenant, one.kind.section, one.name) for one in gone}
        actors = Actors(self._server, self._state, self._present, self._removed)
        is_platform = PLATFORM in self._found.tenants
        found = self._unreachable()
        for tenant, entry in self._state["tenants"].items():
            place: Place = ("tenants", tenant)
            for name, connection in ((entry or {}).get("connections") or {}).items():
                found += self._connection((*place, "connections", name), name, connection or {})
            for name, route in ((entry or {}).get("routes") or {}).items():
                found += self._route((*place, "routes", name), tenant, name, route)
            found += _defaults(place, entry or {})
        for change in plan.doable(allowed):
            found += self._key(change) + self._schedule(change) + self._removal(change)
            found += actors.findings(change, is_platform=is_platform)
        return found

    # -- tenants ---------------------------------------------------------------------------------

    def _unreachable(self) -> list[Finding]:
        """Tenants that the key has nothing to do with: only the platform's sees all."""
        if PLATFORM in self._found.tenants:
            return []
        own = ", ".join(self._found.tenants)
        message = f"is not the tenant of this key ({own}). Use a key of the platform's administrator for others"
        return [Finding(("tenants", id_), message) for id_ in self._state["tenants"] if id_ not in self._found.tenants]

    # -- connections -----------------------------------------------------------------------------

    def _provider(self, ref: str) -> dict[str, Any] | ServerError:
        if ref not in self._providers:
            try:
                self._providers[ref] = self._server.get(f"/providers/{ref}")
            except ServerError as error:
                if error.code != "not_found":
                    raise
                self._providers[ref] = error
        return self._providers[ref]

    def _connection(self, place: Place, name: str, connection: dict[str, Any]) -> list[Finding]:
        provider = self._provider(name.partition("#")[0])
        if isinstance(provider, ServerError):
            return [Finding(place, str(provider))]
        config, place = connection.get("config", {}), (*place, "config")
        against = provider["config_schema"]
        secrets = [name for name, value in against.get("properties", {}).items() if value.get("x-erp-secret")]
        given = [name for name in secrets if config.get(name) is not None]
        plain = [name for name in given if not _REFERENCE.match(str(config[name]))]
        faults = [Finding((*place, name), _PLAIN) for name in plain]
        # The schema is about what references stand for, which the server alone knows.
        secret = {(*place, name) for name in given}
        return faults + [item for item in shape.findings(config, against, place) if item.place not in secret]

    # -- routes ----------------------------------------------------------------------------------

    def _route(self, place: Place, tenant: str, name: str, route: dict[str, Any]) -> list[Finding]:
        import msgspec

        from erp.gateway.routing import shape_errors
        from erp.runtime.ports import Route

        domain, _, own = name.partition("/")
        facts = {key: value for key, value in route.items() if key != _DEFAULT}
        made = msgspec.convert({**facts, "tenant": tenant, "domain": domain, "name": own, "revision": ""}, Route)
        found = [Finding((*place, *error.pointer.split("/")[1:]), error.message) for error in shape_errors(made)]
        for number, target in enumerate(made.targets):
            there = (*place, "targets", str(number))
            provider = self._provider(f"{domain}/{target.provider}")
            if isinstance(provider, ServerError):
                found.append(Finding(there, str(provider)))
            elif not self._exists(tenant, f"{domain}/{target.provider}#{target.connection}", provider):
                message = (
                    f"There is no connection {domain}/{target.provider}#{target.connection}; name it in connections"
                )
                found.append(Finding(there, message))
        return found

    def _exists(self, tenant: str, name: str, provider: dict[str, Any]) -> bool:
        if name.endswith(f"#{_DEFAULT}") and not provider["needs_configuration"]:
            return True
        if name in ((self._state["tenants"][tenant] or {}).get("connections") or {}):
            return True
        return name in self._present(tenant, CONNECTIONS) and (tenant, CONNECTIONS.section, name) not in self._removed

    def _present(self, tenant: str, kind: Kind) -> dict[str, Present]:
        """Return what the server has, also of a section that the file does not have."""
        if tenant not in self._found.tenants:
            return {}
        place = (tenant, kind.section)
        if place not in self._found.sections:
            self._found.sections[place] = kind.present(self._server, tenant)
        return self._found.sections[place]

    def _removal(self, change: Change) -> list[Finding]:
        """Refuse to remove what a route leads to that the file does not have and that therefore stays."""
        if change.kind is not CONNECTIONS or change.verb != "remove":
            return []
        domain, _, place = change.name.partition("/")
        leading = [
            name
            for name, route in self._present(change.tenant, ROUTES).items()
            if name.startswith(f"{domain}/")
            and name not in self._wanted_routes(change.tenant)
            and (change.tenant, ROUTES.section, name) not in self._removed
            and place in {f"{one['provider']}#{one['connection']}" for one in route.facts["targets"]}
        ]
        message = f"{change.name} would be removed, and the route {', '.join(leading)} leads to it. Name the one or change the other"
        return [Finding(("tenants", change.tenant, "connections"), message)] if leading else []

    def _wanted_routes(self, tenant: str) -> Any:
        return (self._state["tenants"][tenant] or {}).get("routes") or {}

    # -- keys ------------------------------------------------------------------------------------

    def _key(self, change: Change) -> list[Finding]:
        if change.kind is not KEYS:
            return []
        from erp.control_plane.key_facts import check_facts, rate_text
        from erp.errors import ProviderError

        place: Place = ("tenants", change.tenant, "keys", change.name)
        if change.after is None:
            message = "would be revoked, and it is the key that this command uses. Name it in the file, or use another"
            return [Finding(place, message)] if change.id == self._server.key_id else []
        ends = change.after["expires_at"]
        try:
            check_facts(
                change.after["role"],
                change.after["scopes"],
                None if ends is None else datetime.datetime.fromisoformat(ends),
            )
            rate_text(change.after["rate"])
        except ProviderError as error:
            return [Finding((*place, item.pointer.split("/")[1]), item.message) for item in error.errors]
        return []

    # -- schedules -------------------------------------------------------------------------------

    def _schedule(self, change: Change) -> list[Finding]:
        """Refuse what the providers that a schedule names cannot do."""
        if change.kind is not SCHEDULES or change.after is None:
            return []
        place: Place = ("tenants", change.tenant, "secret_schedules", change.name)
        keeper, ref = self._provider(change.after["provider"]), change.after["provider"]
        if isinstance(keeper, ServerError):
            return [Finding((*place, "provider"), str(keeper))]
        if "rotation" not in keeper["capabilities"]:
            return [Finding((*place, "provider"), f"{ref} cannot rotate secrets")]
        if change.after["overlap_seconds"] is not None and "overlap" not in keeper["capabilities"]:
            return [Finding((*place, "overlap_seconds"), f"{ref} decides itself when older versions go; leave it out")]
        maker = self._provider(change.after["value"].get("provider", ref))
        return [Finding((*place, "value", "provider"), str(maker))] if isinstance(maker, ServerError) else []


def _defaults(place: Place, entry: dict[str, Any]) -> list[Finding]:
    """Refuse two defaults of one domain."""
    first: dict[str, str] = {}
    found = []
    for section in ("connections", "routes"):
        for name, item in (entry.get(section) or {}).items():
            domain = name.partition("/")[0]
            if not (item or {}).get(_DEFAULT):
                continue
            if domain in first:
                message = f"{first[domain]} is the default of the domain {domain} already; there can be one"
                found.append(Finding((*place, section, name, _DEFAULT), message))
            first.setdefault(domain, name)
    return found
