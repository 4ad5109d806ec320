"""How good a provider is known to be: its level, how capabilities are proven, and the evidence for it."""

from __future__ import annotations

import importlib.resources
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erp.contracts.loading import catalog as generated
from erp.contracts.loading import quality
from erp.runtime.evidence import FILE, Evidence, EvidenceError, digest, read_evidence, verify

if TYPE_CHECKING:
    from erp.runtime.manifest import ProviderManifest


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one provider."""

    level: str | None = None
    """Of the quality scale; None: nobody trusted says."""
    proof: dict[str, str] = field(default_factory=dict)
    """Capability -> how it is proven."""
    server: str | None = None
    """What it was proven with, as that says itself: ``Redis 8.0.2``; None: nothing stands behind it, or nobody says."""
    date: str | None = None
    """When (RFC 3339, ``full-date``)."""
    evidence: dict[str, Any] | None = None
    """Summary of the signed evidence in the provider's folder that fits its present code."""


class Standings:
    """The standing of every provider. What this distribution brings is known; others bring evidence.

    Evidence that is changed, or about other code, is as good as none. Anyone can sign evidence, so that it counts as
    proof only when its key is one that the operator trusts.
    """

    def __init__(self, trusted_keys: frozenset[str]) -> None:
        self._trusted = trusted_keys
        self._known: dict[str, tuple[str | None, Standing]] = {}

    @classmethod
    def from_environment(cls) -> Standings:
        """Trust the public keys in ``ERP_CERTIFY_TRUSTED_KEYS`` (base64, separated by commas)."""
        keys = os.environ.get("ERP_CERTIFY_TRUSTED_KEYS", "").split(",")
        return cls(frozenset(key.strip() for key in keys if key.strip()))

    def of(self, manifest: ProviderManifest) -> Standing:
        """Return the standing of a provider; files are read once for each build."""
        build, found = self._known.get(manifest.ref, (None, None))
        if found is None or build != manifest.build:
            found = self._found(manifest)
            self._known[manifest.ref] = (manifest.build, found)
        return found

    def _found(self, manifest: ProviderManifest) -> Standing:
        if manifest.folder is None and manifest.ref in generated()["providers"]:
            return _recorded(manifest.ref)
        evidence = _evidence(manifest)
        if evidence is None:
            return Standing()
        key = evidence["signature"]["key"]
        shown = _summary(evidence, is_trusted=key in self._trusted)
        if key not in self._trusted:
            return Standing(evidence=shown)
        return Standing(
            level=evidence["quality"]["level"],
            proof=evidence["proof"],
            server=evidence["peer"]["server"],
            date=evidence["certified_at"].partition("T")[0],
            evidence=shown,
        )


def _recorded(ref: str) -> Standing:
    proof = generated()["proof"].get(ref, {})
    return Standing(quality().get(ref), proof.get("levels", {}), proof.get("server"), proof.get("date"))


def _evidence(manifest: ProviderManifest) -> Evidence | None:
    folder = _folder(manifest)
    if folder is None or not (folder / FILE).is_file():
        return None
    try:
        document = read_evidence(folder / FILE)
        verify(document)
        is_of_this = document["ref"] == manifest.ref and document["version"] == manifest.version
        return document if is_of_this and document["digest"] == digest(folder) else None
    except (EvidenceError, OSError, KeyError):
        return None


def _folder(manifest: ProviderManifest) -> Path | None:
    if manifest.folder is not None:
        return manifest.folder
    try:
        found = importlib.resources.files(str(manifest.package))
    except (ImportError, TypeError):
        return None
    return found if isinstance(found, Path) else None


def _summary(document: Evidence, *, is_trusted: bool) -> dict[str, Any]:
    outcomes = [case["outcome"] for case in document["cases"]]
    return {
        "certified_at": document["certified_at"],
        "layer": document["layer"]["version"],
        "level": document["quality"]["level"],
        "proof": document["proof"],
        "passed": outcomes.count("passed"),
        "gaps": outcomes.count("gap"),
        "not_run": outcomes.count("not_run"),
        "key": document["signature"]["key"],
        "trusted": is_trusted,
    }
