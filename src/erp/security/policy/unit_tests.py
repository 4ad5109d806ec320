"""Runs unit tests of policies: rules ``test_...`` of modules whose file is called ``..._test.rego``.

A test is an object that says what is given beside the example question (``document.EXAMPLE``) and what the policy
must answer: ``{"given": {"actor": {"roles": ["agent"]}}, "verdict": {"allow": true}}`` for the platform's policy (members that are not named may be anything),
``{"given": {...}, "deny": ["..."]}`` for a tenant's. (The engine does not bear ``with``.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from erp.security.policy import tenant_rules
from erp.security.policy.document import encoded, example
from erp.security.policy.engines import ENTRY
from erp.security.policy.process import RegoProcess

SECONDS = 30.0
SUFFIX = "_test.rego"
_PACKAGE = re.compile(r"^package\s+([\w.]+)", re.MULTILINE)
_TEST = re.compile(r"^(test_\w+)\b", re.MULTILINE)


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one test."""

    module: str
    name: str
    problem: str = ""
    """Empty: it passed."""


async def run(modules: Mapping[str, str]) -> list[Ran]:
    """Run every test of ``modules`` (file name -> source), in the order in which they stand.

    Raises:
        NoAnswerError: the engine did not bear the modules.
    """
    process = RegoProcess(seconds=SECONDS)
    try:
        return [await _run(process, modules, *one) for one in _tests(modules)]
    finally:
        await process.close()


def _tests(modules: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Module, name and path of each test."""
    return [
        (module, name, f"{package[1].replace('.', '/')}/{name}")
        for module, source in modules.items()
        if module.endswith(SUFFIX) and (package := _PACKAGE.search(source))
        for name in dict.fromkeys(_TEST.findall(source))
    ]


async def _run(process: RegoProcess, modules: Mapping[str, str], module: str, name: str, path: str) -> Ran:
    findings, case = await process.findings(path, modules, path, "{}")
    if findings:
        return Ran(module=module, name=name, problem=str(findings[0]))
    match case:
        case {"given": dict(given), "verdict": dict(expected)}:
            found = await process.evaluate(ENTRY, modules, ENTRY, encoded(example(**given)))
            shown = {key: found.get(key) for key in expected} if isinstance(found, dict) else found
        case {"given": dict(given), "deny": list(expected)}:
            entry = tenant_rules.ENTRY
            shown = await process.evaluate(entry, modules, entry, encoded(example(**given)))
            expected = sorted(expected)
        case _:
            return Ran(
                module=module,
                name=name,
                problem='It is no {"given": ..., "verdict": ...} or {"given": ..., "deny": [...]}.',
            )
    return Ran(module=module, name=name, problem=_difference(expected, shown))


def _difference(expected: Any, found: Any) -> str:
    return "" if found == expected else f"expected {json.dumps(expected)}, got {json.dumps(found)}"
