"""The tables a statement may name, and what of them a tenant sees."""

from __future__ import annotations

import string
from dataclasses import dataclass

from sqlglot import exp

TENANT = "erp_tenant"
"""The parameter that holds the tenant."""
_FOLDING = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def folded(name: str) -> str:
    """Return ``name`` as engines compare it: only ASCII letters lose their case."""
    return name.translate(_FOLDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table of the engine. Names are as the engine has them; ``tenant_column`` folded."""

    name: str
    columns: tuple[str, ...]
    """What the tenant sees: all but the tenant's column."""
    tenant_column: str | None = None
    """None where all rows are the tenant's."""
    schema: str = "main"
    source: str = ""
    """What is read instead of the table, such as a view of the same rows; then in ``source_schema``."""
    source_schema: str = ""
    likelihood: str = ""
    """Which part of the rows a planner shall take for the tenant's, for one that has the function ``likelihood``."""

    def filtered(self) -> exp.Select:
        """Return the query of this tenant's rows."""
        source = exp.Table(
            this=exp.to_identifier(self.source or self.name, quoted=True),
            db=exp.to_identifier(self.source_schema or self.schema, quoted=True),
        )
        chosen = exp.Select(
            expressions=[exp.Column(this=exp.to_identifier(name, quoted=True)) for name in self.columns],
            where=exp.Where(this=self.condition()),
        )
        chosen.set("from_", exp.From(this=source))
        return chosen

    def condition(self, alias: str | None = None) -> exp.Expr:
        """Return what holds for this tenant's rows alone."""
        column = exp.Column(this=exp.to_identifier(self.tenant_column, quoted=True))
        if alias is not None:
            column.set("table", exp.to_identifier(alias, quoted=True))
        own = exp.EQ(this=column, expression=exp.Placeholder(this=TENANT))
        if not self.likelihood:
            return own
        return exp.Anonymous(this="likelihood", expressions=[own, exp.Literal.number(self.likelihood)])
