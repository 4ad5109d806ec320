"""Shows the journey of the sample orders in a terminal: live while it happens, then as a table."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from erp.cli.demo.client import DemoClient
from erp.cli.demo.journey import Outcome, follow_deliveries, receive_events, submit, watch
from erp.cli.demo.orders import samples

_MARKS = {
    "done": "[green]done[/]",
    "pending": "[yellow]...[/]",
    "skipped": "[dim]skipped[/]",
    "failed": "[red]failed[/]",
}


def run(client: DemoClient, run_id: str) -> bool:
    """Submit all samples, watch them, print the table; return whether everything ended as it should."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    outcomes: list[Outcome] = []
    chosen = samples(run_id)
    progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console)
    with progress:
        task = progress.add_task("submitting orders", total=len(chosen))
        for sample in chosen:
            outcomes.append(submit(client, sample))
            progress.advance(task)
    with Live(table(outcomes), console=console, refresh_per_second=8, transient=True) as live:
        is_settled = watch(client, outcomes, lambda: live.update(table(outcomes)))
        follow_deliveries(client, outcomes, lambda: live.update(table(outcomes)))
    receive_events(client, outcomes, f"demo-{run_id}")
    console.print(table(outcomes))
    is_right = is_settled and all(_went_well(outcome) for outcome in outcomes)
    kept = len({outcome.order_id for outcome in outcomes if outcome.order_id})
    refused = sum(outcome.order_id is None for outcome in outcomes)
    console.print(
        f"{len(outcomes)} submissions: {kept} orders kept, each announced and delivered once; {refused} refused."
    )
    return is_right


def _went_well(outcome: Outcome) -> bool:
    if outcome.order_id is None:
        return outcome.status in {400, 409}
    is_delivered = outcome.delivery.get("status") == "delivered"
    return (
        is_delivered
        and bool(outcome.event_position)
        and all(step["status"] == "done" for step in outcome.steps.values())
    )


def table(outcomes: list[Outcome]) -> Table:
    """Return what became of each submission."""
    made = Table(title="What became of each order", show_lines=True)
    for column in ("submission", "total", "row", "webhook", "event", "annotation", "problem"):
        made.add_column(column, overflow="fold")
    for outcome in outcomes:
        made.add_row(
            outcome.sample.shows,
            outcome.total,
            outcome.row,
            _delivery(outcome),
            f"position {outcome.event_position}" if outcome.event_position else _step(outcome, "event"),
            _step(outcome, "annotation"),
            f"[red]{outcome.status}[/] {outcome.problem}" if outcome.problem else "",
        )
    return made


def _delivery(outcome: Outcome) -> str:
    if not outcome.delivery:
        return _step(outcome, "integration")
    mark = _MARKS["done" if outcome.delivery["status"] == "delivered" else "pending"]
    return f"{mark} at attempt {outcome.delivery['attempts']}"


def _step(outcome: Outcome, name: str) -> str:
    step = outcome.steps.get(name)
    if step is None:
        return ""
    mark = _MARKS[step["status"]]
    detail = step.get("detail", "").partition(" (")[0]
    is_telling = step["status"] == "failed" or (name == "annotation" and step["status"] == "done")
    return f"{mark}\n{detail}" if is_telling else mark


def print_next_steps(address: str, key: str, *, log: Path) -> None:
    """Say where the layer is and what to try."""
    text = f"""
The layer serves at {address} (log: {log}). In another terminal:

  export ERP_URL={address}
  export ERP_KEY={key}

Three things to try:

  curl -sS "$ERP_URL/services/order/list" -H "Authorization: Bearer $ERP_KEY" --json '{{"params": {{}}}}'
  curl -sS "$ERP_URL/providers?domain=cache" -H "Authorization: Bearer $ERP_KEY"
  curl -sS "$ERP_URL/providers/db/sqlite/query" -H "Authorization: Bearer $ERP_KEY" \\
    --json '{{"params": {{"sql": "select customer_reference, total, category, urgency from orders"}}}}'

Ctrl-C stops it."""  # noqa: S608  (an example to copy)
    print(text, flush=True)  # whoever reads it from a file or a pipe waits for it
