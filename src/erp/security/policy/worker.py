"""The process that runs Rego: ``python -m erp.security.policy.worker``.

It answers one line of JSON with one line of JSON and may die at any moment: the engine is native code that now and
then aborts, and what a tenant wrote may go through a large product of sets. Neither may take the layer with it.

    {"key": "acme/3", "modules": {"policy.rego": "package ..."}, "entry": "tenant/deny", "input": "{...}"}
        ->  {"value": [...]}, or {"findings": [...]} when it does not compile
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import OrderedDict
from typing import Any

import msgspec

from erp.security.policy.rego import Program, RegoError, compiled

MAX_PROGRAMS = 64


class Programs:
    """The programs compiled last."""

    def __init__(self) -> None:
        self._programs: OrderedDict[str, Program] = OrderedDict()

    def of(self, key: str, modules: dict[str, str], entry: str) -> Program:
        """Return the program that ``key`` names."""
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = compiled(modules, entry)
            while len(self._programs) > MAX_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return found


def answer(programs: Programs, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request."""
    try:
        program = programs.of(request["key"], request["modules"], request["entry"])
    except RegoError as error:
        return {"findings": [msgspec.structs.asdict(one) for one in error.findings]}
    return {"value": program.evaluate(request["entry"], request["input"])}


def leave_no_dump() -> None:
    """Questions name people: they are not to be found in a core file. (The engine's allocator bears no limit of memory.)"""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve until standard input ends, as it does when the layer is gone."""
    leave_no_dump()
    programs = Programs()
    print("{}", flush=True)  # noqa: T201  (ready)
    for line in sys.stdin:
        print(json.dumps(answer(programs, json.loads(line))), flush=True)  # noqa: T201  (the protocol)


if __name__ == "__main__":
    main()
