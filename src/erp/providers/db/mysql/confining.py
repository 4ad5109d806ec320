"""A tenant's statement confined to its rows, with the driver's placeholders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from erp.providers.db.mysql.spelling import respelled
from erp.vendor_clients.row_security.mysql import Found
from erp.vendor_clients.safe_sql.isolation import Isolation
from erp.vendor_clients.safe_sql.relations import TENANT, Relation, folded
from erp.vendor_clients.safe_sql.statements import PARAMETER
from erp.vendor_clients.sql.lexis import MYSQL, Kind, Token, refusal
from erp.vendor_clients.sql.placeholders import Placed


@dataclass(frozen=True, slots=True)
class Arranged(Placed):
    """A statement whose values stand in another order than the caller gave them, the tenant among them."""

    order: tuple[int, ...]
    """Number of the caller's value for each place, from 1; 0 stands for the tenant."""
    tenant: str

    def arranged(self, given: Sequence[Any]) -> list[Any]:
        """Return the values in the order of their places."""
        return [self.tenant if number == 0 else given[number - 1] for number in self.order]


class Confining:
    """Confines the statements of one tenant of a pool."""

    def __init__(
        self, views: str, found: Found, tenant: str, *, functions: Collection[str], tables: Collection[str] | None
    ) -> None:
        """With ``tables`` only these of the pool can be named."""
        names = [name for name in found.columns if name in found.isolated or name in found.shared]
        relations = {folded(name): _relation(views, name, found) for name in names if tables is None or name in tables}
        self._isolation = Isolation("mysql", relations, functions, respelled=respelled)
        self._tenant = tenant

    def confined(self, made: Placed, sql: str, *, writes: bool) -> Arranged:
        """Return ``sql`` confined to the tenant's rows.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        confined = self._isolation.confined(sql, writes=writes)
        text, order = _driven(confined.sql)
        return Arranged(text, confined.count, made.tokens, order, self._tenant)


def _relation(views: str, name: str, found: Found) -> Relation:
    column = found.isolated.get(name)
    visible = tuple(each for each in found.columns[name] if each != column)
    return Relation(
        name=name, columns=visible, tenant_column=None if column is None else folded(column), schema=folded(views)
    )


def _driven(sql: str) -> tuple[str, tuple[int, ...]]:
    """Return ``sql`` with the driver's ``%s`` for each ``:erp_...``, and which values they want."""
    tokens = MYSQL.tokens(sql)
    parts: list[str] = []
    order: list[int] = []
    place = 0
    for number, token in enumerate(tokens):
        if token.text == ":":
            name = _named(tokens, number)
            order.append(0 if name.text == TENANT else int(name.text.removeprefix(PARAMETER)))
            parts += [sql[place : token.start].replace("%", "%%"), "%s"]
            place = name.end
    return "".join([*parts, sql[place:].replace("%", "%%")]), tuple(order)


def _named(tokens: Sequence[Token], number: int) -> Token:
    following = tokens[number + 1] if number + 1 < len(tokens) else None
    if following is None or following.kind is not Kind.WORD or following.start != tokens[number].end:
        raise refusal("The statement is not understood.", "must have no colon outside strings")
    if following.text != TENANT and not following.text.removeprefix(PARAMETER).isdecimal():
        raise refusal("Only ? is a placeholder here.", "has a named placeholder")
    return following
