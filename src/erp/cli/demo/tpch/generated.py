"""TPC-H orders: generated once, read as submissions, and added up directly.

Every line: discount = extended price x share, rounded half up to the cent; revenue = extended price - discount;
tax = revenue x share, rounded half up to the cent. Sums are of rounded lines.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

PROGRAM = "tpchgen-cli"
CENT = Decimal("0.01")
TABLES = ("orders", "lineitem")
MISSING = (
    f"{PROGRAM} makes the orders and is not installed. Install it with: pip install 'erp-provider-layer[tpch]'"
    " (in a source tree: scripts/bootstrap)."
)


class NotGeneratedError(RuntimeError):
    """There are no orders to push; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What orders come to, to the cent."""

    lines: int
    discount: Decimal
    revenue: Decimal
    tax: Decimal

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.lines + other.lines,
            self.discount + other.discount,
            self.revenue + other.revenue,
            self.tax + other.tax,
        )

    @property
    def total(self) -> Decimal:
        """Revenue and tax together."""
        return self.revenue + self.tax


NOTHING = Sums(0, Decimal(0), Decimal(0), Decimal(0))


@dataclass(frozen=True, slots=True)
class Submission:
    """One order as the layer takes it."""

    reference: str
    params: dict[str, Any]

    @property
    def idempotency_key(self) -> str:
        """The same for the same order in every run."""
        return f"order:{self.reference}"


@dataclass(frozen=True, slots=True)
class Generated:
    """The files of one scale factor."""

    scale: Decimal
    folder: Path

    @property
    def prefix(self) -> str:
        """What the references of these orders begin with; another scale has other orders under the same numbers."""
        return f"TPCH-{self.scale:f}-"

    def submissions(self) -> Iterator[Submission]:
        """Read the orders, each as a submission."""
        for order, lines in self._orders():
            yield self._submission(order, lines)

    def sums(self) -> dict[str, Sums]:
        """Add each order up, straight from the files, by its reference."""
        return {f"{self.prefix}{order[0]}": sum(map(_line_sums, lines), NOTHING) for order, lines in self._orders()}

    def _orders(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Both files are in the order of the order's key."""
        by_order = itertools.groupby(_rows(self.folder / "lineitem.tbl"), key=lambda row: row[0])
        for order, (key, lines) in zip(_rows(self.folder / "orders.tbl"), by_order, strict=True):
            if order[0] != key:
                message = f"The files in {self.folder} do not fit together. Delete the folder; it is made again."
                raise NotGeneratedError(message)
            yield order, list(lines)

    def _submission(self, order: list[str], rows: list[list[str]]) -> Submission:
        reference = f"{self.prefix}{order[0]}"
        params = {
            "customer_reference": reference,
            "customer": {"id": f"C-{order[1]}", "name": f"Customer#{int(order[1]):09d}"},
            "currency": "USD",
            "order_date": order[4],
            "lines": [_line(row) for row in rows],
            "total": str(sum(map(_line_sums, rows), NOTHING).total),
            "note": order[8],
        }
        return Submission(reference, params)


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="ascii") as lines:
        for line in lines:
            yield line.rstrip("\n").split("|")


def _line(row: list[str]) -> dict[str, Any]:
    """The generator makes extended prices as quantity x price, so that the price of a unit has cents and no more."""
    return {
        "line_number": int(row[3]),
        "sku": f"PART-{row[1]}",
        "quantity": row[4],
        "unit_price": str((Decimal(row[5]) / Decimal(row[4])).quantize(CENT)),
        "discount": str(_line_sums(row).discount),
        "tax_rate": row[7],
    }


def _line_sums(row: list[str]) -> Sums:
    price = Decimal(row[5])
    discount = (price * Decimal(row[6])).quantize(CENT, ROUND_HALF_UP)
    revenue = price - discount
    return Sums(1, discount, revenue, (revenue * Decimal(row[7])).quantize(CENT, ROUND_HALF_UP))


def generate(scale: Decimal, parent: Path) -> Generated:
    """Make the orders of a scale factor under ``parent``, unless they are there; all or nothing.

    Raises:
        NotGeneratedError: the generator is missing or failed.
    """
    scale = scale.normalize()
    folder = parent / f"{scale:f}"
    if not folder.exists():
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=parent, prefix="making-") as scratch:
            _run_generator(scale, Path(scratch) / "made")
            try:
                (Path(scratch) / "made").rename(folder)
            except OSError:
                # Another run was quicker: what it made is the same.
                if not folder.exists():
                    raise
    return Generated(scale, folder)


def _run_generator(scale: Decimal, into: Path) -> None:
    command = [_program(), "-s", f"{scale:f}", "-T", ",".join(TABLES), "-o", str(into), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (our own arguments)
    if done.returncode or not all((into / f"{table}.tbl").exists() for table in TABLES):
        message = f"{PROGRAM} made no orders (status {done.returncode}): {done.stderr.strip()[-500:]}"
        raise NotGeneratedError(message)


def _program() -> str:
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if found is None:
        raise NotGeneratedError(MISSING)
    return found
