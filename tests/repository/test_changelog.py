"""Every fragment of the changelog can be put into a release as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FRAGMENTS = sorted(path for path in (Path(__file__).parents[2] / "changelog.d").iterdir() if path.is_file())
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.(?P<kind>added|changed|fixed|removed|breaking|security)\.md")


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_one_paragraph_of_a_known_kind(fragment: Path) -> None:
    named = NAME.fullmatch(fragment.name)
    assert named, "a fragment is called <slug>.<added|changed|fixed|removed|breaking|security>.md"
    text = fragment.read_text()
    is_breaking = named["kind"] == "breaking"
    assert len(text.strip().split("\n\n")) == (2 if is_breaking else 1)
    assert ("\n\nMigration: " in text) == is_breaking
    assert text.endswith(".\n")
    assert not text.startswith(("#", "-", "*"))
