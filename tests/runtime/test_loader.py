"""Finding the class a manifest names, and saying what is missing when it cannot be found."""

from pathlib import Path

import pytest
from tests.runtime.toys import ToyProvider, manifest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import loader
from erp.runtime.manifest import ProviderManifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "toy" / "dropped"
    made.mkdir(parents=True)
    return made


def dropped(folder: Path, code: str, implementation: str = "provider:Dropped") -> ProviderManifest:
    (folder / "provider.py").write_text(code)
    return manifest(
        f"dropped_{folder.parent.parent.name}".replace("-", "_"), folder=folder, implementation=implementation
    )


def failure(found: ProviderManifest) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        loader.load(found)
    return caught.value


def test_a_class_is_found_by_the_full_name_of_its_module() -> None:
    assert loader.load(manifest()) is ToyProvider


def test_a_missing_library_names_the_extra_to_install(folder: Path) -> None:
    found = dropped(folder, "import erp_no_such_library\n")

    assert failure(found).code is ErrorCode.FAILED_PRECONDITION
    assert failure(found).message == (
        f"The provider {found.ref} needs the module 'erp_no_such_library', which is not installed. "
        "Mend: reinstall the provider."
    )


def test_a_built_in_provider_without_its_module_names_its_extra() -> None:
    found = manifest("gone", package="erp_no_such_package", implementation="provider:Gone", extra="gone-extra")

    assert "pip install 'erp-provider-layer[gone-extra]'" in failure(found).message


def test_a_folder_dropped_in_is_loaded_once(folder: Path) -> None:
    found = dropped(folder, "class Dropped:\n    word = 'first'\n")
    first = loader.load(found)
    (folder / "provider.py").write_text("class Dropped:\n    word = 'second'\n")

    assert first.word == "first"
    assert loader.load(found) is first


@pytest.mark.parametrize(
    "code", ["class Other: ...\n", "class Dropped(\n", "raise ValueError('no')\n", "import nothing from\n"]
)
def test_a_broken_module_is_an_internal_failure_and_can_be_mended(folder: Path, code: str) -> None:
    found = dropped(folder, code)
    error = failure(found)

    assert error.code is ErrorCode.INTERNAL
    assert error.message == f"The provider {found.ref} is broken: provider:Dropped cannot be loaded."
    assert error.detail is not None


def test_after_a_failed_import_the_mended_module_is_loaded(folder: Path) -> None:
    found = dropped(folder, "raise ValueError('no')\n")
    failure(found)

    (folder / "provider.py").write_text("class Dropped: ...\n# mended\n")

    assert loader.load(found).__name__ == "Dropped"


def test_a_folder_without_its_module_is_broken(folder: Path) -> None:
    assert failure(dropped(folder, "", "elsewhere:Dropped")).code is ErrorCode.INTERNAL
