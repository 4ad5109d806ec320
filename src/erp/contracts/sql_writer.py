"""Writes the reference page about the SQL of each database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erp.contracts.authored import Authored

_INTRODUCTION = """# SQL of each engine

For whoever writes statements for several engines. All this stands in the `sql` section of each provider's manifest, and the conformance
suite holds it against the engine (DB-80 to DB-88). *Declared* means that no engine has answered; the levels are those of the
[capability matrix](capabilities.md). A placeholder is `?` everywhere.
"""
_SECURITY = {
    "engine": "by the engine",
    "rewriting": "by rewriting, under a barrier of the engine",
    "none": "not offered",
}


def page(authored: Authored, proof: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page, without the note that it is generated; ``proof`` is the ledger."""
    found = {ref: item["sql"] for ref, item in authored.manifests.items() if "sql" in item}
    schema = authored.schemas["provider_manifest"]["properties"]["sql"]["properties"]
    proven = "| Proven | " + " | ".join(_proven(proof.get(ref, {}).get("levels", {})) for ref in found) + " |"
    lines = [_INTRODUCTION, *_table("What", found, _facts()), proven]
    lines += ["", "## Types", "", schema["types"]["description"], ""]
    kinds = {
        f"`{kind}`: {each['description'].rstrip('.')}": lambda sql, kind=kind: f"`{sql['types'][kind]}`"
        for kind, each in schema["types"]["properties"].items()
    }
    lines += _table("Kind", found, kinds)
    for title, key in (("Upsert", "upsert"), ("A member of a JSON document", "json"), ("Row estimates", "statistics")):
        lines += ["", f"## {title}", "", schema[key]["description"], "", "| Provider | SQL |", "|---|---|"]
        lines += [f"| `{ref}` | {_code(sql[key])} |" for ref, sql in found.items()]
    return "\n".join(lines) + "\n"


def _facts() -> Mapping[str, Callable[[dict[str, Any]], str]]:
    return {
        "Dialect": lambda sql: sql["dialect"],
        "Changes that return rows": lambda sql: ", ".join(sql["returning"]) or "none",
        "Isolation levels to choose": lambda sql: (
            ", ".join(f"`{level}`" for level in sql["isolation_levels"]) or "none"
        ),
        "A transaction undoes schema changes": lambda sql: (
            "yes" if sql["transactional_schema"] else "no: refused in one"
        ),
        "Tenants in shared tables are kept apart": lambda sql: _SECURITY[sql["row_level_security"]],
        "Longest name of a table": lambda sql: _bytes(sql["limits"]["name_length"]),
        "Parameters of a statement": lambda sql: f"{sql['limits']['parameters']:,}",
    }


def _proven(levels: Mapping[str, str]) -> str:
    return max(levels.values(), default="declared")


def _bytes(length: int | None) -> str:
    return "no limit" if length is None else f"{length} bytes"


def _table(
    title: str, found: Mapping[str, dict[str, Any]], rows: Mapping[str, Callable[[dict[str, Any]], str]]
) -> list[str]:
    lines = [f"| {title} | {' | '.join(f'`{ref}`' for ref in found)} |", "|---" * (len(found) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(show(sql) for sql in found.values())} |" for name, show in rows.items()]


def _code(sql: str | None) -> str:
    return "always up to date" if sql is None else f"`{sql}`".replace("|", "\\|")
