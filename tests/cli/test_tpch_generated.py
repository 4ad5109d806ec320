"""Generated orders become submissions that the layer prices to the same cent as the files themselves."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from erp.cli.demo import tpch
from erp.cli.demo.tpch import generated
from erp.cli.demo.tpch.generated import Generated, NotGeneratedError, Sums, generate
from erp.contracts.models.order import SubmitRequest
from erp.services.order.validation import priced

ORDERS = """\
1|37|O|5.00|1996-01-02|5-LOW|Clerk#000000951|0|nstructions sleep|
7|1499|F|5.00|1993-10-14|5-LOW|Clerk#000000955|0|sly final|
"""
LINES = """\
1|156|4|1|17|17954.55|0.04|0.02|N|O|1996-03-13|1996-02-12|1996-03-22|DELIVER IN PERSON|TRUCK|egular|
1|68|9|2|3|0.30|0.05|0.05|N|O|1996-04-12|1996-02-28|1996-04-20|TAKE BACK RETURN|MAIL|ly final|
7|64|5|3|8|7712.48|0.00|0.08|N|O|1996-01-29|1996-03-05|1996-01-31|TAKE BACK RETURN|REG AIR|riously|
"""


@pytest.fixture
def files(tmp_path: Path) -> Generated:
    (tmp_path / "orders.tbl").write_text(ORDERS)
    (tmp_path / "lineitem.tbl").write_text(LINES)
    return Generated(Decimal("0.01"), tmp_path)


def test_lines_are_added_up_with_discount_and_tax_rounded_half_up(files: Generated) -> None:
    # 17954.55 x 0.04 = 718.182; (17954.55 - 718.18) x 0.02 = 344.7274; 0.30 x 0.05 = 0.015; 0.28 x 0.05 = 0.014
    assert files.sums() == {
        "TPCH-0.01-1": Sums(2, Decimal("718.20"), Decimal("17236.65"), Decimal("344.74")),
        "TPCH-0.01-7": Sums(1, Decimal("0.00"), Decimal("7712.48"), Decimal("617.00")),
    }


def test_a_submission_names_the_order_the_same_way_in_every_run(files: Generated) -> None:
    first, second = files.submissions()
    assert (first.reference, first.idempotency_key) == ("TPCH-0.01-1", "order:TPCH-0.01-1")
    assert second.params == {
        "customer_reference": "TPCH-0.01-7",
        "customer": {"id": "C-1499", "name": "Customer#000001499"},
        "currency": "USD",
        "order_date": "1993-10-14",
        "lines": [
            {
                "line_number": 3,
                "sku": "PART-64",
                "quantity": "8",
                "unit_price": "964.06",
                "discount": "0.00",
                "tax_rate": "0.08",
            }
        ],
        "total": "8329.48",
        "note": "sly final",
    }


def test_files_that_do_not_fit_together_are_refused(files: Generated) -> None:
    (files.folder / "lineitem.tbl").write_text(LINES.replace("7|64", "8|64"))
    with pytest.raises(NotGeneratedError, match="Delete the folder; it is made again"):
        files.sums()


def test_the_layer_prices_every_generated_order_as_the_files_say(tmp_path: Path) -> None:
    orders = generate(Decimal("0.0001"), tmp_path)
    sums = orders.sums()
    assert len(sums) == 150
    for submission in orders.submissions():
        order = priced(msgspec.convert(submission.params, SubmitRequest))
        expected = sums[submission.reference]
        assert (len(order.lines), order.net_total, order.tax_total) == (expected.lines, expected.revenue, expected.tax)


def test_what_was_generated_is_not_generated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0.0001").mkdir()
    monkeypatch.setattr(generated, "_program", lambda: pytest.fail("the generator ran again"))
    assert generate(Decimal("0.00010"), tmp_path) == generate(Decimal("1E-4"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0.0001"]


def test_a_missing_generator_is_named_with_the_way_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "PROGRAM", "tpchgen-that-nobody-has")
    with pytest.raises(NotGeneratedError, match=r"pip install 'erp-provider-layer\[tpch\]'"):
        generate(Decimal("0.0001"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_generator_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "_program", lambda: "/bin/false")
    with pytest.raises(NotGeneratedError, match="made no orders"):
        generate(Decimal("0.0001"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["0", "-1", "1.01", "small", "NaN", "Infinity", ""])
def test_a_scale_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="for example"):
        tpch.scale_of(text)


def test_a_scale_is_taken_exactly() -> None:
    assert tpch.scale_of("0.01") == Decimal("0.01")
