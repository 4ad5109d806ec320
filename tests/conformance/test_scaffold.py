"""A new provider is sound as it is written, and nothing is ever overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from erp.contracts.loading import catalog
from erp.errors import ProviderError
from erp.runtime.conformance.folder import read_folder
from erp.runtime.conformance.plugin import provider_tests
from erp.runtime.conformance.quality import assess
from erp.runtime.conformance.scaffold import ScaffoldError, write_provider

DOMAINS = sorted(catalog()["domains"])


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_new_provider_passes_the_check_at_once(domain: str, tmp_path: Path) -> None:
    folder = write_provider(f"{domain}/example", tmp_path)

    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "provider.py",
        "provider.yaml",
        "test_example.py",
    ]
    assert [str(finding) for finding in assess(read_folder(folder)).errors] == []


@pytest.mark.parametrize("domain", [domain for domain in DOMAINS if domain != "cache"])
def test_the_check_names_every_action_that_is_still_to_be_written(domain: str, tmp_path: Path) -> None:
    actions = catalog()["domains"][domain]["actions"]
    required = [name for name, action in actions.items() if "capability" not in action]

    found = assess(read_folder(write_provider(f"{domain}/example", tmp_path)))

    assert found.level == "bronze"
    unfinished = [
        finding.text.partition("not finished: ")[2] for finding in found.findings if finding.rule.id == "SILVER-01"
    ]
    assert unfinished[1:-1] == required


def test_a_new_cache_keeps_its_contract(tmp_path: Path) -> None:
    write_provider("cache/fresh", tmp_path)
    suite = provider_tests("cache/fresh", drop_in=tmp_path)

    cases = suite.pytestmark[0].args[1]  # type: ignore[attr-defined]
    for case in cases:
        suite(case)

    assert len(cases) > 30


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    folder = write_provider("cache/example", tmp_path)
    (folder / "provider.py").write_text("mine")

    with pytest.raises(ScaffoldError, match="exists, and nothing was written"):
        write_provider("cache/example", tmp_path)

    assert (folder / "provider.py").read_text() == "mine"


@pytest.mark.parametrize("ref", ["cache", "cache/Example", "cache/../x", "/cache/x", "cache/x/y", "cache/x\n", ""])
def test_what_is_no_ref_is_refused_and_writes_nothing(ref: str, tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match="How to fix"):
        write_provider(ref, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_an_unknown_domain_is_refused_with_the_nearest_ones(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="Did you mean cache"):
        write_provider("cash/example", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ScaffoldError, match="cannot be written"):
        write_provider("cache/example", tmp_path / "file")
