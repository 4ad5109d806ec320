"""Shows plans to people (rich) and machines (JSON)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from erp.cli.state.document import printable
from erp.cli.state.plan import Allowed, Plan, differences
from erp.cli.state.resources import TENANTS, Change

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}
_NONE = "(none)"


def title(change: Change) -> str:
    """Return how people call what is changed: ``connection cache/memory#small of demo``."""
    name = f"{change.kind.noun} {printable(change.name)}"
    return name if change.kind is TENANTS else f"{name} of {change.tenant}"


def console() -> Console:
    """Return standard output; colours only on a terminal, long lines are never cut."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def lines(change: Change, option: str | None) -> list[Text]:
    """Return the lines that show one change; ``option`` is what it would still need."""
    from rich.text import Text

    sign, colour = SIGNS[change.verb]
    needs = f"  (only with {option})" if option else ""
    found = [Text(f"{sign} {title(change)}{needs}", style=colour)]
    for name, before, after in differences(change):
        found.append(Text(f"    {name}: {_value(before, after, is_new=change.before is None)}"))
    return found


def _value(before: Any, after: Any, *, is_new: bool) -> str:
    return _shown(after) if is_new else f"{_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    return _NONE if value is None else printable(json.dumps(value, ensure_ascii=False))


def show(plan: Plan, allowed: Allowed) -> None:
    """Print every change."""
    to = console()
    for change in plan.changes:
        for line in lines(change, allowed.option(change)):
            to.print(line)


def unnamed(plan: Plan) -> str:
    """Return a sentence about tenants that the file does not name; empty when there are none."""
    if not plan.unnamed:
        return ""
    some = ", ".join(plan.unnamed[:5]) + (", ..." if len(plan.unnamed) > 5 else "")  # noqa: PLR2004  (enough to see)
    return f"{counted(len(plan.unnamed), 'tenant')} of the server not named in the file: {some}"


def counted(number: int, noun: str) -> str:
    """Return ``1 tenant``, ``2 tenants``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def summary(changes: list[Change]) -> str:
    """Return ``2 to create, 1 to change, 0 to remove``."""
    verbs = [change.verb for change in changes]
    return ", ".join(f"{verbs.count(verb)} to {verb}" for verb in ("create", "change", "remove"))


def machine_readable(plan: Plan) -> str:
    """Return a plan as JSON."""
    found = {"changes": [_as_json(change) for change in plan.changes], "unnamed_tenants": plan.unnamed}
    return json.dumps(found, ensure_ascii=False, indent=2)


def _as_json(change: Change) -> dict[str, Any]:
    fields = [{"field": name, "before": before, "after": after} for name, before, after in differences(change)]
    facts: dict[str, Any] = {"verb": change.verb, "kind": change.kind.noun, "tenant": change.tenant}
    facts |= {"name": change.name, "fields": fields}
    option = Allowed().option(change)
    return facts if option is None else facts | {"needs": option}
