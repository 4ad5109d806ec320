"""The kinds of things that a state file names, each with the way to read, put and remove it over the API.

One more kind is one more class here and in ``SECTIONS``, and a section of ``contracts/schemas/state.yaml``.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from erp.cli.state.server import Server
from erp.cli.state.shape import completed, entry_schema, shortened

Facts = dict[str, Any]
Verb = Literal["create", "change", "remove"]
PERIODS = ("minute", "hour", "day", "month")
ABSENT = ""
ORDINARY_RATE: Facts = {"requests": 10_000, "period_seconds": 1.0, "burst": None}
"""What is so of a rate that does not say."""


@dataclass(frozen=True)
class Present:
    """Something that the server has."""

    facts: Facts
    revision: str
    id: str = ""
    """The server's own name for it, where that is not its name."""


@dataclass(frozen=True)
class Change:
    """One thing to be made, changed or removed, as planned on what the server had."""

    kind: Kind
    tenant: str
    name: str
    verb: Verb
    before: Facts | None
    after: Facts | None
    revision: str = ABSENT
    """Of what the server had when this was planned."""
    id: str = ""


class Kind(Protocol):
    """A kind of things."""

    noun: ClassVar[str]
    section: ClassVar[str]
    """Where a tenant has them in the file."""

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        """Return the whole facts of each entry of a section, so that they compare with what the server has."""

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        """Return what the server has."""

    def put(self, server: Server, change: Change) -> Any:
        """Create or change one; return the answer."""

    def remove(self, server: Server, change: Change) -> None:
        """Remove one."""

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        """Return the section of a file that says what the server has."""


class Tenants:
    """Tenants' own facts. What an entry does not say is left alone."""

    noun: ClassVar[str] = "tenant"
    section: ClassVar[str] = "tenants"
    facts = ("name", "region", "policy")
    nothing: ClassVar[Facts] = {"name": None, "region": None, "policy": {}}

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {
            id_: {name: (entry or {})[name] for name in self.facts if name in (entry or {})}
            for id_, entry in entries.items()
        }

    def present(self, server: Server, tenant: str = "") -> dict[str, Present]:
        del tenant
        return {
            item["id"]: Present({name: item.get(name, self.nothing[name]) for name in self.facts}, item["revision"])
            for item in server.pages("/tenants")
        }

    def put(self, server: Server, change: Change) -> Any:
        if change.verb == "create":
            return server.send("POST", "/tenants", {"id": change.tenant, **(change.after or {})})
        body = {**(change.after or {}), "revision": change.revision}
        return server.send("PATCH", f"/tenants/{change.tenant}", body)

    def remove(self, server: Server, change: Change) -> None:
        server.send("DELETE", f"/tenants/{change.tenant}", revision=change.revision)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        return {
            id_: {name: value for name, value in item.facts.items() if value != self.nothing[name]}
            for id_, item in sorted(found.items())
        }


class Quotas:
    """Calls of the whole tenant per period."""

    noun: ClassVar[str] = "quota"
    section: ClassVar[str] = "quotas"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {period: {"limit": limit} for period, limit in entries.items()}

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        items = server.get("/quotas", tenant=tenant)["items"]
        items = [item for item in items if (item["scope"], item["unit"]) == ("tenant", "requests")]
        return {item["period"]: Present({"limit": item["limit"]}, item["revision"]) for item in items}

    def put(self, server: Server, change: Change) -> Any:
        body = {**(change.after or {}), "revision": change.revision}
        return server.send("PUT", f"/quotas/{change.name}", body, tenant=change.tenant)

    def remove(self, server: Server, change: Change) -> None:
        server.send("DELETE", f"/quotas/{change.name}", tenant=change.tenant, revision=change.revision)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        return {period: found[period].facts["limit"] for period in PERIODS if period in found}


class Budgets:
    """Limits of other units and scopes, each by ``PERIOD UNIT SCOPE``; in a file by ``UNIT SCOPE``."""

    noun: ClassVar[str] = "budget"
    section: ClassVar[str] = "budgets"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {
            f"{period} {name}": {"limit": limit} for name, limits in entries.items() for period, limit in limits.items()
        }

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        items = server.get("/quotas", tenant=tenant)["items"]
        return {
            f"{item['period']} {item['unit']} {item['scope']}": Present({"limit": item["limit"]}, item["revision"])
            for item in items
            if (item["scope"], item["unit"]) != ("tenant", "requests")
        }

    def put(self, server: Server, change: Change) -> Any:
        period, unit, scope = change.name.split(" ", 2)
        body = {**(change.after or {}), "unit": unit, "scope": scope, "revision": change.revision}
        return server.send("PUT", f"/quotas/{period}", body, tenant=change.tenant)

    def remove(self, server: Server, change: Change) -> None:
        period, unit, scope = change.name.split(" ", 2)
        query = {"tenant": change.tenant, "unit": unit, "scope": scope, "revision": change.revision}
        server.send("DELETE", f"/quotas/{period}", **query)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        limits: dict[str, dict[str, int]] = {name.partition(" ")[2]: {} for name in sorted(found)}
        for name, own in sorted(limits.items()):
            own |= {one: found[f"{one} {name}"].facts["limit"] for one in PERIODS if f"{one} {name}" in found}
        return dict(sorted(limits.items()))


