"""Compiles and runs Rego (regopy) in the process of ``worker``, and lets through only what the engine gets right.

The engine answers a call of a function it does not have with "undefined", so that ``not missing(...)`` *allows*:
every function a program calls must be defined in it or be on ``FUNCTIONS``.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from regopy import Bundle, Interpreter

FUNCTIONS = frozenset(
    {
        # Comparison, arithmetic and sets.
        "equal", "neq", "gt", "gte", "lt", "lte", "plus", "minus", "mul", "div", "rem", "round", "ceil", "floor", "abs",
        "and", "or", "union", "intersection", "internal.member_2", "internal.member_3",
        # Collections.
        "count", "sum", "product", "max", "min", "sort", "any", "all", "array.concat", "array.slice", "array.reverse",
        "object.get", "object.keys",
        # Text. sprintf is not here, which quotes text that was computed, nor object.union, which loses members.
        "concat", "contains", "startswith", "endswith", "split", "replace", "lower", "upper", "indexof", "substring",
        "trim", "trim_left", "trim_right", "trim_prefix", "trim_suffix", "trim_space", "strings.any_prefix_match",
        "strings.any_suffix_match", "regex.match", "glob.match", "to_number", "format_int",
        # Types.
        "is_string", "is_number", "is_boolean", "is_array", "is_object", "is_set", "is_null", "type_name",
    }
)  # fmt: skip
"""What policies may call: pure, quick, and proven to be right by ``tests/security/policy/``."""

MAX_SOURCE_BYTES = 65_536
_MESSAGE = re.compile(r"\(error (?:\d+:)?(?P<file>[^|()]*)\|(?P<at>\d+)\|\d+\s*\(errormsg \d+:(?P<text>[^)]*)\)")
_WITH = re.compile(r"\bwith\s+(?:input|data)\b")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`')
_local = threading.local()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a policy, and what to do about it."""

    module: str
    line: int
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.problem} How to fix: {self.remedy}"


class RegoError(Exception):
    """The modules are no policy that may be used."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


class Program:
    """Compiled modules. Safe to use from several threads: each has an interpreter of its own."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def evaluate(self, entry: str, input_: str) -> Any:
        """Return the value of an entry point for a JSON document; None when it is undefined or the engine fails."""
        interpreter = _interpreter()
        try:
            interpreter.set_input_term(input_)
            output = interpreter.query_bundle_entrypoint(self._bundle, entry)
            found = json.loads(str(output))["expressions"]
        except Exception:  # noqa: BLE001  (whatever the engine does, it has not decided)
            return None
        return found[0] if isinstance(found, list) and len(found) == 1 else None


def compiled(modules: Mapping[str, str], *entries: str) -> Program:
    """Compile ``modules`` (file name -> source); ``entries`` are paths as ``erp/decision/verdict``.

    Raises:
        RegoError: a module is malformed, or calls what it may not.
    """
    from regopy import RegoError as EngineError

    if findings := [_too_long(name) for name, source in modules.items() if len(source.encode()) > MAX_SOURCE_BYTES]:
        raise RegoError(findings)
    if findings := list(_fatal(modules)):
        raise RegoError(findings)
    interpreter = _new_interpreter()
    try:
        for name, source in modules.items():
            interpreter.add_module(name, source)
        bundle = interpreter.build(None, entries)
        if not bundle.ok():
            raise RegoError([Finding(module=entries[0], line=0, problem="It does not compile.", remedy="Simplify it.")])
        plan = _plan(interpreter, bundle)
    except EngineError as error:
        raise RegoError(list(_explained(str(error), modules))) from None
    if findings := list(_forbidden(plan, modules)):
        raise RegoError(findings)
    return Program(bundle)


def _new_interpreter() -> Interpreter:
    from regopy import Interpreter, LogLevel

    made = Interpreter()
    # RegoNONE: what is wrong is raised, and must not be printed as well.
    made.log_level = LogLevel(0)
    return made


def _interpreter() -> Interpreter:
    """This thread's own: two threads that share one are given each other's answers."""
    found: Interpreter | None = getattr(_local, "interpreter", None)
    if found is None:
        found = _local.interpreter = _new_interpreter()
    return found


def _plan(interpreter: Interpreter, bundle: Bundle) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="erp-policy-") as folder:
        interpreter.save_bundle(f"{folder}/bundle", bundle)
        plan: dict[str, Any] = json.loads(Path(folder, "bundle", "plan.json").read_text(encoding="utf-8"))
    return plan


def _forbidden(plan: dict[str, Any], modules: Mapping[str, str]) -> Iterator[Finding]:
    defined = {function["name"] for function in plan["funcs"]["funcs"]}
    for name in sorted(set(_called(plan)) - defined - FUNCTIONS):
        module, line = _place(name, modules)
        remedy = "Use one of the functions that docs/how-to/write-a-policy.md lists."
        yield Finding(module=module, line=line, problem=f"Policies may not call {name[:64]}.", remedy=remedy)


def _called(node: Any) -> Iterator[str]:
    """Names of the functions that a compiled plan calls."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            if one.get("type") == "CallStmt":
                yield one["stmt"]["func"]
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)


def _place(name: str, modules: Mapping[str, str]) -> tuple[str, int]:
    for module, source in modules.items():
        for number, line in enumerate(source.splitlines(), 1):
            if f"{name}(" in line:
                return module, number
    return next(iter(modules), ""), 1


def _fatal(modules: Mapping[str, str]) -> Iterator[Finding]:
    """What ends the process when it is compiled."""
    for module, source in modules.items():
        for number, line in enumerate(source.splitlines(), 1):
            if _WITH.search(_TEXT.sub('""', line).partition("#")[0]):
                remedy = "Write what is given and what is expected as data; docs/how-to/write-a-policy.md shows how."
                yield Finding(module=module, line=number, problem="Policies may not use `with`.", remedy=remedy)


def _too_long(name: str) -> Finding:
    problem = f"The module has more than {MAX_SOURCE_BYTES} bytes."
    return Finding(module=name, line=1, problem=problem, remedy="Keep data out of policies, and policies short.")


def _explained(error: str, modules: Mapping[str, str]) -> Iterator[Finding]:
    found = False
    for match in _MESSAGE.finditer(error):
        found = True
        source = modules.get(match["file"], "")
        line = source.encode()[: int(match["at"])].count(b"\n") + 1
        remedy = "Correct the text; https://www.openpolicyagent.org/docs/policy-language describes it."
        yield Finding(module=match["file"], line=line, problem=f"{match['text'].capitalize()}.", remedy=remedy)
    if not found:
        first = next(iter(modules), "")
        yield Finding(
            module=first, line=1, problem="It is no Rego.", remedy="Begin with `package` and `import rego.v1`."
        )
