"""Compares what a layer has stored with what the generated files say, order by order and in sum, to the cent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from rich.table import Table

from erp.cli.demo.tpch.generated import NOTHING, Sums

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, computed from the files and read back from the layer."""

    name: str
    computed: int | Decimal
    stored: int | Decimal


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found."""

    figures: list[Figure]
    differences: list[str]
    """One sentence for each order that is not as it should be."""

    @property
    def is_right(self) -> bool:
        """Whether everything is the same, to the cent."""
        return not self.differences and all(figure.computed == figure.stored for figure in self.figures)


def reconciled(computed: dict[str, Sums], stored: dict[str, Sums], totals: dict[str, Decimal]) -> Reconciliation:
    """Compare; all by the order's reference. ``totals`` are those written at the orders themselves."""
    ours, theirs = sum(computed.values(), NOTHING), sum(stored.values(), NOTHING)
    figures = [
        Figure("orders", len(computed), len(stored)),
        Figure("lines", ours.lines, theirs.lines),
        Figure("discount", ours.discount, theirs.discount),
        Figure("revenue", ours.revenue, theirs.revenue),
        Figure("tax", ours.tax, theirs.tax),
        Figure("total of the lines", ours.total, theirs.total),
        Figure("total of the orders", ours.total, sum(totals.values(), Decimal(0))),
    ]
    return Reconciliation(figures, _differences(computed, stored, totals))


def _differences(computed: dict[str, Sums], stored: dict[str, Sums], totals: dict[str, Decimal]) -> list[str]:
    found = [f"{reference} is not there" for reference in computed if reference not in stored]
    found += [f"{reference} was never generated" for reference in stored if reference not in computed]
    for reference, sums in computed.items():
        if reference in stored and stored[reference] != sums:
            found.append(f"{reference} should be {_described(sums)}, but is {_described(stored[reference])}")
        elif reference in totals and totals[reference] != sums.total:
            found.append(f"{reference} should have the total {sums.total}, but has {totals[reference]}")
    return found


def _described(sums: Sums) -> str:
    return f"{sums.lines} lines, discount {sums.discount}, revenue {sums.revenue}, tax {sums.tax}"


def table(found: Reconciliation) -> Table:
    """Show the figures side by side."""
    made = Table(title="Generated files against what the layer has stored")
    for column in ("", "computed from the files", "read back from the layer", "difference"):
        made.add_column(column, justify="right" if column else "left")
    for figure in found.figures:
        difference = figure.stored - figure.computed
        style = "red" if difference else "green"
        made.add_row(figure.name, f"{figure.computed:,}", f"{figure.stored:,}", f"[{style}]{difference}[/]")
    return made


def shown_differences(found: Reconciliation) -> str:
    """Name the first orders that differ."""
    more = len(found.differences) - SHOWN
    return "\n".join([*found.differences[:SHOWN], *([f"and {more} more"] if more > 0 else [])])