class Connections:
    """Configured providers; ``DOMAIN/PROVIDER#NAME``."""

    noun: ClassVar[str] = "connection"
    section: ClassVar[str] = "connections"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {name: completed(entry or {}, entry_schema(self.section)) for name, entry in entries.items()}

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        return {
            f"{item['provider']}#{item['connection']}": Present(
                {**{name: item[name] for name in ("config", "policy", "default")}, "region": item.get("region")},
                item["revision"],
            )
            for item in server.pages("/connections", tenant=tenant)
        }

    def put(self, server: Server, change: Change) -> Any:
        provider, _, name = change.name.partition("#")
        facts = {fact: value for fact, value in (change.after or {}).items() if value is not None}
        body = {**facts, "connection": name, "revision": change.revision}
        return server.settled(server.send("POST", f"/providers/{provider}/configure", body, tenant=change.tenant))

    def remove(self, server: Server, change: Change) -> None:
        provider, _, name = change.name.partition("#")
        query = {"connection": name, "tenant": change.tenant, "revision": change.revision}
        server.send("DELETE", f"/providers/{provider}/configure", **query)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        return {name: shortened(item.facts, entry_schema(self.section)) for name, item in sorted(found.items())}


class Routes:
    """A tenant's own names for connections; ``DOMAIN/NAME``."""

    noun: ClassVar[str] = "route"
    section: ClassVar[str] = "routes"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {name: completed(entry, entry_schema(self.section)) for name, entry in entries.items()}

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        known = entry_schema(self.section)["properties"]
        return {
            f"{item['domain']}/{item['name']}": Present({name: item[name] for name in known}, item["revision"])
            for item in server.pages("/routes", tenant=tenant)
        }

    def put(self, server: Server, change: Change) -> Any:
        body = {**(change.after or {}), "revision": change.revision}
        return server.send("PUT", f"/routes/{change.name}", body, tenant=change.tenant)

    def remove(self, server: Server, change: Change) -> None:
        server.send("DELETE", f"/routes/{change.name}", tenant=change.tenant, revision=change.revision)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        return {name: shortened(item.facts, entry_schema(self.section)) for name, item in sorted(found.items())}


class ServiceAccounts:
    """Named actors. Only whether one is disabled can change; ``Validity`` refuses the rest."""

    noun: ClassVar[str] = "service account"
    section: ClassVar[str] = "service_accounts"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        whole = {name: completed(entry, entry_schema(self.section)) for name, entry in entries.items()}
        return {name: {**facts, "scopes": sorted(set(facts["scopes"]))} for name, facts in whole.items()}

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        return {
            item["name"]: Present(
                {
                    "description": item.get("description"),
                    "role": item["role"],
                    "scopes": sorted(item.get("scopes", [])),
                    "disabled": item.get("disabled_at") is not None,
                },
                ABSENT,
            )
            for item in server.pages("/service-accounts", tenant=tenant)
        }

    def put(self, server: Server, change: Change) -> Any:
        facts = dict(change.after or {})
        disabled = {"disabled": facts.pop("disabled")}
        answer = None
        if change.verb == "create":
            answer = server.send("POST", "/service-accounts", {"name": change.name, **facts}, tenant=change.tenant)
        if change.verb == "change" or disabled["disabled"]:
            answer = server.send("PATCH", f"/service-accounts/{change.name}", disabled, tenant=change.tenant)
        return answer

    def remove(self, server: Server, change: Change) -> None:
        server.send("DELETE", f"/service-accounts/{change.name}", tenant=change.tenant)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        return {name: shortened(item.facts, entry_schema(self.section)) for name, item in sorted(found.items())}


