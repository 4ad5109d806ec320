"""The suite leaves nothing out: whatever can be declared is proven where it is, and refused where it is not."""

from __future__ import annotations

from erp.contracts.loading import catalog
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance import all_cases

DOMAINS = catalog()["domains"]
PROVIDERS = ProviderCatalog.load().providers.values()

NOTHING_TO_REFUSE = {
    "bus/deduplication": "a promise about what is published; no request asks for it",
    "bus/ordering": "a promise about the order of deliveries; a key is also what events are partitioned by",
    "db/row_estimates": "shown in metadata or left out; no request asks for it",
    "db/pool_statistics": "shown in metadata or left out; no request asks for it",
    "integration/sync_deletions": "changes of that kind are reported or not; no request asks for them",
    "ai/completion": "AI-32: each task that is not declared is refused",
    "ai/summarization": "AI-32: each task that is not declared is refused",
}
"""Capabilities without an action of their own, of which nothing can be asked where they are not declared."""


def offered() -> set[str]:
    """Every capability that a provider here declares."""
    return {f"{one.domain}/{name}" for one in PROVIDERS for name in one.capabilities}


def test_every_capability_that_a_provider_declares_has_a_case() -> None:
    proven = {f"{one.domain}/{one.capability}" for one in all_cases()}

    assert sorted(offered() - proven) == []


def test_every_capability_is_refused_where_it_is_not_declared() -> None:
    actions = {f"{domain}/{one.get('capability')}" for domain, it in DOMAINS.items() for one in it["actions"].values()}
    refused = {f"{one.domain}/{one.without}" for one in all_cases()}

    assert sorted(offered() - actions - refused - set(NOTHING_TO_REFUSE)) == []


def test_no_reason_outlives_its_capability() -> None:
    known = {f"{domain}/{name}" for domain, it in DOMAINS.items() for name in it["capabilities"]}

    assert set(NOTHING_TO_REFUSE) <= known
