"""Nothing in the repository belongs to one machine, one index or one person."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# Each pattern is written so that it does not match itself.
INDEX = re.compile(
    r"--(?:extra-)?index-url|--find-links|^\s*(?:extra-)?index-url\s*=|https?://(?:files\.)?pypi\b|https?://pypi\.org"
    r"|https?://files\.python[h]osted|https?://registry\.npm[j]s|https?://registry\.yarn[p]kg|\"resolve[d]\":",
    re.MULTILINE,
)
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home/\w+|root/\.|Users/\w+|work/(?:main|shared)|opt/pyenv)\b")
SECRET = re.compile(
    r"-----BEGIN (?:RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bxox[abprs]-[A-Za-z0-9-]{20,}|\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"
)
EXAMPLE_SECRETS: dict[str, str] = {}
"""Files that may hold a made-up secret, each with its reason."""
LARGEST_BYTES = 300_000
LARGE_FILES: dict[str, str] = {
    "src/erp/contracts/catalog.json": "generated: what the layer knows of every action and provider when it starts, without reading YAML",
    "src/erp/contracts/openapi.json": "generated, and served as it is: every action of every domain with its schemas",
    "requirements/dev.lock": "generated: a hash of every wheel of everything that the tests of all providers need",
}
"""Files over 300 kB, each with its reason."""
SELF = Path(__file__)


def occurrences(pattern: re.Pattern[str], files: list[Path], root: Path) -> list[str]:
    """Say where ``pattern`` stands in text files, without repeating what it found."""
    found = []
    for path in files:
        text = path.read_bytes().decode(errors="replace")
        name = path.relative_to(root)
        found += [f"{name}:{text.count(chr(10), 0, hit.start()) + 1}" for hit in pattern.finditer(text)]
    return found


def test_no_file_names_a_package_index(repository_files: list[Path], root: Path) -> None:
    assert occurrences(INDEX, [path for path in repository_files if path != SELF], root) == []


def test_no_file_holds_a_path_of_one_machine(repository_files: list[Path], root: Path) -> None:
    assert occurrences(MACHINE_PATH, [path for path in repository_files if path != SELF], root) == []


def test_no_file_holds_a_secret(repository_files: list[Path], root: Path) -> None:
    checked = [path for path in repository_files if str(path.relative_to(root)) not in EXAMPLE_SECRETS]
    assert occurrences(SECRET, checked, root) == []


def test_no_file_is_large(repository_files: list[Path], root: Path) -> None:
    large = {str(path.relative_to(root)) for path in repository_files if path.stat().st_size > LARGEST_BYTES}
    assert large == set(LARGE_FILES)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (INDEX, "--index-url"),
        (INDEX, "index-url = x"),
        (INDEX, "https://pypi.org/simple"),
        (INDEX, '"resolved": "x"'),
        (MACHINE_PATH, "cd /home/somebody/x"),
        (MACHINE_PATH, "/root/.cache"),
        (SECRET, "AKIA" + "A" * 16),
        (SECRET, "ghp_" + "a" * 36),
        (SECRET, "-----BEGIN PRIVATE KEY-----\n" + "M" * 64),
    ],
)
def test_each_pattern_finds_what_it_is_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)
