"""What the manifest of a database says about its SQL, held against the engine."""

from __future__ import annotations

import json
from typing import Any

from erp.errors import ProviderError
from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.cases.db import execute, names_in, new_table, rows_of

LEVELS = ("read_committed", "repeatable_read", "snapshot", "serializable")
LONG = "x" * 1_000_000
BIG = 2**53 + 1
DOCUMENT = {"a": "x", "b": [1, None]}
UUID = "123e4567-e89b-12d3-a456-426614174000"
VALUES: dict[str, tuple[Any, Any]] = {
    "boolean": (True, True),
    "integer": (-(2**31), -(2**31)),
    "big_integer": (BIG, BIG),
    "decimal": ({"$decimal": "12345678901234.5678"}, "12345678901234.5678"),
    "real": (1.25, 1.25),
    "text": (LONG, LONG),
    "binary": ({"$bytes": "AAH/"}, {"$bytes": "AAH/"}),
    "date": ({"$date": "2026-02-28"}, "2026-02-28"),
    "uuid": ({"$uuid": UUID}, UUID),
}
"""Kind -> what goes in, what comes back."""
BEGINNINGS = {
    "time": ("10:11:12.5", "10:11:12.5"),
    "timestamp": ({"$datetime": "2026-02-28T10:11:12.125+00:00"}, "2026-02-28T10:11:12.125"),
}
"""Kind -> what goes in, what it begins with when it comes back: engines differ in zeros after the point and zones."""
RETURNING = {
    "insert": "insert into {table} (id, name) values (9, 'r') returning id, name",
    "update": "update {table} set name = 'r' where id = 1 returning id, name",
    "delete": "delete from {table} where id = 2 returning id, name",
}
RETURNED = {"insert": [[9, "r"]], "update": [[1, "r"]], "delete": [[2, "n2"]]}


async def _stored(bench: Bench, kind: str, value: Any) -> Any:
    """Put a value into a column of its kind and read it back."""
    table = bench.unique("conformance").replace("-", "_")
    await execute(bench, f"create table {table} (id integer primary key, v {bench.manifest.sql['types'][kind]})")
    await execute(bench, f"insert into {table} (id, v) values (1, ?)", value)  # noqa: S608  (own words)
    ((found,),) = await rows_of(bench, f"select v from {table}")  # noqa: S608  (own words)
    return found


@case("DB-80", needs="sql")
async def every_listed_type_keeps_its_values(bench: Bench) -> None:
    """A value of each kind MUST come back the same from a column of the type that the manifest lists for it."""
    for kind, (value, expected) in VALUES.items():
        found = await _stored(bench, kind, value)
        require(found == expected, f"{kind}: {str(value)[:60]} came back as {str(found)[:60]}")
    for kind, (value, beginning) in BEGINNINGS.items():
        found = await _stored(bench, kind, value)
        require(str(found).startswith(beginning), f"{kind}: {value} came back as {str(found)[:60]}")


@case("DB-81", needs="sql")
async def the_listed_upsert_adds_and_changes(bench: Bench) -> None:
    """The manifest's ``upsert`` MUST add a row whose id is new, and change the name of one whose id is there."""
    table = await new_table(bench, rows=1)
    upsert = bench.manifest.sql["upsert"].format(table=table)
    await execute(bench, upsert, 2, "added")
    await execute(bench, upsert, 1, "changed")
    require(await names_in(bench, table) == [[1, "changed"], [2, "added"]], f"left {await names_in(bench, table)}")


@case("DB-82", needs="sql")
async def changes_return_rows_where_listed(bench: Bench) -> None:
    """A change with RETURNING MUST answer its rows where ``returning`` lists it, and otherwise be refused and change nothing."""
    listed = bench.manifest.sql["returning"]
    for kind, sql in RETURNING.items():
        table = await new_table(bench, rows=2)
        try:
            answer = await execute(bench, sql.format(table=table))
        except ProviderError as error:
            require(kind not in listed, f"{kind} with RETURNING was refused: {error}")
            require(error.code in {"invalid_argument", "unsupported"}, f"{kind} was refused with {error.code}")
            require(await names_in(bench, table) == [[1, "n1"], [2, "n2"]], f"a refused {kind} changed something")
        else:
            require(kind in listed, f"{kind} with RETURNING is not listed, and was answered")
            require(answer.get("rows") == RETURNED[kind], f"{kind} returned {answer.get('rows')}")
            require(answer["rows_affected"] == 1, f"{kind} affected {answer['rows_affected']}")


