"""Tables: made at the target in its dialect, then compared and mended row by row in the order of their keys."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erp.cli.migrate.passes import Advance, MigrationError, Tally
from erp.cli.migrate.rows import Rows, Statement
from erp.cli.migrate.schema import Table, Writer, dialect_of, in_order
from erp.cli.migrate.side import CallError, Side, persevere
from erp.cli.migrate.values import Kind, canonical

if TYPE_CHECKING:
    from erp.cli.migrate.journal import Journal

CHUNK = 500

UNTOLD = "checks, triggers, grants and partial indexes: metadata does not tell of them"


@dataclass
class _Pair:
    """A table at both sides."""

    source: Table
    target: Table
    kinds: list[Kind]
    here: Rows
    there: Rows
    key: list[str]
    """What tells rows apart; empty: nothing does."""

    @classmethod
    def of(cls, sides: tuple[Side, Side], source: Table, target: Table) -> _Pair:
        is_same = source.dialect == target.dialect == "sqlite"  # any value stands in any column there
        columns = {column["name"]: column for column in target.facts["columns"]}
        kinds: list[Kind] = ["any" if is_same else target.kind_of(columns[name]) for name in source.columns]
        own: list[Kind] = ["any" if is_same else source.kind_of(column) for column in source.facts["columns"]]
        aimed = Table(
            {**target.facts, "columns": [columns[name] for name in source.columns], "primary_key": source.key},
            target.dialect,
        )
        here, there = Rows(sides[0], source, own), Rows(sides[1], aimed, kinds)
        key = source.key
        if key and source.dialect == "sqlite" and persevere(here.has_null_in_key):
            key = []
        return cls(source, aimed, kinds, here, there, key)

    @property
    def is_inexact(self) -> bool:
        """Whether the source may write a key in another way than the target, so that it is not found as it is."""
        kinds = dict(zip(self.source.columns, self.kinds, strict=True))
        return not all(kinds[name] in {"any", "int", "text", "uuid"} for name in self.key)

    def forms(self, row: Sequence[Any], columns: Sequence[str] | None = None) -> list[Any]:
        """Return a row of either side as it is compared."""
        names = columns or self.source.columns
        kinds = dict(zip(self.source.columns, self.kinds, strict=True))
        return [
            canonical(value, kinds[name], f"{self.source.name}.{name}") for name, value in zip(names, row, strict=True)
        ]

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the key of a whole row."""
        return tuple(_hashable(row[self.source.columns.index(name)]) for name in self.key)

    def checksum(self, forms: Sequence[Any]) -> bytes:
        """Return one checksum over a row."""
        return hashlib.sha256(json.dumps([self.source.name, forms], ensure_ascii=False).encode()).digest()


def _hashable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


