"""Platinum: proven against the real thing, complete, and known to work in production."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from erp.runtime.conformance.folder import ProviderFolder
from erp.runtime.conformance.quality import attested, rule
from erp.runtime.conformance.rules.gold import unproven


@rule(1, fix="run `erp provider certify --config FILE` against a live system and record the evidence.")
def everything_is_proven_live(folder: ProviderFolder) -> Iterator[str]:
    """Every declared capability is proven at P4 (a live server) or better."""
    yield from unproven(folder, "P4")


@rule(2, fix="close the gaps.")
def there_is_no_gap(folder: ProviderFolder) -> Iterator[str]:
    """No rule of the specification is a gap."""
    yield from (f"the gap {gap.get('case')} is open" for gap in folder.gaps)


@rule(3, fix="raise stability to stable: from then on only a major version takes anything away.")
def it_is_stable(folder: ProviderFolder) -> Iterator[str]:
    """Its stability is ``stable``."""
    if folder.manifest.get("stability") != "stable":
        yield f"its stability is {folder.manifest.get('stability')}"


@rule(4, fix="support the capability, or say in the README why it cannot be.")
def what_is_missing_is_explained(folder: ProviderFolder) -> Iterator[str]:
    """Every capability of the contract that is not declared is named in the README."""
    offered = (folder.contract.document.get("capabilities") or {}) if folder.contract else {}
    for capability in offered:
        if capability not in folder.capabilities and f"`{capability}`" not in folder.readme:
            yield f"README.md does not explain why `{capability}` is missing"


@rule(5, fix="measure it: Health(status=..., latency_ms=...).")
def health_is_measured(folder: ProviderFolder) -> Iterator[str]:
    """With a peer behind it, ``health`` measures how long that took to answer."""
    if folder.manifest.get("embedded"):
        return
    measured = any(isinstance(node, ast.keyword) and node.arg == "latency_ms" for _, node in folder.nodes())
    if not measured:
        yield "health() states no latency_ms"


@rule(6, fix="name the address of the vendor's documentation as homepage.")
def vendor_is_linked(folder: ProviderFolder) -> Iterator[str]:
    """With a system of others behind it, the manifest links to its documentation."""
    if not folder.manifest.get("embedded") and not folder.manifest.get("homepage"):
        yield "homepage is missing"


attested(7, "Someone who did not write it has reviewed it for security.", module=__name__)
attested(8, "It has carried production load for at least a month.", module=__name__)
attested(9, "Someone answers reports about it, and the README or homepage says where.", module=__name__)
