"""The conformance suite is tested: each case catches a provider that breaks its rule, and only that."""

from __future__ import annotations

import pytest
from tests.conformance.conftest import Caught
from tests.conformance.saboteur import Saboteur, saboteurs

from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance import all_cases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_every_case_has_a_saboteur() -> None:
    """A saboteur is made from a correct provider: what no provider here can do yet has none."""
    providers = ProviderCatalog.load().providers.values()
    possible = {case.id for case in all_cases() if case.capability is None or any(map(case.applies_to, providers))}

    assert sorted(possible - {saboteur.case for saboteur in saboteurs()}) == []


@pytest.mark.parametrize("saboteur", saboteurs(), ids=lambda one: one.name)
def test_a_saboteur_is_caught_by_its_case_and_no_other(saboteur: Saboteur, caught: Caught) -> None:
    found = caught[saboteur.name]

    assert set(found) - saboteur.also == {saboteur.case}, found
