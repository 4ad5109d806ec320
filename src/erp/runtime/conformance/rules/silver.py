"""Silver: it is finished, and behaves under load and failure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from erp.runtime.conformance.folder import Function, ProviderFolder
from erp.runtime.conformance.quality import rule

BLOCKING = (
    "time.sleep",
    "subprocess.run",
    "subprocess.check_",
    "requests.",
    "urllib.request.",
    "os.system",
    "socket.create_connection",
    "sqlite3.connect",
    "shutil.",
)
"""How names of what blocks begin."""
OPENING = {"open", "io.open"}
FILES = (".read_text", ".read_bytes", ".write_text", ".write_bytes")
"""How names of methods of a path end that read or write a whole file."""
LOGGING = {"logging", "structlog", "loguru"}
UNFINISHED = re.compile(r"(?:#|<!--)\s*(?:TODO|FIXME)\b:?\s*(.*?)\s*(?:-->|$)")
RETRYING = {"tenacity", "backoff", "retrying", "stamina"}
BOUNDS = {"enum", "const", "pattern", "maxLength"}
DURATION = re.compile(r"(?:timeout|interval|ttl|delay|retention|lease|period)$")


@rule(1, fix="finish it, or withdraw the capability.")
def nothing_is_left_to_do(folder: ProviderFolder) -> Iterator[str]:
    """No ``TODO`` is left: what is declared works."""
    for name, text in {**folder.sources, "README.md": folder.readme}.items():
        for number, line in enumerate(text.splitlines(), 1):
            if found := UNFINISHED.search(line):
                yield f"{name}:{number} is not finished: {found[1].strip() or 'TODO'}"


@rule(2, fix="write a module test_<name>.py with what is special to the provider.")
def it_has_tests(folder: ProviderFolder) -> Iterator[str]:
    """What is special to the provider has tests of its own beside the conformance suite."""
    if not folder.tests():
        yield "there is no test of this provider"


@rule(3, fix="give the blocking work to a bounded ThreadPoolExecutor, or use the asynchronous call.")
def nothing_blocks_the_loop(folder: ProviderFolder) -> Iterator[str]:
    """No coroutine makes a call that blocks: one would stop every tenant."""
    for place, function in folder.functions():
        if isinstance(function, ast.AsyncFunctionDef):
            yield from (f"{place} {function.name} calls {name}, which blocks" for name in _blocking(function))


def _blocking(function: ast.AsyncFunctionDef) -> list[str]:
    inner = {
        id(node)
        for item in ast.walk(function)
        if isinstance(item, ast.FunctionDef | ast.Lambda)
        for node in ast.walk(item)
    }
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call) and id(node) not in inner)
    return [name for name in map(_called, calls) if _is_blocking(name)]


def _is_blocking(name: str) -> bool:
    return name in OPENING or name.startswith(BLOCKING) or name.endswith(FILES)


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func)


@rule(4, fix="give ThreadPoolExecutor(max_workers=...) a number.")
def threads_are_bounded(folder: ProviderFolder) -> Iterator[str]:
    """Every pool of threads states how many it has."""
    for place, node in folder.nodes():
        if (
            isinstance(node, ast.Call)
            and _called(node).endswith("ThreadPoolExecutor")
            and not (node.args or node.keywords)
        ):
            yield f"{place} makes a pool of threads without a bound"


@rule(5, fix="remove it: the layer writes one line for every call.")
def it_does_not_log(folder: ProviderFolder) -> Iterator[str]:
    """It does not log: the layer does, once, without secrets."""
    yield from (f"{place} imports {name}" for place, name in _top_packages(folder) if name in LOGGING)


@rule(6, fix="remove it: the layer retries by the connection's policy, where the contract allows it.")
def it_does_not_retry(folder: ProviderFolder) -> Iterator[str]:
    """It does not retry: the layer knows which calls may be repeated, and how often."""
    yield from (f"{place} imports {name}" for place, name in _top_packages(folder) if name in RETRYING)


def _top_packages(folder: ProviderFolder) -> Iterator[tuple[str, str]]:
    for place, node in folder.nodes():
        if isinstance(node, ast.Import):
            yield from ((place, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield place, node.module.split(".")[0]


@rule(7, fix="use context.tenant; tenants come from nowhere else.")
def tenants_come_from_the_context(folder: ProviderFolder) -> Iterator[str]:
    """No setting names a tenant, and the process environment is not read: a connection belongs to one tenant."""
    yield from (f"the setting {name} names a tenant" for name in folder.settings if name in {"tenant", "tenant_id"})
    for place, node in folder.nodes():
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}:
            yield f"{place} reads the environment of the process"


@rule(8, fix="give numbers minimum and maximum.")
def numbers_are_bounded(folder: ProviderFolder) -> Iterator[str]:
    """Every numeric setting has a lower and an upper bound."""
    for name, schema in folder.settings.items():
        if schema.get("type") in {"integer", "number"} and not _is_bounded(schema):
            yield f"the setting {name} has no bounds"


def _is_bounded(schema: dict[str, Any]) -> bool:
    return bool({"minimum", "exclusiveMinimum"} & schema.keys() and {"maximum", "exclusiveMaximum"} & schema.keys())


@rule(9, fix="give texts enum, pattern or maxLength.")
def texts_are_bounded(folder: ProviderFolder) -> Iterator[str]:
    """Every textual setting has an upper length, a pattern or a list of values."""
    for name, schema in folder.settings.items():
        if schema.get("type") == "string" and not BOUNDS & schema.keys():
            yield f"the setting {name} may be any text of any length"


@rule(10, fix="call it <name>_seconds or <name>_days.")
def durations_name_their_unit(folder: ProviderFolder) -> Iterator[str]:
    """The name of a setting that is a duration ends with its unit."""
    yield from (f"the setting {name} has no unit" for name in folder.settings if DURATION.search(name))


@rule(11, fix="state limits.max_concurrency: what the system behind it bears for one connection.")
def concurrency_is_stated(folder: ProviderFolder) -> Iterator[str]:
    """``limits.max_concurrency`` says how many calls one connection bears at a time."""
    if not (folder.manifest.get("limits") or {}).get("max_concurrency"):
        yield "limits.max_concurrency is not stated"


@rule(12, fix="state conformance.unreachable (settings) and, with credentials, conformance.wrong_credentials.")
def failures_can_be_provoked(folder: ProviderFolder) -> Iterator[str]:
    """With a server behind it, the manifest says with which settings the suite sees it unreachable and refusing."""
    if not folder.conformance.get("server"):
        return
    if not folder.conformance.get("unreachable"):
        yield "conformance.unreachable is missing"
    has_credentials = any(one.get("profile") != "none" for one in folder.manifest.get("authentication") or [])
    if has_credentials and not folder.conformance.get("wrong_credentials"):
        yield "conformance.wrong_credentials is missing"


@rule(13, fix="give the gap case, kind (ours, upstream, never) and reason.")
def gaps_are_reasoned(folder: ProviderFolder) -> Iterator[str]:
    """Every gap names its case, its kind and a reason."""
    for gap in folder.gaps:
        if not (gap.get("case") and gap.get("reason") and gap.get("kind") in {"ours", "upstream", "never"}):
            yield f"the gap {gap.get('case', '?')} is not reasoned"


@rule(14, fix="annotate arguments and results.")
def everything_is_typed(folder: ProviderFolder) -> Iterator[str]:
    """Every function says what it takes and returns."""
    for place, function in folder.functions():
        if not _is_typed(function):
            yield f"{place} {function.name} is not annotated"


def _is_typed(function: Function) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    named = [one for one in arguments if one.arg not in {"self", "cls"}]
    return function.returns is not None and all(one.annotation is not None for one in named)
