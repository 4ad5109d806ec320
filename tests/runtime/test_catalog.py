"""What can be called, and how unknown names are explained."""

import importlib.metadata
import logging
from pathlib import Path

import pytest
from tests.runtime.toys import DOMAINS, SERVICES, manifest

from erp.contracts import loading
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.catalog import ProviderCatalog

MANIFEST = """
ref: {ref}
title: Dropped
summary: From a folder.
version: 1.0.0
contract: 1.0.0
stability: alpha
implementation: provider:Dropped
embedded: {embedded}
config: {{type: object}}
"""


@pytest.fixture
def catalog() -> ProviderCatalog:
    names = ("paper_box", "steel_box", "vat")
    return ProviderCatalog(DOMAINS, SERVICES, [manifest(name) for name in names])


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generated catalog with one built-in provider, ``toy/zinc``, and no entry points."""
    built_in = {
        "ref": "toy/zinc",
        "title": "Zinc",
        "summary": "Built in.",
        "version": "1.0.0",
        "contract": "1.0.0",
        "stability": "stable",
        "implementation": "provider:Zinc",
        "embedded": True,
        "config": {"type": "object"},
    }
    data = {"domains": DOMAINS, "services": SERVICES, "providers": {"toy/zinc": built_in}}
    monkeypatch.setattr(loading, "catalog", lambda: data)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])


def drop(folder: Path, ref: str, text: str | None = None, *, embedded: bool = False) -> Path:
    path = folder / ref / "provider.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(MANIFEST.format(ref=ref, embedded=str(embedded).lower()) if text is None else text)
    return path


def failure(catalog: ProviderCatalog, *name: str) -> str:
    with pytest.raises(ProviderError) as caught:
        _ = catalog.action(*name) if len(name) == 3 else catalog.provider(*name)
    assert caught.value.code is ErrorCode.NOT_FOUND
    return caught.value.message


def test_an_action_is_found_by_its_place(catalog: ProviderCatalog) -> None:
    assert catalog.action("providers", "toy", "get").ref == "toy.get"
    assert catalog.action("services", "shop", "buy").ref == "shop.buy"


def test_unknown_names_are_answered_with_the_nearest(catalog: ProviderCatalog) -> None:
    assert failure(catalog, "providers", "toy", "gets") == (
        "There is no action of domain toy named 'gets'. Did you mean get?"
    )
    assert failure(catalog, "providers", "tay", "get") == "There is no domain named 'tay'. Did you mean toy?"
    assert failure(catalog, "services", "chop", "buy") == "There is no service named 'chop'. Did you mean shop?"
    assert failure(catalog, "services", "shop", "byu") == (
        "There is no action of service shop named 'byu'. Did you mean buy?"
    )
    assert failure(catalog, "toy", "steelbox") == (
        "There is no provider of domain toy named 'steelbox'. Did you mean steel_box?"
    )
    assert failure(catalog, "toi", "vat") == "There is no domain named 'toi'. Did you mean toy?"


def test_a_name_unlike_any_lists_what_there_is(catalog: ProviderCatalog) -> None:
    assert failure(catalog, "toy", "???") == (
        "There is no provider of domain toy named '???'. Did you mean paper_box, steel_box, vat?"
    )


def test_a_very_long_name_is_cut(catalog: ProviderCatalog) -> None:
    assert len(failure(catalog, "toy", "x" * 10_000)) < 300


def test_a_provider_offers_the_actions_whose_capability_it_declares() -> None:
    plain, able = manifest("box"), manifest("vat", capabilities=["ttl"])
    catalog = ProviderCatalog(DOMAINS, SERVICES, [plain, able])

    assert [item.name for item in catalog.actions_of(plain)] == ["get", "put", "append", "watch", "record", "reveal"]
    assert [item.name for item in catalog.actions_of(able)] == list(DOMAINS["toy"]["actions"])


def test_the_embedded_provider_is_the_first_that_needs_no_configuration() -> None:
    required = {"type": "object", "required": ["url"]}
    found = [
        manifest("anvil"),
        manifest("bucket", embedded=True, config=required),
        manifest("zinc", embedded=True),
        manifest("amber", embedded=True),
    ]

    chosen = ProviderCatalog(DOMAINS, SERVICES, found).embedded("toy")

    assert chosen is not None
    assert chosen.name == "zinc"
    assert ProviderCatalog(DOMAINS, SERVICES, found[:2]).embedded("toy") is None
    assert ProviderCatalog(DOMAINS, SERVICES, found).embedded("other") is None


@pytest.mark.usefixtures("generated")
def test_a_folder_dropped_in_adds_its_provider(tmp_path: Path) -> None:
    path = drop(tmp_path, "toy/amber", embedded=True)

    catalog = ProviderCatalog.load(tmp_path)

    assert sorted(catalog.providers) == ["toy/amber", "toy/zinc"]
    assert catalog.provider("toy", "amber").folder == path.parent
    assert catalog.provider("toy", "zinc").package == "erp.providers.toy.zinc"
    default = catalog.embedded("toy")
    assert default is not None
    assert default.name == "zinc", "a provider dropped in must not become the default"


@pytest.mark.usefixtures("generated")
@pytest.mark.parametrize(
    "text",
    [
        "ref: [",
        "- a list",
        "title: no ref",
        MANIFEST.format(ref="toy/../../etc", embedded="false"),
        MANIFEST.format(ref="toy/other_name", embedded="false"),
        MANIFEST.format(ref="toy/good", embedded="perhaps"),
        "\x00\x01",
    ],
)
def test_a_broken_manifest_is_ignored_with_a_warning(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = drop(tmp_path, "toy/broken", text)
    drop(tmp_path, "toy/good")

    with caplog.at_level(logging.WARNING):
        catalog = ProviderCatalog.load(tmp_path)

    assert sorted(catalog.providers) == ["toy/good", "toy/zinc"]
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.usefixtures("generated")
def test_known_refs_and_unknown_domains_are_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop(tmp_path, "toy/zinc")
    drop(tmp_path, "nowhere/box")

    with caplog.at_level(logging.WARNING):
        catalog = ProviderCatalog.load(tmp_path)

    assert list(catalog.providers) == ["toy/zinc"]
    assert catalog.provider("toy", "zinc").title == "Zinc"
    assert [record.getMessage() for record in caplog.records] == [
        "provider nowhere/box is ignored: it names an unknown domain, nowhere",
        "provider toy/zinc is ignored: a provider of this name is already known",
    ]


@pytest.mark.usefixtures("generated")
def test_entry_points_add_providers_and_broken_ones_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, code in (("erp_test_good", ""), ("erp_test_raises", "raise LookupError('boom')")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        (tmp_path / name / "provider.yaml").write_text(MANIFEST.format(ref="toy/good", embedded="false"))
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint(name, name, "erp.providers")
        for name in ("erp_test_missing", "erp_test_raises", "erp_test_good")
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: points)

    with caplog.at_level(logging.WARNING):
        catalog = ProviderCatalog.load(None)

    assert catalog.provider("toy", "good").package == "erp_test_good"
    assert [record.getMessage() for record in caplog.records] == [
        "provider erp_test_missing is ignored: ModuleNotFoundError: No module named 'erp_test_missing'",
        "provider erp_test_raises is ignored: LookupError: boom",
    ]


@pytest.mark.usefixtures("generated")
def test_without_a_folder_there_is_nothing_to_drop_in(tmp_path: Path) -> None:
    assert list(ProviderCatalog.load(tmp_path / "missing").providers) == ["toy/zinc"]