class DatabaseCopier:
    """Copies tables between two connections of ``db``."""

    def __init__(self, source: Side, target: Side, journal: Journal) -> None:
        self._sides = (source, target)
        self._journal = journal
        self._tables: list[Table] = []
        self._writer = Writer("")
        self._existing: dict[str, Table] = {}

    def check(self) -> list[str]:
        found = self._described(self._sides[0])
        views = [one.name for one in found if one.facts["kind"] == "view"]
        self._tables = in_order([one for one in found if one.facts["kind"] == "table"])
        doubled = [name for name, count in Counter(one.name for one in self._tables).items() if count > 1]
        if doubled:
            raise MigrationError(
                f"Tables of several schemas have the same name: {', '.join(doubled)}. Move one schema at a time."
            )
        target = self._described(self._sides[1])
        self._existing = {one.name: one for one in target}
        self._writer = Writer(self._dialect(self._sides[1]))
        for table in self._tables:
            self._writer.create(table)
            self._writer.indexes(table)
            self._refuse_unfit(table)
        lost, self._writer.lost = [*self._writer.lost], []
        return [*lost, *(f"view {name}" for name in views), UNTOLD]

    def _refuse_unfit(self, table: Table) -> None:
        present = self._existing.get(table.name)
        missing = sorted(set(table.columns) - set(present.columns)) if present else []
        if missing:
            message = f"The table {table.name} is at {self._sides[1].name} already, without {', '.join(missing)}. How to fix: add the columns, or remove the table."
            raise MigrationError(message)
        if not table.key and "streaming" not in self._sides[0].capabilities & self._sides[1].capabilities:
            message = f"The table {table.name} has no key, and {self._sides[0].ref} or {self._sides[1].ref} cannot stream rows. How to fix: give it a primary key."
            raise MigrationError(message)

    def is_empty(self) -> bool:
        pairs = [self._pair(one) for one in self._tables if one.name in self._existing]
        return not any(persevere(pair.there.any) for pair in pairs)

    def plan(self) -> dict[str, int]:
        source = self._sides[0]
        return {one.name: persevere(Rows(source, one, ["any"] * len(one.columns)).count) for one in self._tables}

    def copy(self, number: int, advance: Advance) -> dict[str, Tally]:
        pairs = [self._made(table) for table in self._tables]
        tallies = {pair.source.name: self._upserted(pair, number, advance) for pair in pairs}
        for pair in reversed(pairs):
            if pair.key:
                self._remove_others(pair, tallies[pair.source.name])
        self._finish(pairs)
        return tallies

    def fingerprint(self) -> dict[str, int]:
        found = {}
        for table in self._tables:
            pair, tally = self._pair(table), Tally()
            for chunk in self._chunks(pair, None):
                for row in chunk:
                    tally.add(pair.checksum(pair.forms(row)))
            found[table.name] = tally.digest
        return found

    # -- the schema ------------------------------------------------------------------------------

    def _dialect(self, side: Side) -> str:
        return dialect_of(persevere(side.call, "metadata", {"limit": 1})["engine"])

    def _described(self, side: Side) -> list[Table]:
        found, dialect = list[Table](), self._dialect(side)
        cursor: str | None = None
        while True:
            params = {"cursor": cursor} if cursor else {}
            page = persevere(side.call, "metadata", params)
            found += [Table(facts, dialect) for facts in page["tables"]]
            cursor = page.get("next_cursor")
            if cursor is None:
                return found

    def _made(self, table: Table) -> _Pair:
        """Return a table at both sides; make it at the target when it is missing."""
        if table.name not in self._existing:
            self._define(self._writer.create(table))
            [self._existing[table.name]] = [one for one in self._described(self._sides[1]) if one.name == table.name]
        return self._pair(table)

    def _pair(self, table: Table) -> _Pair:
        return _Pair.of(self._sides, table, self._existing[table.name])

    def _define(self, statement: str) -> None:
        """Run a statement of the schema; one whose answer was lost may have been done."""
        self._sides[1].call("execute", {"sql": statement})

    def _finish(self, pairs: Sequence[_Pair]) -> None:
        """Add what would have been in the way of rows: indexes, foreign keys, where numbering goes on. Once each."""
        for pair in pairs:
            statements = [*self._writer.indexes(pair.source), *self._writer.foreign_keys(pair.source)]
            for statement in statements:
                name = f"made:{hashlib.sha256(statement.encode()).hexdigest()}"
                if not self._journal.fact(name):
                    self._define_once(statement)
                    self._journal.note(name, value=True)
            self._number_on(pair)

    def _define_once(self, statement: str) -> None:
        """Define something; that it is there already is as good: a run may have been killed just after."""
        try:
            self._define(statement)
        except CallError as error:
            if "already exists" not in str(error).lower() and error.code != "already_exists":
                raise

    def _number_on(self, pair: _Pair) -> None:
        if pair.source.counted is not None:
            highest = persevere(pair.there.highest, pair.source.counted)
            statement = self._writer.restart(pair.source, highest)
            if statement is not None:
                self._define(statement)

    # -- the rows --------------------------------------------------------------------------------

    def _upserted(self, pair: _Pair, number: int, advance: Advance) -> Tally:
        place = f"table:{number}:{pair.source.name}"
        kept = self._journal.fact(place, {"after": None, "tally": {}, "done": False})
        tally = Tally(**kept["tally"])
        if kept["done"]:
            return tally
        if not pair.key:
            tally = self._replaced(pair)
            self._journal.note(place, {"after": None, "tally": vars(tally), "done": True})
            return tally
        total, after = persevere(pair.here.count), kept["after"]
        while chunk := persevere(self._mended, pair, after):
            checksums, copied, after = chunk
            for one in checksums:
                tally.add(one)
            tally.copied += copied
            self._journal.note(place, {"after": after, "tally": vars(tally), "done": False})
            advance(pair.source.name, tally.compared, total)
        self._journal.note(place, {"after": after, "tally": vars(tally), "done": True})
        return tally

    def _mended(self, pair: _Pair, after: Sequence[Any] | None) -> tuple[list[bytes], int, list[Any]] | None:
        """Make the next rows at the target what they are at the source; None when there are no more."""
        rows = pair.here.after(after, CHUNK, pair.source.columns)
        if not rows:
            return None
        last = [rows[-1][pair.source.columns.index(name)] for name in pair.key]
        forms = [pair.forms(row) for row in rows]
        keys = [[row[pair.source.columns.index(name)] for name in pair.key] for row in forms]
        present = {pair.key_of(one): one for one in map(pair.forms, pair.there.with_keys(keys, pair.source.columns))}
        missing = [row for row in forms if pair.key_of(row) not in present]
        different = [row for row in forms if pair.key_of(row) in present and present[pair.key_of(row)] != row]
        statements: list[Statement] = [*pair.there.inserts(missing), *map(pair.there.update, different)]
        pair.there.run(statements)
        return [pair.checksum(row) for row in forms], len(missing) + len(different), last

    def _remove_others(self, pair: _Pair, tally: Tally) -> None:
        """Remove what is no longer at the source: rows of the target whose key is not there."""
        if persevere(pair.there.count) <= persevere(pair.here.count):
            return
        present = self._keys(pair) if pair.is_inexact else None
        after: list[Any] | None = None
        while rows := persevere(pair.there.after, after, CHUNK, pair.key):
            forms = [pair.forms(row, pair.key) for row in rows]
            found = persevere(self._found, pair, forms) if present is None else present
            gone = [row for row in forms if tuple(map(_hashable, row)) not in found]
            if gone:
                persevere(pair.there.run, pair.there.removals(gone))
                tally.removed += len(gone)
            after = forms[-1]

    def _found(self, pair: _Pair, keys: list[list[Any]]) -> set[tuple[Any, ...]]:
        """Return those of the keys that are at the source."""
        rows = pair.here.with_keys(keys, pair.key)
        return {tuple(map(_hashable, pair.forms(row, pair.key))) for row in rows}

    def _keys(self, pair: _Pair) -> set[tuple[Any, ...]]:
        """Return all keys of the source."""
        found, after = set[tuple[Any, ...]](), None
        while rows := persevere(pair.here.after, after, CHUNK, pair.key):
            found |= {tuple(map(_hashable, pair.forms(row, pair.key))) for row in rows}
            after = rows[-1]
        return found

    def _chunks(self, pair: _Pair, after: Sequence[Any] | None) -> Iterator[list[list[Any]]]:
        if not pair.key:
            yield list(pair.here.stream())
            return
        while rows := persevere(pair.here.after, after, CHUNK, pair.source.columns):
            after = [rows[-1][pair.source.columns.index(name)] for name in pair.key]
            yield rows

    def _replaced(self, pair: _Pair) -> Tally:
        """Compare a table whose rows nothing tells apart as a whole, and write it anew when it differs."""
        tally, here, there = Tally(), Counter[bytes](), Counter[bytes]()
        for row in pair.here.stream():
            checksum = pair.checksum(pair.forms(row))
            tally.add(checksum)
            here[checksum] += 1
        there.update(pair.checksum(pair.forms(row)) for row in pair.there.stream())
        if here != there:
            tally.removed = (there - here).total()
            tally.copied = (here - there).total()
            self._write_anew(pair)
        return tally

    def _write_anew(self, pair: _Pair) -> None:
        pair.there.run([pair.there.clear()])
        batch: list[list[Any]] = []
        for row in pair.here.stream():
            batch.append(pair.forms(row))
            if len(batch) == CHUNK:
                pair.there.run(pair.there.inserts(batch))
                batch = []
        pair.there.run(pair.there.inserts(batch))
