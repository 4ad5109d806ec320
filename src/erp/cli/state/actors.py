"""Whether what a plan does to service accounts, their certificates and their keys can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from erp.cli.state.document import Finding, Place
from erp.cli.state.resources import CERTIFICATES, KEYS, SERVICE_ACCOUNTS, Change, Facts, Kind, Present

if TYPE_CHECKING:
    from erp.cli.state.server import Server

_FIXED = "is fixed when it is made: {now} now. Give a new one another name, or remove this one first{besides}"
_LOCKED_OUT = "is whose key this command uses: it would be refused from then on. Use another key"


class Actors:
    """Checks changes against the accounts that a tenant has and is to have."""

    def __init__(
        self,
        server: Server,
        state: dict[str, Any],
        present: Callable[[str, Kind], dict[str, Present]],
        removed: set[tuple[str, str, str]],
    ) -> None:
        self._server = server
        self._state = state
        self._present = present
        """Tenant and kind -> what the server has by name; nothing of a tenant that is not there yet."""
        self._removed = removed
        """Tenant, section and name of what will be gone."""

    def findings(self, change: Change, *, is_platform: bool) -> list[Finding]:
        """Return what is wrong with one change.

        Args:
            change: what is to be done.
            is_platform: whether the key that is used is one of the platform's.
        """
        place: Place = ("tenants", change.tenant, change.kind.section, change.name)
        if change.kind is SERVICE_ACCOUNTS:
            return self._account(place, change)
        if change.kind is CERTIFICATES and change.after is not None:
            own = [] if is_platform or change.name.startswith("fingerprint:") else [Finding(place, _PLATFORM_ONLY)]
            return own + self._owner(place, change.tenant, change.after["service_account"])
        if change.kind is KEYS and change.after is not None:
            return self._key(place, change, change.after)
        return []

    def _account(self, place: Place, change: Change) -> list[Finding]:
        found = []
        if change.verb == "change":
            besides = " (its keys are revoked and its certificates forgotten)"
            found += _changed_though_fixed(place, change, ("description", "role", "scopes"), besides)
        ends = change.after is None or (change.after["disabled"] and change.verb == "change")
        if ends and change.name == self._own_account(change.tenant):
            found.append(Finding(place, _LOCKED_OUT))
        return found

    def _own_account(self, tenant: str) -> str | None:
        keys = self._present(tenant, KEYS).values()
        return next((key.facts["service_account"] for key in keys if key.id and key.id == self._server.key_id), None)

    def _key(self, place: Place, change: Change, after: Facts) -> list[Finding]:
        moved = _changed_though_fixed(place, change, ("service_account",), "") if change.verb == "change" else []
        if moved:
            return moved
        name = after["service_account"]
        if name is None:
            return []
        unknown = self._owner(place, change.tenant, name)
        return unknown or self._within(place, after, self._account_facts(change.tenant, name))

    def _within(self, place: Place, after: Facts, account: Facts) -> list[Finding]:
        found = []
        if after["role"] != account["role"]:
            found.append(Finding((*place, "role"), f"is not that of the service account: {account['role']}"))
        if account["scopes"] and not (after["scopes"] and set(after["scopes"]) <= set(account["scopes"])):
            some = ", ".join(account["scopes"])
            found.append(Finding((*place, "scopes"), f"has to be those of the service account or some of them: {some}"))
        return found

    def _owner(self, place: Place, tenant: str, name: str) -> list[Finding]:
        if self._account_facts(tenant, name):
            return []
        return [
            Finding((*place, "service_account"), f"There is no service account {name}; name it in service_accounts")
        ]

    def _account_facts(self, tenant: str, name: str) -> Facts:
        """Return what an account will be; empty when there will be none."""
        named = (self._state["tenants"].get(tenant) or {}).get("service_accounts") or {}
        if name in named:
            return SERVICE_ACCOUNTS.wanted({name: named[name]})[name]
        found = self._present(tenant, SERVICE_ACCOUNTS).get(name)
        gone = (tenant, SERVICE_ACCOUNTS.section, name) in self._removed
        return {} if found is None or gone else found.facts


_PLATFORM_ONLY = "can be registered by administrators of the platform alone; a fingerprint by those of the tenant, too"


def _changed_though_fixed(place: Place, change: Change, fixed: tuple[str, ...], besides: str) -> list[Finding]:
    before, after = change.before or {}, change.after or {}
    return [
        Finding((*place, name), _FIXED.format(now=before[name], besides=besides))
        for name in fixed
        if before[name] != after[name]
    ]
