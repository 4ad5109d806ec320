"""A provider's folder as its checks see it: manifest, sources, README, contract. Nothing of it is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from erp.contracts.authored import PACKAGE, AuthoredError, Contract, load_yaml
from erp.contracts.loading import catalog
from erp.runtime.manifest import ProviderManifest

MANIFEST = "provider.yaml"
PARENTS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


class FolderError(Exception):
    """The folder cannot be checked at all. The message says why and what to do."""


@dataclass(frozen=True)
class ProviderFolder:
    """Everything a rule may look at."""

    path: Path
    ref: str
    """As the folder says; as the manifest says for a package that lies elsewhere."""
    manifest: dict[str, Any]
    sources: dict[str, str]
    """Name of a module's file -> its text; tests are left out."""
    trees: dict[str, ast.Module]
    readme: str
    contract: Contract | None
    proof: dict[str, str] = field(default_factory=dict)
    """Capability -> how it is proven."""

    @property
    def domain(self) -> str:
        """``cache`` of ``cache/redis``."""
        return self.ref.partition("/")[0]

    @property
    def name(self) -> str:
        """``redis`` of ``cache/redis``."""
        return self.ref.partition("/")[2]

    @property
    def capabilities(self) -> list[str]:
        """What the manifest declares."""
        return list(self.manifest.get("capabilities") or [])

    @property
    def conformance(self) -> dict[str, Any]:
        """The manifest's section of that name."""
        return dict(self.manifest.get("conformance") or {})

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """Rules of the specification that the provider does not keep."""
        return list(self.conformance.get("gaps") or [])

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Configuration properties with their schemas."""
        return dict((self.manifest.get("config") or {}).get("properties") or {})

    @property
    def implementation(self) -> ast.ClassDef | None:
        """The class the manifest names."""
        module, _, name = str(self.manifest.get("implementation", "")).partition(":")
        tree = self.trees.get(f"{module}.py")
        found = (node for node in (tree.body if tree else []) if isinstance(node, ast.ClassDef) and node.name == name)
        return next(found, None)

    def nodes(self) -> Iterator[tuple[str, ast.AST]]:
        """Every node of every module, with the place for a finding."""
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                yield f"{name}:{getattr(node, 'lineno', 1)}", node

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function and method, with its place."""
        for place, node in self.nodes():
            if isinstance(node, Function):
                yield place, node

    def tests(self) -> list[Path]:
        """The test modules about this provider: in its folder, or in a folder ``tests`` above it."""
        found = list(self.path.glob("test_*.py"))
        for parent in self.path.resolve().parents[:PARENTS]:
            found += (parent / "tests").rglob(f"test_{self.name}*.py")
        return found


def read_folder(path: Path) -> ProviderFolder:
    """Read a provider's folder.

    Raises:
        FolderError: there is no readable manifest, or a module is not Python.
    """
    path = path.absolute()
    if not (path / MANIFEST).is_file():
        message = (
            f"{path} holds no {MANIFEST}. How to fix: name a provider's folder, or write one with `erp provider new`."
        )
        raise FolderError(message)
    try:
        manifest = load_yaml(path / MANIFEST)
    except (AuthoredError, OSError, yaml.YAMLError) as error:
        raise FolderError(str(error)) from error
    ref = _ref(path, manifest)
    sources = {item.name: _text(item) for item in sorted(path.glob("*.py")) if not item.name.startswith("test_")}
    readme = path / "README.md"
    return ProviderFolder(
        path=path,
        ref=ref,
        manifest=manifest,
        sources=sources,
        trees={name: _parsed(path / name, text) for name, text in sources.items()},
        readme=_text(readme) if readme.is_file() else "",
        contract=contract_of(ref.partition("/")[0]),
        proof=dict(catalog().get("proof", {}).get(ref, {}).get("levels", {})),
    )


def folder_of(manifest: ProviderManifest) -> Path:
    """Return where an installed, built-in or dropped-in provider lies."""
    if manifest.folder is not None:
        return manifest.folder
    spec = importlib.util.find_spec(str(manifest.package))
    if spec is None or not spec.submodule_search_locations:
        message = f"The package {manifest.package} of {manifest.ref} is no folder on this machine."
        raise FolderError(message)
    return Path(next(iter(spec.submodule_search_locations)))


def _ref(path: Path, manifest: dict[str, Any]) -> str:
    if path.parent.name in catalog()["domains"]:
        return f"{path.parent.name}/{path.name}"
    return str(manifest.get("ref", path.name))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {error}. How to fix: write it as UTF-8."
        raise FolderError(message) from error


def _parsed(path: Path, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        message = f"{path} is not Python: {error}."
        raise FolderError(message) from error


def contract_of(domain: str) -> Contract | None:
    """Return the contract of a domain from the generated catalog; None when there is none."""
    document = catalog()["domains"].get(domain)
    if document is None:
        return None
    return Contract("domain", domain, PACKAGE / "contracts" / "domains" / f"{domain}.yaml", document)


@cache
def manifest_schema() -> dict[str, Any]:
    """Return the schema of ``provider.yaml``."""
    return load_yaml(PACKAGE / "contracts" / "schemas" / "provider_manifest.yaml")
