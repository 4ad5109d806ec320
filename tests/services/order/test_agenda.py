"""Each order stands on the agenda once, at its earliest."""

from __future__ import annotations

from erp.services.order.agenda import Agenda

A, B = ("acme", "ord_a"), ("acme", "ord_b")


def test_the_longest_due_comes_first_and_none_before_its_time() -> None:
    agenda = Agenda()
    agenda.put(A, 2.0)
    agenda.put(B, 1.0)

    assert (agenda.next_due(), agenda.take(0.5)) == (1.0, None)
    assert [agenda.take(5.0), agenda.take(5.0), agenda.take(5.0)] == [B, A, None]
    assert agenda.next_due() is None


def test_an_order_put_twice_comes_once_at_the_earlier_time() -> None:
    agenda = Agenda()
    agenda.put(A, 5.0)
    agenda.put(A, 1.0)
    agenda.put(A, 3.0)

    assert (len(agenda), A in agenda, agenda.next_due()) == (1, True, 1.0)
    assert [agenda.take(9.0), agenda.take(9.0)] == [A, None]
    assert (len(agenda), A in agenda) == (0, False)


def test_an_order_taken_can_be_put_again_later() -> None:
    agenda = Agenda()
    agenda.put(A, 1.0)
    agenda.put(A, 0.5)
    assert agenda.take(1.0) == A
    agenda.put(A, 7.0)
    assert (agenda.take(1.0), agenda.next_due(), agenda.take(7.0)) == (None, 7.0, A)
