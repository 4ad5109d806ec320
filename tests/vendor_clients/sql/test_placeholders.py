"""A question mark becomes the driver's placeholder where it is one, and nowhere else."""

from __future__ import annotations

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.sql.lexis import MYSQL, POSTGRES, Lexis
from erp.vendor_clients.sql.placeholders import Style, colon, dollar, percent, placed, question


@pytest.mark.parametrize(
    ("lexis", "style", "sql", "expected", "count"),
    [
        (POSTGRES, dollar, "a = ? and b in (?,?)", "a = $1 and b in ($2,$3)", 3),
        (POSTGRES, dollar, "?::int + ?", "$1::int + $2", 2),
        (POSTGRES, dollar, "a = ?||'?'", "a = $1||'?'", 1),
        (POSTGRES, dollar, "a ?| ? and a ?& ? and a @? ?", "a ?| $1 and a ?& $2 and a @? $3", 3),
        (POSTGRES, dollar, "a ?? ? and b ?&& c", "a ? $1 and b $2&& c", 2),
        (POSTGRES, dollar, "'?' \"?\" $$?$$ /* ? */ -- ?", "'?' \"?\" $$?$$ /* ? */ -- ?", 0),
        (MYSQL, percent, "a like '50%' and b % ? = ?", "a like '50%%' and b %% %s = %s", 2),
        (MYSQL, colon, "a = ? or `?` = ?", "a = :p1 or `?` = :p2", 2),
        (MYSQL, question, "a % ? = '%'", "a % ? = '%'", 1),
    ],
)
def test_placeholders_are_translated(lexis: Lexis, style: Style, sql: str, expected: str, count: int) -> None:
    made = placed(sql, lexis, style)

    assert (made.sql, made.count) == (expected, count)


@pytest.mark.parametrize(("sql", "found"), [("a = $1", "$1"), ("a = ?1", "?1"), ("a = ?x", "?x")])
def test_placeholders_of_the_driver_are_refused(sql: str, found: str) -> None:
    with pytest.raises(ProviderError) as refused:
        placed(sql, POSTGRES, dollar)

    assert [(one.pointer, one.message) for one in refused.value.errors] == [("/params/sql", f"has {found}")]


def test_each_placeholder_needs_one_value() -> None:
    made = placed("select ?", POSTGRES, dollar)

    made.require(1)
    with pytest.raises(ProviderError) as refused:
        made.require(2, "/params/statements/3/parameters")

    (wrong,) = refused.value.errors
    assert (wrong.pointer, wrong.message) == ("/params/statements/3/parameters", "has 2 values for 1 placeholders")
