"""The layer with its built-in roles as plain Python in the place of the policy: what ``security.py`` compares with.

Usage: python benchmarks/role_table.py serve ... (the command line of ``erp``)
"""

from __future__ import annotations

from typing import Any

import erp.main
from erp.cli import main
from erp.runtime.question import Decision, Question

CALLERS = frozenset({"admin", "operator", "developer", "agent", "service"})
ALLOWED, DENIED = Decision(allow=True, reason="role"), Decision(allow=False, reason="no role")


class RoleTable:
    """Answers at once, from the roles of the actor alone."""

    shadow = None

    def known(self, question: Question) -> Decision:
        """Look the roles up."""
        if question.area == "admin":
            return ALLOWED if "admin" in question.actor.roles else DENIED
        return DENIED if CALLERS.isdisjoint(question.actor.roles) else ALLOWED

    async def decide(self, question: Question) -> Decision:
        """The same, for who asks so."""
        return self.known(question)

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""


def _role_table(*_: Any) -> Any:
    return RoleTable()


setattr(erp.main, "decision_point", _role_table)  # noqa: B010  (for the type checker it is main's own)

if __name__ == "__main__":
    main()
