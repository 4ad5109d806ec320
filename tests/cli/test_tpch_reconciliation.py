"""What is stored is compared with what was generated, order by order and in sum."""

from __future__ import annotations

from decimal import Decimal

from erp.cli.demo.tpch.generated import Sums
from erp.cli.demo.tpch.reconciliation import reconciled, shown_differences

ONE = Sums(2, Decimal("1.00"), Decimal("10.00"), Decimal("0.50"))
TWO = Sums(1, Decimal("0.00"), Decimal("5.00"), Decimal("0.25"))
RIGHT = {"A": ONE, "B": TWO}
TOTALS = {"A": Decimal("10.50"), "B": Decimal("5.25")}


def test_the_same_orders_reconcile() -> None:
    found = reconciled(RIGHT, dict(RIGHT), TOTALS)
    assert found.is_right
    assert {figure.name: figure.stored for figure in found.figures} == {
        "orders": 2,
        "lines": 3,
        "discount": Decimal("1.00"),
        "revenue": Decimal("15.00"),
        "tax": Decimal("0.75"),
        "total of the lines": Decimal("15.75"),
        "total of the orders": Decimal("15.75"),
    }


def test_a_lost_order_is_named() -> None:
    found = reconciled(RIGHT, {"A": ONE}, {"A": Decimal("10.50")})
    assert (found.is_right, found.differences) == (False, ["B is not there"])


def test_an_order_nobody_generated_is_named() -> None:
    found = reconciled({"A": ONE}, RIGHT, TOTALS)
    assert (found.is_right, found.differences) == (False, ["B was never generated"])


def test_errors_that_cancel_out_in_the_sums_are_found() -> None:
    """A cent too much here and a cent too little there are two errors."""
    one = Sums(2, Decimal("1.00"), Decimal("10.01"), Decimal("0.50"))
    two = Sums(1, Decimal("0.00"), Decimal("4.99"), Decimal("0.25"))
    found = reconciled(RIGHT, {"A": one, "B": two}, TOTALS)
    assert all(figure.computed == figure.stored for figure in found.figures)
    assert found.is_right is False
    assert found.differences[0] == (
        "A should be 2 lines, discount 1.00, revenue 10.00, tax 0.50,"
        " but is 2 lines, discount 1.00, revenue 10.01, tax 0.50"
    )
    assert len(found.differences) == 2


def test_a_total_that_its_lines_do_not_have_is_found() -> None:
    found = reconciled(RIGHT, dict(RIGHT), TOTALS | {"B": Decimal("5.26")})
    assert (found.is_right, found.differences) == (False, ["B should have the total 5.25, but has 5.26"])


def test_only_the_first_differences_are_shown() -> None:
    found = reconciled({str(number): ONE for number in range(8)}, {}, {})
    assert shown_differences(found).splitlines()[-1] == "and 3 more"
