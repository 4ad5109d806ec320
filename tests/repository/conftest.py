"""What is in the repository: the files git would commit, or all of them where there is no git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", "__pycache__", "node_modules", "_build", "dist", "build", "var", "data"}


def _listed_by_git() -> list[Path] | None:
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def _found_by_walking() -> list[Path]:
    found = ROOT.rglob("*")
    return [path for path in found if not NOT_OURS.intersection(path.relative_to(ROOT).parts)]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def repository_files() -> list[Path]:
    """Every file of the repository, in a fixed order."""
    listed = _listed_by_git()
    return sorted(path for path in (_found_by_walking() if listed is None else listed) if path.is_file())


@pytest.fixture(scope="session")
def python_files(repository_files: list[Path]) -> list[Path]:
    """Python written by people: generated models and migrations have no budgets."""
    generated = (ROOT / "src/erp/contracts/models", ROOT / "src/erp/control_plane/migrations/versions")
    return [
        path
        for path in repository_files
        if path.suffix == ".py" and not any(path.is_relative_to(folder) for folder in generated)
    ]
