"""The locks say what is installed, completely and for every machine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

LOCKS = ("runtime", "dev", "tools", "fakesnow")
PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)(?:\[[^]]+\])?==(?P<version>[^ ;\\]+)(?P<marker> ;[^\\]*)?", re.MULTILINE)


def pins(root: Path, lock: str) -> set[tuple[str, str]]:
    text = (root / "requirements" / f"{lock}.lock").read_text()
    return {(pin["name"], pin["version"]) for pin in PIN.finditer(text)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(root: Path, lock: str) -> None:
    entries = re.split(r"\n(?=\S)", (root / "requirements" / f"{lock}.lock").read_text().strip())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host_and_no_path(root: Path, lock: str) -> None:
    text = (root / "requirements" / f"{lock}.lock").read_text()
    assert re.findall(r"://|@ |^#|^-", text, re.MULTILINE) == []


def test_development_uses_the_same_versions_as_running(root: Path) -> None:
    assert sorted(pins(root, "runtime") - pins(root, "dev")) == []


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in requirements}


def test_every_direct_dependency_is_locked(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]

    assert sorted(names(project["dependencies"]) - {name for name, _ in pins(root, "runtime")}) == []
    assert sorted(names(extras) - {name for name, _ in pins(root, "dev")}) == []


def test_the_build_backend_is_the_locked_one(root: Path) -> None:
    (requirement,) = tomllib.loads((root / "pyproject.toml").read_text())["build-system"]["requires"]
    name, version = requirement.split("==")
    assert (name, version) in pins(root, "runtime")
    assert requirement in (root / "requirements/build.in").read_text().splitlines()


def test_no_lock_that_embeds_addresses_is_kept(repository_files: list[Path]) -> None:
    assert [path.name for path in repository_files if path.name in {"uv.lock", "pylock.toml", "poetry.lock"}] == []
