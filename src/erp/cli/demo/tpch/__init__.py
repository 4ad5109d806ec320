"""``erp demo --tpch``: thousands of orders through a layer, reconciled to the cent with the files they came from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from erp.cli.demo.tpch.push import Push
from erp.cli.demo.tpch.reconciliation import reconciled, shown_differences, table
from erp.cli.demo.tpch.stored import Stored

if TYPE_CHECKING:
    from erp.cli.demo.client import DemoClient
    from erp.cli.demo.tpch.generated import Generated, Submission, Sums
    from erp.cli.demo.tpch.lives import Lives

RULE = (
    "Each line: discount = extended price x share and tax = revenue x share, both rounded half up to the cent;"
    " revenue = extended price - discount. Sums are of rounded lines."
)


@dataclass(frozen=True, slots=True)
class Journey:
    """The orders, the layer they go through, and how."""

    orders: Generated
    lives: Lives
    connect: Callable[[], DemoClient]
    """Makes a client of the layer."""
    concurrency: int


def run(journey: Journey) -> bool:
    """Push what the layer has not got yet, read everything back, and return whether it reconciles.

    Raises:
        NotGeneratedError, NotReadableError, PushError, ChildFailedError: why it could not be brought to an end.
    """
    console = Console() if sys.stdout.isatty() else Console(width=120)
    computed = journey.orders.sums()
    with closing(journey.connect()) as client:
        stored = Stored(client, journey.orders.prefix)
        before = stored.references()
        if before:
            console.print(f"{len(before):,} orders are there from an earlier run; going on with the others.")
        _push(console, journey, before, computed)
        return _reconcile(console, stored, computed)


def _push(console: Console, journey: Journey, before: set[str], computed: dict[str, Sums]) -> None:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task("submitting orders", total=len(computed), completed=len(before), rate="")
        push = Push(
            journey.connect,
            _missing(journey.orders, before),
            concurrency=journey.concurrency,
            on_answer=lambda: progress.advance(task),
            check=lambda: _check(progress, task, journey.lives),
        )
        journey.lives.begin_killing()
        try:
            push.run()
        finally:
            journey.lives.end_killing()
        journey.lives.check()
    if journey.lives.kills:
        console.print(
            f"The layer was killed {journey.lives.kills} times; {push.attempts_repeated:,} attempts were repeated."
        )


def _missing(orders: Generated, before: set[str]) -> Iterator[Submission]:
    return (submission for submission in orders.submissions() if submission.reference not in before)


def _check(progress: Progress, task: TaskID, lives: Lives) -> None:
    lives.check()
    speed = progress.tasks[task].speed
    killed = f", killed {lives.kills} times" if lives.kills else ""
    progress.update(task, rate=f"{speed or 0:.0f}/s{killed}")


def _reconcile(console: Console, stored: Stored, computed: dict[str, Sums]) -> bool:
    found = reconciled(computed, stored.sums(), stored.totals())
    console.print(table(found))
    console.print(RULE)
    if not found.is_right:
        console.print(f"[red]It does not reconcile.[/]\n{shown_differences(found)}")
        return False
    console.print("It reconciles to the cent.")
    steps = stored.steps()
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(steps.items()))
    console.print(f"Steps that follow the orders (event, integration, annotation): {counts}.")
    return True


def scale_of(text: str) -> Decimal:
    """Return a scale factor.

    Raises:
        ValueError: it is not a number above 0 and up to 1.
    """
    try:
        scale = Decimal(text)
    except ArithmeticError:
        scale = Decimal(0)
    if not scale.is_finite() or not 0 < scale <= 1:
        message = f"{text!r} is not a scale factor: a number above 0 and up to 1, for example 0.01 (15,000 orders)."
        raise ValueError(message)
    return scale
