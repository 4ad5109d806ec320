"""Gold: what it declares has been proven, and an operator can rely on what it says."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from erp.contracts.models.errors import ErrorCode
from erp.runtime.conformance.folder import ProviderFolder
from erp.runtime.conformance.quality import rule

LIGHT = {"erp", "msgspec", "typing_extensions"}
MESSAGE_LENGTH = 15


@rule(1, fix="run `erp provider certify` against something that answers, and record the evidence.")
def everything_declared_is_proven(folder: ProviderFolder) -> Iterator[str]:
    """Every declared capability is proven at P2 (a simulator driven by a third-party client) or better."""
    yield from unproven(folder, "P2")


def unproven(folder: ProviderFolder, level: str) -> Iterator[str]:
    """Name the declared capabilities that are proven at less than ``level``."""
    for capability in folder.capabilities:
        found = folder.proof.get(capability, "declared")
        if not found.startswith("P") or found < level:
            yield f"the capability {capability} is {found}, not {level}"


@rule(2, fix="close the gap, or withdraw the capability.")
def no_gap_is_ours(folder: ProviderFolder) -> Iterator[str]:
    """No gap is of the kind ``ours``."""
    yield from (f"the gap {gap.get('case')} is ours" for gap in folder.gaps if gap.get("kind") == "ours")


@rule(3, fix="give the gap link: where the system behind it says so.")
def gaps_of_others_have_a_link(folder: ProviderFolder) -> Iterator[str]:
    """A gap of the kind ``upstream`` links to where its cause is followed."""
    upstream = (gap for gap in folder.gaps if gap.get("kind") == "upstream" and not gap.get("link"))
    yield from (f"the gap {gap.get('case')} has no link" for gap in upstream)


@rule(4, fix="raise stability to beta when the interface will stay.")
def it_is_at_least_beta(folder: ProviderFolder) -> Iterator[str]:
    """Its stability is ``beta`` or ``stable``."""
    if folder.manifest.get("stability") not in {"beta", "stable"}:
        yield f"its stability is {folder.manifest.get('stability')}"


@rule(5, fix="say in one sentence what the class is.")
def modules_and_class_say_what_they_are(folder: ProviderFolder) -> Iterator[str]:
    """Every module that holds code, and the class, begin with a sentence that says what they are."""
    for name, tree in folder.trees.items():
        if tree.body and not ast.get_docstring(tree):
            yield f"{name} says nothing about itself"
    if folder.implementation and not ast.get_docstring(folder.implementation):
        yield "the class says nothing about itself"


@rule(6, fix="import it inside open(), so that a layer that does not use the provider does not pay for it.")
def heavy_libraries_are_imported_late(folder: ProviderFolder) -> Iterator[str]:
    """A provider with an extra imports that extra's libraries only when it is opened."""
    if not folder.manifest.get("extra"):
        return
    for name, tree in folder.trees.items():
        for node in tree.body:
            heavy = _package(node) - LIGHT - sys.stdlib_module_names - {one.removesuffix(".py") for one in folder.trees}
            if heavy:
                yield f"{name}:{node.lineno} imports {', '.join(sorted(heavy))} when it is loaded"


def _package(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) and node.module and not node.level else set()


@rule(7, fix="use a code of the closed list; see docs/reference/errors.md.")
def error_codes_exist(folder: ProviderFolder) -> Iterator[str]:
    """Every error code it names is one of the closed list."""
    known = {code.name for code in ErrorCode}
    for place, node in folder.nodes():
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ErrorCode" and node.attr not in known:
            yield f"{place} names ErrorCode.{node.attr}"


@rule(8, fix="say in a sentence what is wrong and what to do about it.")
def errors_are_sentences(folder: ProviderFolder) -> Iterator[str]:
    """Messages of errors are sentences: they name what is wrong, and end with a full stop."""
    for place, node in folder.nodes():
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ProviderError" and len(node.args) > 1:
            text = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
            if isinstance(text, str) and (len(text) < MESSAGE_LENGTH or not text.endswith((".", "!", "?"))):
                yield f"{place} says only {text!r}"


@rule(9, fix="repair the type instead.")
def types_are_not_silenced(folder: ProviderFolder) -> Iterator[str]:
    """No type error is silenced without naming which."""
    for name, text in folder.sources.items():
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"#\s*type:\s*ignore(?!\[)", line):
                yield f"{name}:{number} silences every type error"


@rule(10, fix="write one sentence that ends with a full stop.")
def summary_is_a_sentence(folder: ProviderFolder) -> Iterator[str]:
    """The summary is a sentence that says what is special, not that it is a provider."""
    summary = str(folder.manifest.get("summary", ""))
    if not summary.endswith(".") or re.match(r"(?i)(an? )?[\w ]{0,20}\bprovider\b", summary):
        yield f"the summary reads {summary!r}"


@rule(11, fix="let the recipe call the provider's own address, or give its configuration.")
def recipe_is_about_it(folder: ProviderFolder) -> Iterator[str]:
    """The recipe in the README calls this provider."""
    if f"/providers/{folder.ref}/" not in folder.readme.replace("$ERP_URL", "").replace("$ERP", ""):
        yield f"README.md has no call of /providers/{folder.ref}/"
