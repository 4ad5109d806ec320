"""Writes the folder of a new provider from the contract of its domain."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Any

from erp.contracts.authored import Contract
from erp.contracts.models_writer import pascal
from erp.runtime.catalog import unknown
from erp.runtime.conformance import scaffold_text as text
from erp.runtime.conformance.folder import contract_of

WIDTH = 120
_REF = re.compile(r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*\Z")


class ScaffoldError(Exception):
    """The folder cannot be written. The message says why and what to do."""


def write_provider(ref: str, parent: Path) -> Path:
    """Write ``parent/<domain>/<name>``; return it. Either all files are written, or none.

    Raises:
        ScaffoldError: the name is no ref, the folder exists, or it cannot be written.
        ProviderError: ``not_found``: there is no such domain.
    """
    contract = _contract(ref)
    folder = parent / ref
    if folder.exists():
        message = f"{folder} exists, and nothing was written. How to fix: choose another name, or remove it first."
        raise ScaffoldError(message)
    files = _files(ref, contract)
    try:
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        message = f"{folder} cannot be written: {error.strerror}. How to fix: name a folder of yours with --folder."
        raise ScaffoldError(message) from error
    return folder


def _contract(ref: str) -> Contract:
    from erp.contracts.loading import catalog

    if not _REF.match(ref):
        message = (
            f"{ref!r} is no name of a provider. How to fix: write domain/name in small letters, such as cache/example."
        )
        raise ScaffoldError(message)
    domain = ref.partition("/")[0]
    contract = contract_of(domain)
    if contract is None:
        raise unknown("domain", domain, catalog()["domains"])
    return contract


def _files(ref: str, contract: Contract) -> dict[str, str]:
    """Return name -> text of every file."""
    domain, _, name = ref.partition("/")
    works = domain in text.BODIES
    facts = {
        "ref": ref,
        "domain": domain,
        "name": name,
        "class_name": pascal(name) + pascal(domain),
        "title": name.replace("_", " ").capitalize(),
        "contract": str(contract.document["version"]),
        "contract_title": str(contract.document["title"]).lower(),
    }
    manifest = text.EMBEDDED_MANIFEST if works else text.REMOTE_MANIFEST
    recipe = text.RECIPES.get(domain, text.RECIPE)
    return {
        "provider.yaml": Template(manifest).substitute(facts),
        "provider.py": _module(contract, facts),
        "README.md": Template(text.README).substitute(facts, recipe=Template(recipe).substitute(facts).strip()),
        f"test_{name}.py": Template(text.TEST).substitute(facts),
    }


def _module(contract: Contract, facts: dict[str, str]) -> str:
    actions = {name: action for name, action in contract.actions.items() if "capability" not in action}
    bodies = text.BODIES.get(contract.name, {})
    names = [f"{pascal(name)}{kind}" for name in actions for kind in ("Request", "Result")]
    names += text.MODELS.get(contract.name, ())
    methods = [_method(facts["ref"], name, action, bodies.get(name)) for name, action in actions.items()]
    is_todo = any(name not in bodies for name in actions)
    imports = ["CallContext", "Config", "ErrorCode", "ErrorTable", "Health", "OpenContext", "ProviderError"]
    imports += ["Stream"] if any(action.get("streaming") for action in actions.values()) else []
    head = text.WORKING_HEAD if contract.name in text.BODIES else text.HEAD
    if not names:  # every action of the domain depends on a capability, and a new provider declares none
        head = head.replace("from erp.contracts.models.$domain import (\n$models\n)\n", "")
    return Template(head).substitute(
        facts,
        models="\n".join(f"    {name}," for name in sorted(names)),
        spi="\n".join(f"    {name}," for name in sorted(imports)),
        methods="\n\n".join(methods) + ("\n" if is_todo else text.TAILS.get(contract.name, "\n")),
    )


def _method(ref: str, name: str, action: dict[str, Any], body: str | None) -> str:
    result = f"{pascal(name)}Result"
    returned = f"Stream[{result}]" if action.get("streaming") else result
    line = f"    async def {name}(self, request: {pascal(name)}Request, context: CallContext) -> {returned}:"
    if body is None:
        lines = [f"# TODO: {name}", f'raise ProviderError(ErrorCode.UNSUPPORTED, "{ref} cannot {name} yet.")']
        lines += ["yield  # type: ignore[unreachable]"] if action.get("streaming") else []
        body = "\n".join(lines)
    summary = " ".join(str(action["summary"]).split())
    return "\n".join([*_wrapped(line), f'        """{summary}"""', *(f"        {one}" for one in body.splitlines())])


def _wrapped(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    head, _, rest = line.partition("(")
    arguments, _, result = rest.partition(")")
    return [f"{head}(", *(f"        {one.strip()}," for one in arguments.split(",")), f"    ){result}"]
