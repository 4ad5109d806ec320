"""Every bash and python block of the documentation runs against a live server.

A ``json`` block right after one is the answer it must print: ``"..."`` stands for any value, a list
ending in ``"..."`` may be longer, and members that are not shown are not compared. Blocks in other
languages (``sh`` for set-up) are shown, not run. Pages that speak of a server of the reader's get one from ``PEERS``,
and are skipped by name where there is none.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ANY = "..."


@dataclass(frozen=True)
class Example:
    """One block that runs, with the answer that the document promises."""

    place: str
    language: str
    code: str
    answer: str | None


def read_examples(text: str, name: str) -> list[Example]:
    """Return the blocks of one document that run, in their order."""
    blocks = list(FENCE.finditer(text))
    followers = [*blocks[1:], None][: len(blocks)]
    return [
        Example(
            place=f"{name}:{text.count(chr(10), 0, block.start()) + 1}",
            language=block["language"],
            code=block["code"],
            answer=follower["code"] if follower and _answers(text, block, follower) else None,
        )
        for block, follower in zip(blocks, followers, strict=True)
        if block["language"] in {"bash", "python"}
    ]


def _answers(text: str, block: re.Match[str], follower: re.Match[str]) -> bool:
    return follower["language"] == "json" and not text[block.end() : follower.start()].strip()


def differences(shown: Any, actual: Any, pointer: str = "") -> list[str]:
    """Say where ``actual`` is not what a document shows."""
    if shown == ANY:
        return []
    if isinstance(shown, dict) and isinstance(actual, dict):
        missing = [f"{pointer}/{name} is missing" for name in shown if name not in actual]
        common = [name for name in shown if name in actual]
        return missing + [line for n in common for line in differences(shown[n], actual[n], f"{pointer}/{n}")]
    if isinstance(shown, list) and isinstance(actual, list):
        return _list_differences(shown, actual, pointer)
    if type(shown) is type(actual) and shown == actual:
        return []
    return [f"{pointer or '/'}: shown {shown!r}, was {actual!r}"]


def _list_differences(shown: list[Any], actual: list[Any], pointer: str) -> list[str]:
    is_open = bool(shown) and shown[-1] == ANY
    wanted = shown[:-1] if is_open else shown
    if len(actual) < len(wanted) or (len(actual) > len(wanted) and not is_open):
        return [f"{pointer}: shown {len(wanted)} items, were {len(actual)}"]
    pairs = enumerate(zip(wanted, actual, strict=False))
    return [line for index, (s, a) in pairs for line in differences(s, a, f"{pointer}/{index}")]


EXAMPLES = [
    example
    for document in DOCUMENTS
    for example in read_examples(document.read_text(), str(document.relative_to(ROOT)))
]
PEERS = {
    "docs/how-to/browser-sessions.md": "openid_provider",
    "docs/how-to/sign-in-with-your-identity-provider.md": "openid_provider",
    "docs/how-to/sign-in-by-saml.md": "saml_provider",
}
"""Pages whose commands speak of a server of the reader's: the fixture that stands for it, and gives what the page names."""
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: the documented calls cannot be made")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.place)
def test_documented_example_prints_what_the_document_shows(
    example: Example, live_environment: dict[str, str], reader_folder: Path, request: pytest.FixtureRequest
) -> None:
    peer = PEERS.get(example.place.partition(":")[0])
    require_as_shown(example, live_environment | (request.getfixturevalue(peer) if peer else {}), reader_folder)


def require_as_shown(example: Example, environment: dict[str, str], folder: Path) -> None:
    """Run a block as a reader does, and hold what it prints to what the document shows."""
    ended = subprocess.run(
        [*COMMANDS[example.language], example.code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    if example.answer is not None:
        assert differences(json.loads(example.answer), json.loads(ended.stdout)) == [], ended.stdout


def test_readme_has_examples_in_both_languages() -> None:
    languages = {example.language for example in EXAMPLES if example.place.startswith("README.md")}
    assert languages == {"bash", "python"}


def test_a_block_is_paired_only_with_the_answer_that_follows_it() -> None:
    text = "```bash\necho 1\n```\n\n```json\n1\n```\n\n```bash\necho 2\n```\n\nprose\n\n```json\n3\n```\n\n```sh\nno\n```\n"
    assert read_examples(text, "page.md") == [
        Example("page.md:1", "bash", "echo 1\n", "1\n"),
        Example("page.md:9", "bash", "echo 2\n", None),
    ]


@pytest.mark.parametrize(
    ("_case", "shown", "actual", "expected"),
    [
        ("any value", {"a": "..."}, {"a": [1], "b": 2}, []),
        ("missing member", {"a": "..."}, {}, ["/a is missing"]),
        ("other value", {"a": {"b": 1}}, {"a": {"b": 2}}, ["/a/b: shown 1, was 2"]),
        ("true is not one", [True], [1], ["/0: shown True, was 1"]),
        ("closed list", [1], [1, 2], [": shown 1 items, were 2"]),
        ("open list", [1, "..."], [1, 2], []),
        ("open list too short", [1, 2, "..."], [1], [": shown 2 items, were 1"]),
    ],
)
def test_answers_are_compared_by_what_the_document_shows(
    _case: str, shown: Any, actual: Any, expected: list[str]
) -> None:
    assert differences(shown, actual) == expected
