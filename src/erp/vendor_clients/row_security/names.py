"""Names of tables, columns and roles as an operator writes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_PREFIX = "erp_vectors_"
_MAX_NAME = 63 - len("_words")
"""Of a table that has indexes named after it (PostgreSQL 4.1.1: 63 bytes)."""


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table in its schema."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str, schema: str) -> TableName:
        """Read ``table`` or ``schema.table``.

        Raises:
            ValueError: for an empty part, or more than two.
        """
        parts = text.split(".")
        if len(parts) > 2 or not all(parts):  # noqa: PLR2004  (schema and table)
            message = f"{text!r} is not a table: write table or schema.table"
            raise ValueError(message)
        return cls(parts[0] if len(parts) > 1 else schema, parts[-1])

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def quoted(name: str, opening: str = '"', closing: str = '"') -> str:
    """Return ``name`` as an identifier in a statement."""
    return opening + name.replace(closing, closing * 2) + closing


def collection_table(collection: str) -> str:
    """Return the name of the table of a collection of vectors."""
    name = _PREFIX + collection
    return name if len(name) <= _MAX_NAME else _PREFIX + hashlib.sha256(collection.encode()).hexdigest()[:32]
