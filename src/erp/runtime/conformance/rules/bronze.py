"""Bronze: the folder is sound. Nobody is exempt."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

import jsonschema_rs

from erp.contracts.manifests import untrue
from erp.runtime.conformance.folder import Function, ProviderFolder, manifest_schema
from erp.runtime.conformance.quality import rule

FILE_LINES, FUNCTION_LINES = 400, 40
ARGUMENTS = ["self", "request", "context"]
LIFE = ("open", "close", "health")
SECRET = re.compile(r"(?:^|_)(?:password|passphrase|secret|token|api_key|private_key|access_key|credentials?)$")


@rule(1, fix="see the schema of manifests.")
def manifest_is_true(folder: ProviderFolder) -> Iterator[str]:
    """``provider.yaml`` matches its schema, names its folder, and its capabilities and methods are those of the contract."""
    yield from untrue(manifest_schema(), folder.contract, folder.path, folder.ref, folder.manifest)


@rule(2, fix="write `async def <action>(self, request: <Action>Request, context: CallContext) -> <Action>Result`.")
def actions_have_the_signature(folder: ProviderFolder) -> Iterator[str]:
    """Every action is asynchronous and takes ``request`` and ``context``; a streaming one is an async generator."""
    actions = folder.contract.actions if folder.contract else {}
    for method in _methods(folder):
        if method.name in actions and not _is_action(method):
            yield f"{method.name} in line {method.lineno} is not an asynchronous method (self, request, context)"
        elif method.name in actions and _yields(method) != bool(actions[method.name].get("streaming")):
            must = "must yield its items" if actions[method.name].get("streaming") else "must return, not yield"
            yield f"{method.name} in line {method.lineno} {must}"


def _methods(folder: ProviderFolder) -> list[Function]:
    found = folder.implementation
    return [item for item in found.body if isinstance(item, Function)] if found else []


def _is_action(method: Function) -> bool:
    return isinstance(method, ast.AsyncFunctionDef) and [one.arg for one in method.args.args] == ARGUMENTS


def _yields(method: Function) -> bool:
    inner = {
        id(node)
        for item in ast.walk(method)
        if isinstance(item, Function) and item is not method
        for node in ast.walk(item)
    }
    return any(isinstance(node, ast.Yield) and id(node) not in inner for node in ast.walk(method))


@rule(3, fix="write it; it may do nothing.")
def life_is_complete(folder: ProviderFolder) -> Iterator[str]:
    """The class has asynchronous ``open``, ``close`` and ``health``, and a constructor that takes (config, context)."""
    methods = {method.name: method for method in _methods(folder)}
    for name in LIFE if folder.implementation else ():
        if not isinstance(methods.get(name), ast.AsyncFunctionDef):
            yield f"the class has no asynchronous method {name}"
    if folder.implementation and len(_parameters(methods.get("__init__"))) != 3:  # noqa: PLR2004  (self, config, context)
        yield "the constructor does not take (self, config, context)"


def _parameters(method: Function | None) -> list[str]:
    return [one.arg for one in method.args.args] if method else []


@rule(4, fix="write `translate: ClassVar[ErrorTable] = {VendorError: ErrorCode.UNAVAILABLE}`; it may be empty.")
def errors_have_a_table(folder: ProviderFolder) -> Iterator[str]:
    """The class has a table ``translate`` from exception types to error codes."""
    found = folder.implementation
    if found and not any(_assigned(node) == "translate" for node in found.body):
        yield "the class has no table translate"


def _assigned(node: ast.stmt) -> str:
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ""


@rule(5, fix="import erp.runtime.spi, erp.contracts.models.*, erp.vendor_clients.* and third parties only.")
def imports_are_allowed(folder: ProviderFolder) -> Iterator[str]:
    """Of the layer it imports the SPI, the models of contracts and vendor clients, and never another provider."""
    own = f"erp.providers.{folder.domain}.{folder.name}"
    for place, node in folder.nodes():
        for name in _imported(node):
            if name.split(".")[0] == "erp" and not _is_allowed(name, own):
                yield f"{place} imports {name}"
        if isinstance(node, ast.ImportFrom) and node.level > place.count("/") + 1:
            yield f"{place} imports {'.' * node.level}{node.module or ''} from outside its folder"


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {
        "importlib.import_module",
        "import_module",
        "__import__",
    }:
        return [str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)]
    return []


def _is_allowed(name: str, own: str) -> bool:
    allowed = ("erp.runtime.spi", "erp.contracts.models", "erp.vendor_clients", own)
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@rule(6, fix="raise ProviderError; the layer logs, meters and traces every call.")
def nothing_is_printed(folder: ProviderFolder) -> Iterator[str]:
    """It writes nothing to the terminal."""
    for place, node in folder.nodes():
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.stdout.write", "sys.stderr.write"}:
            yield f"{place} prints"


@rule(7, fix="catch the exceptions that the vendor's library documents, or nothing: the layer translates by the table.")
def no_exception_is_swallowed(folder: ProviderFolder) -> Iterator[str]:
    """No ``except:`` without a type, and none of ``BaseException`` that does not raise again: cancellation must pass."""
    for place, node in folder.nodes():
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises(node):
            yield f"{place} swallows every exception, cancellation too"


def _is_broad(node: ast.ExceptHandler) -> bool:
    return node.type is None or "BaseException" in ast.unparse(node.type)


def _raises(node: ast.AST) -> bool:
    return any(isinstance(item, ast.Raise) for item in ast.walk(node))


@rule(8, fix="split it by what its parts are about.")
def sizes_are_readable(folder: ProviderFolder) -> Iterator[str]:
    """A file has at most 400 lines, a function at most 40."""
    for name, text in folder.sources.items():
        if (lines := len(text.splitlines())) > FILE_LINES:
            yield f"{name} has {lines} lines, over {FILE_LINES}"
    for place, function in folder.functions():
        if (length := (function.end_lineno or 0) - _first(function).lineno + 1) > FUNCTION_LINES:
            yield f"{place} {function.name} has {length} lines, over {FUNCTION_LINES}"


def _first(function: Function) -> ast.stmt:
    is_documented = ast.get_docstring(function, clean=False) is not None
    return function.body[1] if is_documented and len(function.body) > 1 else function.body[0]


@rule(
    9, fix="begin README.md with `# domain/name`, and say when to choose it, its quirks and one recipe in a code block."
)
def readme_answers_the_questions(folder: ProviderFolder) -> Iterator[str]:
    """``README.md`` says when to choose the provider, what its quirks or limits are, and shows one recipe."""
    if not folder.readme:
        yield "there is no README.md"
        return
    if not re.search(rf"^# {re.escape(folder.ref)}\s*$", folder.readme, re.MULTILINE):
        yield f"README.md has no title `# {folder.ref}`"
    wanted = {
        "when to choose it": r"\bchoose\b",
        "its quirks or limits": r"\b(?:quirks?|limits?)\b",
        "a recipe in a code block": r"^```",
    }
    for what, pattern in wanted.items():
        if not re.search(pattern, folder.readme, re.MULTILINE | re.IGNORECASE):
            yield f"README.md does not show {what}"


@rule(10, fix="give the setting title and description: forms and documentation are made of them.")
def settings_are_described(folder: ProviderFolder) -> Iterator[str]:
    """Every setting has a title and a description."""
    for name, schema in folder.settings.items():
        missing = [key for key in ("title", "description") if not schema.get(key)]
        if missing:
            yield f"the setting {name} has no {' and no '.join(missing)}"


@rule(11, fix="write x-erp-secret: true, so that its value is stored encrypted and never shown.")
def secrets_are_marked(folder: ProviderFolder) -> Iterator[str]:
    """Every setting that is a secret says so, has no default, and is text."""
    for name, schema in folder.settings.items():
        is_secret = bool(schema.get("x-erp-secret"))
        if SECRET.search(name) and schema.get("type", "string") == "string" and not is_secret:
            yield f"the setting {name} looks like a secret and is not marked"
        if is_secret and ("default" in schema or schema.get("type") != "string"):
            yield f"the secret setting {name} has a default or is no string"


@rule(12, fix="let defaults satisfy the schema of their setting.")
def defaults_are_valid(folder: ProviderFolder) -> Iterator[str]:
    """The configuration's schema is one, and every default satisfies it."""
    for name, schema in folder.settings.items():
        try:
            validator = jsonschema_rs.Draft202012Validator(schema)
        except jsonschema_rs.ValidationError as error:
            yield f"the schema of the setting {name} is no schema: {error.message}"
            continue
        if "default" in schema and not validator.is_valid(schema["default"]):
            yield f"the default of {name} does not satisfy its schema"


@rule(13, fix="write a version of the contract that exists; see docs/reference/domains/.")
def contract_is_known(folder: ProviderFolder) -> Iterator[str]:
    """It was written for this major version of its contract, and for none that is newer than the layer's."""
    stated = str(folder.manifest.get("contract", ""))
    known = str(folder.contract.document["version"]) if folder.contract else ""
    if known and (_numbers(stated)[:1] != _numbers(known)[:1] or _numbers(stated) > _numbers(known)):
        yield f"it names version {stated or 'none'} of the contract, and the layer has {known}"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


@rule(14, fix="use names of your own for folders and modules.")
def names_shadow_nothing(folder: ProviderFolder) -> Iterator[str]:
    """No module is called like one of the standard library, and none is a drawer for anything."""
    for file in folder.sources:
        name = file.removesuffix(".py")
        if name in {"utils", "util", "helpers", "common", "misc", "base"}:
            yield f"{file} says nothing about what is in it"
        elif name in sys.stdlib_module_names and name != "__init__":
            yield f"{file} is called like a module of the standard library"
