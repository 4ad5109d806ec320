"""What a layer has stored of the orders, read back through the layer page by page."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from erp.cli.demo.client import DemoClient
from erp.cli.demo.tpch.generated import NOTHING, Sums

QUERY = "/providers/db/sqlite/query"
PAGE_ROWS = 5000
ATTEMPTS = 10
OK = 200

_REFERENCES = """
select customer_reference from orders
where customer_reference like ? and customer_reference > ? order by customer_reference limit ?
"""
_LINES = """
select o.customer_reference, l.line_number, l.discount, l.net, l.tax
from orders o join order_lines l on l.order_id = o.order_id
where o.customer_reference like ?
  and (o.customer_reference > ? or (o.customer_reference = ? and l.line_number > ?))
order by o.customer_reference, l.line_number limit ?
"""
_TOTALS = """
select customer_reference, total from orders
where customer_reference like ? and customer_reference > ? order by customer_reference limit ?
"""
_STEPS = """
select s.status, count(*) from order_steps s join orders o on o.order_id = s.order_id
where o.customer_reference like ? group by s.status
"""


class NotReadableError(RuntimeError):
    """The layer did not answer with what it has stored."""


class Stored:
    """The orders of one scale factor in the tenant's database."""

    def __init__(self, client: DemoClient, prefix: str) -> None:
        self._client = client
        self._like = f"{prefix}%"

    def references(self) -> set[str]:
        """Return the orders that are there; none when the service has made no tables yet."""
        return {row[0] for row in self._pages(_REFERENCES, lambda last: [last[0]], [""])}

    def sums(self) -> dict[str, Sums]:
        """Add up the lines of each order; an order without lines comes to nothing."""
        found = dict.fromkeys(self.references(), NOTHING)
        for reference, _, discount, net, tax in self._pages(
            _LINES, lambda last: [last[0], last[0], last[1]], ["", "", 0]
        ):
            found[reference] += Sums(1, Decimal(discount), Decimal(net), Decimal(tax))
        return found

    def totals(self) -> dict[str, Decimal]:
        """Return the total written at each order."""
        return {row[0]: Decimal(row[1]) for row in self._pages(_TOTALS, lambda last: [last[0]], [""])}

    def steps(self) -> dict[str, int]:
        """Count the steps that follow the orders, by status."""
        return {row[0]: row[1] for row in self._rows(_STEPS, [self._like])}

    def _pages(self, sql: str, continued: Callable[[list[Any]], list[Any]], after: list[Any]) -> Iterator[list[Any]]:
        """A page may be shorter than asked for, as answers are bounded in bytes too: only an empty one is the end."""
        while rows := self._rows(sql, [self._like, *after, PAGE_ROWS]):
            yield from rows
            after = continued(rows[-1])

    def _rows(self, sql: str, parameters: list[Any]) -> list[list[Any]]:
        """Reads are safe to repeat, also over the death of the layer."""
        params = {"sql": sql, "parameters": parameters, "max_rows": PAGE_ROWS}
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                answer = self._client.call(QUERY, params)
            except (OSError, http.client.HTTPException) as error:
                self._client.close()
                reason = str(error)
            else:
                if answer.status == OK:
                    rows: list[list[Any]] = answer.data["rows"]
                    return rows
                reason = str(answer.body.get("detail"))
                if "no such table" in reason:
                    return []
                if not answer.body.get("retryable"):
                    break
            time.sleep(min(0.1 * 2.0**attempt, 2.0))
        message = f"The layer did not say what it has stored: {reason}"
        raise NotReadableError(message)
