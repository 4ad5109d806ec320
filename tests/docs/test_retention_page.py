"""The page on retention lists every class with the times that are in force."""

from __future__ import annotations

import re
from pathlib import Path

from erp.security.privacy.retention_policy import BOUNDS

PAGE = Path(__file__).parents[2] / "docs" / "security" / "retention.md"
ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| (for ever|\d+ days?) \| (\d+) to (\d+) days \|$", re.MULTILINE)


def test_the_page_says_what_holds() -> None:
    said = [(name, default, int(first), int(last)) for name, default, first, last in ROW.findall(PAGE.read_text())]
    assert said == [
        (name, "for ever" if one.default is None else f"{one.default} day", one.shortest, one.longest)
        for name, one in BOUNDS.items()
    ]
