"""TPC-H orders go through a layer once each, to the cent, over kills and second starts."""

from __future__ import annotations

import itertools
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.support.process import erp
from tests.system.test_crash import SUBMIT, let_leases_lapse

from erp.cli.demo import _key, tpch
from erp.cli.demo.children import ChildFailedError
from erp.cli.demo.client import Answer, DemoClient
from erp.cli.demo.tpch.generated import Generated, generate
from erp.cli.demo.tpch.lives import Lives
from erp.cli.demo.tpch.push import Push
from erp.cli.demo.tpch.stored import Stored

SCALE = Decimal("0.0001")
ORDERS, LINES = 150, 586


def database(data_dir: Path) -> Path:
    (found,) = (data_dir / "tenants" / "demo" / "db").rglob("*.sqlite3")
    return found


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(SCALE, tmp_path_factory.mktemp("tpch"))


def counts(data_dir: Path) -> tuple[int, int, int]:
    """Orders, lines and different references, as they stand in the file."""
    with closing(sqlite3.connect(database(data_dir))) as connection:
        sql = (
            "select (select count(*) from orders), (select count(*) from order_lines),"
            " (select count(distinct customer_reference) from orders)"
        )
        found: tuple[int, int, int] = connection.execute(sql).fetchone()
    return found


def demo(data_dir: Path, *options: str) -> tuple[int, str]:
    done = erp(
        *("demo", "--tpch", f"{SCALE:f}", "--port", "0", "--data-dir", str(data_dir), "--once", *options),
        timeout_seconds=55,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_orders_reconcile_and_a_second_start_adds_nothing_but_finds_what_was_changed(
    tmp_path: Path, orders: Generated
) -> None:
    shutil.copytree(orders.folder.parent, tmp_path / "tpch")
    status, said = demo(tmp_path)
    assert (status, counts(tmp_path)) == (0, (ORDERS, LINES, ORDERS)), said
    assert "It reconciles to the cent." in said
    assert re.search(r"orders +│ +150 │ +150 │ +0 ", said)
    assert re.search(r"revenue +│ +12,895,027.02 │ +12,895,027.02 │ +0.00 ", said)

    with closing(sqlite3.connect(database(tmp_path))) as connection, connection:
        connection.execute(
            "update order_lines set net = '0.01' where line_number = 1 and order_id ="
            " (select order_id from orders where customer_reference = 'TPCH-0.0001-7')"
        )
    status, said = demo(tmp_path)

    assert (status, counts(tmp_path)) == (1, (ORDERS, LINES, ORDERS)), said
    assert "150 orders are there from an earlier run" in said
    assert "TPCH-0.0001-7 should be 7 lines" in said


class DeadlyClient(DemoClient):
    """Has the layer killed while it asks for the orders in ``AT``."""

    AT: ClassVar = {30, 90}

    def __init__(self, lives: Lives, key: str, numbers: Iterator[int]) -> None:
        super().__init__(lives.address, key)
        self._lives = lives
        self._numbers = numbers

    def call(self, path: str, params: dict[str, Any], **headers: str) -> Answer:
        if path == SUBMIT and next(self._numbers) in self.AT:
            threading.Thread(target=self._lives.kill).start()
        return super().call(path, params, **headers)


def test_orders_reconcile_when_the_layer_is_killed_amid_them(
    tmp_path: Path, orders: Generated, capsys: pytest.CaptureFixture[str]
) -> None:
    lives = Lives(tmp_path, 0, on_killed=lambda: let_leases_lapse(tmp_path))
    numbers = itertools.count()
    try:
        key = _key(tmp_path)
        is_right = tpch.run(tpch.Journey(orders, lives, lambda: DeadlyClient(lives, key, numbers), concurrency=4))
    finally:
        lives.stop()
    assert (is_right, counts(tmp_path)) == (True, (ORDERS, LINES, ORDERS))
    assert "The layer was killed 2 times" in capsys.readouterr().out


def test_a_layer_is_killed_by_the_clock_and_comes_back_at_its_address(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 0, kill_every=0.1)
    try:
        key = _key(tmp_path)
        lives.begin_killing()
        deadline = time.monotonic() + 30
        while not lives.kills and time.monotonic() < deadline:
            time.sleep(0.01)
        lives.end_killing()
        lives.check()
        with closing(DemoClient(lives.address, key)) as client:
            assert client.send("GET", "/providers?limit=1").status == 200
    finally:
        lives.stop()
    assert lives.kills >= 1


def test_a_layer_that_ends_though_nobody_killed_it_is_reported(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 0)
    lives.check()
    lives.stop()
    with pytest.raises(ChildFailedError, match="ended with status 0"):
        lives.check()


def test_a_push_that_was_stopped_goes_on_where_it_was(tmp_path: Path, orders: Generated) -> None:
    lives = Lives(tmp_path, 0)
    try:
        key = _key(tmp_path)
        first = [submission for submission, _ in zip(orders.submissions(), range(40), strict=False)]
        Push(lambda: DemoClient(lives.address, key), iter(first), concurrency=4, on_answer=lambda: None).run()
        with closing(DemoClient(lives.address, key)) as client:
            assert Stored(client, orders.prefix).references() == {submission.reference for submission in first}
        # What was answered but not seen is sent again: the layer knows it.
        again: list[None] = []
        Push(
            lambda: DemoClient(lives.address, key), iter(first), concurrency=4, on_answer=lambda: again.append(None)
        ).run()
        assert (len(again), counts(tmp_path)[0]) == (40, 40)

        is_right = tpch.run(tpch.Journey(orders, lives, lambda: DemoClient(lives.address, key), concurrency=4))
    finally:
        lives.stop()
    assert (is_right, counts(tmp_path)) == (True, (ORDERS, LINES, ORDERS))


def test_killing_too_often_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    status, said = demo(tmp_path, "--kill-every", "0.01")
    assert (status, "Invalid value for '--kill-every'" in said) == (2, True)
    assert not (tmp_path / "tpch").exists()


def test_a_wrong_scale_is_refused_with_an_example(tmp_path: Path) -> None:
    done = erp("demo", "--tpch", "7", "--data-dir", str(tmp_path))
    assert (done.returncode, "for example 0.01" in done.stderr) == (2, True)


def test_killing_is_refused_without_orders_to_push(tmp_path: Path) -> None:
    done = erp("demo", "--kill-every", "1", "--data-dir", str(tmp_path))
    assert (done.returncode, "--kill-every belongs to --tpch" in done.stderr) == (2, True)
