"""The roles and scopes of the platform, written once more and otherwise: what the policy is compared with."""

from __future__ import annotations

import re

from erp.runtime.question import Question

CALLERS = {"admin", "operator", "developer", "agent", "service"}
OPERATED = {"connections", "routes", "operations", "metrics", "health", "outbox", "consents"}
OF_THE_PLATFORM = {("tenants", "create"), ("tenants", "delete"), ("catalog", "reload")}


def allows(question: Question) -> bool:
    """Whether the table allows what a question asks."""
    actor = question.actor
    return (
        any(_role(role, question) for role in actor.roles)
        and not _foreign(question)
        and not _agent(question)
        and not _trust(question)
        and (not actor.scopes or any(_scope(scope, question) for scope in actor.scopes))
    )


def _role(role: str, question: Question) -> bool:
    if question.area in {"providers", "services"}:
        return role in CALLERS
    operates = role == "operator" and (question.effect == "read" or question.domain in OPERATED)
    return question.area == "admin" and (role == "admin" or operates)


def _foreign(question: Question) -> bool:
    reserved = question.area == "admin" and (question.domain, question.action) in OF_THE_PLATFORM
    return question.actor.tenant != "platform" and (reserved or question.tenant not in {"", question.actor.tenant})


def _agent(question: Question) -> bool:
    changes = question.area == "admin" and question.effect != "read"
    return "agent" in question.actor.roles and (question.effect == "destructive" or changes)


def _trust(question: Question) -> bool:
    changes = question.area == "admin" and question.domain == "connections" and question.effect != "read"
    return changes and question.name.startswith("auth/") and "admin" not in question.actor.roles


def _scope(scope: str, question: Question) -> bool:
    place, _, rest = scope.partition(":")
    pattern, _, what = rest.partition(":")
    if scope.count(":") != 2 or place not in {question.area, "*"}:
        return False
    names = [f"{question.domain}/{question.name}"] + ([] if question.area == "providers" else [question.domain])
    return any(_like(pattern, name) for name in names) and (what == question.effect or _like(what, question.action))


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None