class Certificates:
    """Client certificates that stand for service accounts; ``KIND:VALUE``."""

    noun: ClassVar[str] = "certificate"
    section: ClassVar[str] = "certificates"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {name: dict(entry) for name, entry in entries.items()}

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        return {
            f"{item['kind']}:{item['value']}": Present({"service_account": item["service_account"]}, ABSENT, item["id"])
            for item in server.pages("/certificates", tenant=tenant)
        }

    def put(self, server: Server, change: Change) -> Any:
        kind, _, value = change.name.partition(":")
        if change.verb == "change":  # it stands for one account at a time
            self.remove(server, change)
        return server.send("POST", "/certificates", {**(change.after or {}), kind: value}, tenant=change.tenant)

    def remove(self, server: Server, change: Change) -> None:
        server.send("DELETE", f"/certificates/{change.id}", tenant=change.tenant)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        return {name: dict(item.facts) for name, item in sorted(found.items())}


class SecretSchedules:
    """Secrets that are rotated by themselves."""

    noun: ClassVar[str] = "secret schedule"
    section: ClassVar[str] = "secret_schedules"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {name: completed(entry, entry_schema(self.section)) for name, entry in entries.items()}

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        known = entry_schema(self.section)["properties"]
        return {
            item["name"]: Present({name: item.get(name) for name in known}, item["revision"])
            for item in server.pages("/secret-schedules", tenant=tenant)
        }

    def put(self, server: Server, change: Change) -> Any:
        body = {**(change.after or {}), "revision": change.revision}
        return server.send("PUT", f"/secret-schedules/{change.name}", body, tenant=change.tenant)

    def remove(self, server: Server, change: Change) -> None:
        server.send("DELETE", f"/secret-schedules/{change.name}", tenant=change.tenant, revision=change.revision)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        return {name: shortened(item.facts, entry_schema(self.section)) for name, item in sorted(found.items())}


class Keys:
    """API keys by name; those that were revoked or have ended are no part of the state."""

    noun: ClassVar[str] = "key"
    section: ClassVar[str] = "keys"

    def wanted(self, entries: dict[str, Any]) -> dict[str, Facts]:
        return {name: _key_facts(completed(entry, entry_schema(self.section))) for name, entry in entries.items()}

    def present(self, server: Server, tenant: str) -> dict[str, Present]:
        valid = [item for item in server.pages("/keys", tenant=tenant) if not _is_over(item)]
        # The oldest come first, so that the newest of several with one name is what stays.
        return {
            item["name"]: Present(_key_facts(item), item["revision"], item["id"]) for item in valid if item.get("name")
        }

    def put(self, server: Server, change: Change) -> Any:
        if change.verb == "create":
            facts = {name: value for name, value in (change.after or {}).items() if value is not None}
            own = {"name": change.name, "tenant": change.tenant, "revision": change.revision}
            return server.send("POST", "/keys", {**own, **facts})
        facts = {name: value for name, value in (change.after or {}).items() if name != "service_account"}
        body = {**facts, "revision": change.revision}
        return server.send("PATCH", f"/keys/{change.id}", body, tenant=change.tenant)

    def remove(self, server: Server, change: Change) -> None:
        server.send("DELETE", f"/keys/{change.id}", tenant=change.tenant, revision=change.revision)

    def exported(self, found: dict[str, Present]) -> dict[str, Any]:
        facts = {name: {**item.facts, "rate": _changed_rate(item.facts["rate"])} for name, item in found.items()}
        return {name: shortened(own, entry_schema(self.section)) for name, own in sorted(facts.items())}


def _key_facts(key: dict[str, Any]) -> Facts:
    ends = key.get("expires_at")
    return {
        "role": key["role"],
        "scopes": sorted(set(key.get("scopes", []))),
        "expires_at": None if ends is None else _moment(ends).isoformat().replace("+00:00", "Z"),
        "rate": None if key.get("rate") is None else {**ORDINARY_RATE, **key["rate"]},
        "service_account": key.get("service_account"),
    }


def _changed_rate(rate: Facts | None) -> Facts | None:
    """Return what is to be written of a rate: ``requests``, and what is not so anyway."""
    if rate is None:
        return None
    return {name: value for name, value in rate.items() if name == "requests" or value != ORDINARY_RATE.get(name)}


def _is_over(key: dict[str, Any]) -> bool:
    return "revoked_at" in key or has_ended(key.get("expires_at"))


def has_ended(expires_at: str | None) -> bool:
    """Return whether a key's end has come."""
    return expires_at is not None and _moment(expires_at) <= datetime.datetime.now(datetime.UTC)


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)


TENANTS = Tenants()
CONNECTIONS, ROUTES, KEYS = Connections(), Routes(), Keys()
SERVICE_ACCOUNTS, CERTIFICATES, SCHEDULES = ServiceAccounts(), Certificates(), SecretSchedules()
SECTIONS: tuple[Kind, ...] = (Quotas(), Budgets(), CONNECTIONS, ROUTES, SERVICE_ACCOUNTS, CERTIFICATES, SCHEDULES, KEYS)
"""In the order in which one needs another: a route needs its connections, a key its service account."""
