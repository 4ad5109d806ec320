"""One statement of each fact: what derives from the contracts is what they say, or the build fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from erp.contracts import generation
from erp.contracts.authored import PACKAGE, AuthoredError, read
from erp.contracts.loading import catalog, document
from erp.contracts.models.cache import GetRequest
from erp.contracts.models.errors import ErrorCode

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the source tree that a test may spoil."""
    copy = tmp_path / "src" / "erp"
    for part in ("contracts", "providers"):
        shutil.copytree(PACKAGE / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs" / "reference", tmp_path / "docs" / "reference")
    return copy


def test_every_generated_file_is_what_the_contracts_say() -> None:
    assert generation.drifted() == []


def test_generating_twice_changes_nothing(package: Path) -> None:
    assert generation.generate(package) == []


@pytest.mark.slow
def test_a_generated_file_that_was_edited_is_found_and_mended(package: Path) -> None:
    spoiled = package / "contracts" / "models" / "cache.py"
    spoiled.write_text(spoiled.read_text() + "# an edit\n")

    assert generation.drifted(package) == [spoiled]
    assert generation.generate(package) == [spoiled]
    assert generation.drifted(package) == []


@pytest.mark.slow
def test_a_model_without_a_contract_is_found_and_removed(package: Path) -> None:
    stale = package / "contracts" / "models" / "gone.py"
    stale.write_text("")

    assert generation.drifted(package) == [stale]
    generation.generate(package)
    assert not stale.exists()


@pytest.mark.parametrize(
    ("find", "replace", "said"),
    [
        ("effect: read", "effect: maybe", "effect must be one of"),
        ("  get:\n    summary", "  health:\n    summary", "not a usable name"),
        ("errors: []", "errors: [broken]", "'broken' is not in errors.yaml"),
        ("domain: cache", "domain: cash", "must equal the file's name"),
        ("version: 1.0.0", "version: one", "version must be SemVer"),
        ("$ref: '#/$defs/Key'", "$ref: '#/$defs/Kee'", "does not exist"),
        ("      additionalProperties: false\n", "", "say additionalProperties"),
        ("capability: ttl", "capability: tll", "is not listed under capabilities"),
        ("title: Cache", "title: Cache: fast", "How to fix: quote"),
    ],
)
def test_a_contract_that_breaks_the_dialect_is_refused_with_how_to_fix_it(
    package: Path, find: str, replace: str, said: str
) -> None:
    path = package / "contracts" / "domains" / "cache.yaml"
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, replace, 1))
    before = (package / "contracts" / "catalog.json").read_bytes()

    with pytest.raises(AuthoredError, match="cache") as refused:
        generation.generate(package)

    assert said in str(refused.value)
    assert (package / "contracts" / "catalog.json").read_bytes() == before


@pytest.mark.parametrize(
    ("find", "replace", "said"),
    [
        ("ref: cache/memory", "ref: cache/memori", "is not the folder"),
        ("capabilities: [ttl,", "capabilities: [teleport, ttl,", "capability 'teleport' is not in the contract"),
        ("capabilities: [ttl, tti,", "capabilities: [ttl,", "exists but 'tti' is not declared"),
        ("provider:MemoryCache", "provider:Missing", "does not exist"),
        ("embedded: true", "embeded: true", "'embeded' was unexpected"),
    ],
)
def test_a_manifest_that_is_not_true_is_refused_with_how_to_fix_it(
    package: Path, find: str, replace: str, said: str
) -> None:
    path = package / "providers" / "cache" / "memory" / "provider.yaml"
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, replace, 1))

    with pytest.raises(AuthoredError) as refused:
        generation.drifted(package)

    assert said in str(refused.value)
    assert "How to fix" in str(refused.value)


def test_a_method_without_an_action_is_refused(package: Path) -> None:
    path = package / "providers" / "cache" / "memory" / "provider.py"
    path.write_text(
        path.read_text().replace("    async def health(", "    async def shine(self): ...\n\n    async def health(", 1)
    )

    with pytest.raises(AuthoredError, match="shine is no action of cache"):
        generation.drifted(package)


@pytest.mark.parametrize("body", [b'{"key": "k", "colour": 1}', b'{"key": null}', b'{"key": ""}', b"{}", b'{"key": 7}'])
def test_a_model_is_as_strict_as_its_schema(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=GetRequest)


def test_every_model_named_in_the_catalog_exists() -> None:
    authored = read()
    assert len(authored.contracts) == 9
    for groups in (catalog()["domains"], catalog()["services"]):
        for contract in groups.values():
            module = __import__(f"erp.contracts.models.{contract.get('domain') or contract['service']}", fromlist=["x"])
            for action in contract["actions"].values():
                assert issubclass(getattr(module, action["models"]["request"]), msgspec.Struct)
                assert issubclass(getattr(module, action["models"]["result"]), msgspec.Struct)


@pytest.mark.slow
def test_the_openapi_document_is_valid_and_covers_every_public_action() -> None:
    openapi = json.loads(document("openapi.json"))
    import openapi_spec_validator  # compiles grammars for three seconds

    openapi_spec_validator.validate(openapi)
    for name, contract in catalog()["domains"].items():
        for action, facts in contract["actions"].items():
            path = f"/providers/{name}/{{name}}/{action}"
            assert (path in openapi["paths"]) is not facts.get("internal", False)


def test_every_event_has_a_channel() -> None:
    channels = {channel["address"] for channel in json.loads(document("asyncapi.json"))["channels"].values()}
    for name, contract in catalog()["domains"].items():
        assert {f"provider.events.{name}.{{name}}.{event}" for event in contract.get("events") or {}} <= channels
    assert "service.events.order.submitted" in channels


def test_every_error_code_tells_who_acts_and_what_to_do() -> None:
    for code in ErrorCode:
        assert code.spec.owner in {"caller", "tenant", "provider", "platform"}
        assert code.spec.remedy.endswith(".")
        assert 400 <= code.spec.status <= 599


def test_every_provider_has_a_page_with_all_its_settings_and_none_is_left_of_one_that_is_gone(package: Path) -> None:
    pages = package.parents[1] / "docs" / "reference" / "providers"
    for ref, manifest in catalog()["providers"].items():
        text = (pages / f"{ref.replace('/', '-')}.md").read_text()
        assert f"providers/{ref}/README.md" in text
        assert [name for name in manifest["config"]["properties"] if f"| `{name}` |" not in text] == []
    gone = pages / "cache-gone.md"
    gone.write_text("")

    assert generation.generate(package) == [gone]
    assert not gone.exists()