@case("DB-83", needs="sql")
async def the_listed_expression_reads_json(bench: Bench) -> None:
    """A JSON document MUST come back whole, and the manifest's ``json`` expression MUST answer a member's text."""
    table = bench.unique("conformance").replace("-", "_")
    await execute(bench, f"create table {table} (id integer primary key, doc {bench.manifest.sql['types']['json']})")
    await execute(bench, f"insert into {table} (id, doc) select 1, {_document(bench)}", json.dumps(DOCUMENT))
    expression = bench.manifest.sql["json"].format(column="doc")
    ((document, member),) = await rows_of(bench, f"select doc, {expression} from {table}")  # noqa: S608  (own words)
    require(json.loads(document) == DOCUMENT, f"the document came back as {document}")
    require(member == "x", f"{expression} answered {member!r}")


def _document(bench: Bench) -> str:
    return "parse_json(?)" if bench.manifest.sql["types"]["json"] == "variant" else "?"


@case("DB-84", needs="sql", capability="isolation_levels")
async def isolation_levels_are_those_listed(bench: Bench) -> None:
    """``begin`` MUST accept each isolation level that is listed, for reading and for changing, and refuse others with ``unsupported``."""
    listed = bench.manifest.sql["isolation_levels"]
    for level in LEVELS:
        for read_only in (False, True):
            params = {"isolation": level, "read_only": read_only}
            if level not in listed:
                await bench.refused("unsupported", "begin", params)
                continue
            handle = (await bench.call("begin", params))["transaction"]
            await rows_of(bench, "select 1", transaction=handle)
            await bench.call("rollback", {"transaction": handle})


@case("DB-85", needs="sql", capability="transactions")
async def a_transaction_undoes_schema_changes_where_listed(bench: Bench) -> None:
    """With ``transactional_schema`` a table made in a transaction MUST be gone after ``rollback``; without, making one is refused there."""
    table = bench.unique("conformance").replace("-", "_")
    kept = await new_table(bench)
    handle = (await bench.call("begin", {}))["transaction"]
    await execute(bench, f"insert into {kept} (id, name) values (1, 'x')", transaction=handle)  # noqa: S608  (own words)
    create = {"sql": f"create table {table} (id integer primary key)", "transaction": handle}
    if bench.manifest.sql["transactional_schema"]:
        await bench.call("execute", create)
    else:
        await bench.refused("failed_precondition", "execute", create)
    await bench.call("rollback", {"transaction": handle})
    await bench.refused("not_found", "metadata", {"table": table})
    require(await names_in(bench, kept) == [], "the transaction was committed on the way")


@case("DB-86", needs="sql")
async def names_are_as_long_as_listed(bench: Bench) -> None:
    """A table's name of the listed length MUST be kept whole; a longer one is refused or cut. Without a limit 200 bytes are kept."""
    limit = bench.manifest.sql["limits"]["name_length"]
    unique = bench.unique("t").replace("-", "_")
    name = unique + "x" * ((limit or 200) - len(unique))
    await execute(bench, f"create table {name} (id integer primary key)")
    (table,) = (await bench.call("metadata", {"table": name}))["tables"]
    require(table["name"] == name, f"the name became {table['name']}")
    if limit is None:
        return
    try:
        await execute(bench, f"create table y{name} (id integer primary key)")
    except ProviderError as error:
        require(error.code == "invalid_argument", f"a name that is too long was answered {error.code}")
    await bench.refused("not_found", "metadata", {"table": f"y{name}"})


@case("DB-87", needs="sql")
async def statements_have_as_many_parameters_as_listed(bench: Bench) -> None:
    """A statement MUST take as many parameters as the manifest lists."""
    count = bench.manifest.sql["limits"]["parameters"]
    table = await new_table(bench, rows=3)
    marks = ",".join("?" * (count - 1))
    change = f"update {table} set name = ? where id in ({marks})"  # noqa: S608  (own words)
    answer = await execute(bench, change, "many", *range(2, count + 1))
    require(answer["rows_affected"] == 2, f"{answer['rows_affected']} rows were found")  # noqa: PLR2004  (rows 2 and 3)


@case("DB-88", needs="sql")
async def tenants_share_tables_only_where_listed(bench: Bench) -> None:
    """Where ``row_level_security`` is none, a connection to shared tables (mode pooled) MUST be refused; else the mode is offered."""
    offered = "pooled" in (bench.manifest.config["properties"].get("mode") or {}).get("enum", [])
    declared = bench.manifest.sql["row_level_security"] != "none"
    require(offered == declared, f"mode pooled is {'' if offered else 'not '}offered")
    if not declared:
        status, _ = await bench.connect(config={**bench.config, "mode": "pooled"})
        require(status == 400, f"mode pooled was answered {status}")  # noqa: PLR2004  (HTTP Bad Request)
