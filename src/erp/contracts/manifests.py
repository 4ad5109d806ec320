"""Checks provider manifests both ways: what they say exists, and what exists they say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs

if TYPE_CHECKING:
    from erp.contracts.authored import Authored, Contract

_LIFECYCLE = frozenset({"open", "close", "health", "work"})


def findings(authored: Authored, providers: Path) -> list[str]:
    """Return what is wrong with the manifests, each with how to fix it."""
    schema = authored.schemas["provider_manifest"]
    return [
        f"providers/{ref}/provider.yaml: {text}"
        for ref, manifest in authored.manifests.items()
        for text in untrue(schema, authored.domains.get(ref.partition("/")[0]), providers / ref, ref, manifest)
    ]


def untrue(
    schema: dict[str, Any], domain: Contract | None, folder: Path, ref: str, manifest: dict[str, Any]
) -> Iterator[str]:
    """Say what is wrong with one manifest, each with how to fix it.

    Args:
        schema: of manifests.
        domain: the contract; None when there is none of the provider's domain.
        folder: where the provider is.
        ref: what the folder says the provider is called.
        manifest: as authored.
    """
    for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(manifest):
        yield f"/{'/'.join(map(str, error.instance_path))}: {error.message}. How to fix: see schemas/provider_manifest.yaml."
    if manifest.get("ref") != ref:
        yield f"ref {manifest.get('ref')!r} is not the folder. How to fix: write ref: {ref}."
    if domain is None:
        yield f"there is no domain {ref.partition('/')[0]}. How to fix: author contracts/domains/ first."
        return
    for capability in manifest.get("capabilities") or []:
        if capability not in (domain.document.get("capabilities") or {}):
            yield f"capability {capability!r} is not in the contract. How to fix: remove it, or add it to the contract."
    yield from _methods(domain, folder, manifest)


def _methods(domain: Contract, folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    module, _, name = str(manifest.get("implementation", "")).partition(":")
    path = folder / f"{module}.py"
    methods = _public_methods(path, name) if path.is_file() else None
    if methods is None:
        yield f"implementation {module}:{name} does not exist. How to fix: name a module and class of the folder."
        return
    declared = set(manifest.get("capabilities") or [])
    expected = {
        action
        for action, contract in domain.actions.items()
        if contract.get("capability") is None or contract["capability"] in declared
    }
    for action in sorted(expected - methods):
        yield f"{name} has no method {action}. How to fix: write it, or withdraw its capability."
    for method in sorted(methods & domain.actions.keys() - expected):
        capability = domain.actions[method]["capability"]
        yield f"{name}.{method} exists but {capability!r} is not declared. How to fix: declare it, or remove the method."
    for method in sorted(methods - domain.actions.keys() - _LIFECYCLE):
        yield f"{name}.{method} is no action of {domain.name}. How to fix: make it private with an underscore."


def _public_methods(path: Path, class_name: str) -> set[str] | None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            return {item.name for item in node.body if isinstance(item, kinds) and not item.name.startswith("_")}
    return None
