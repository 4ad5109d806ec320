"""Each rule of the quality scale finds what breaks it, and levels are computed from the rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from erp.runtime.conformance.folder import FolderError, read_folder
from erp.runtime.conformance.quality import LEVELS, all_rules, assess
from erp.runtime.conformance.scaffold import write_provider

PROVIDERS = Path(__file__).parents[2] / "src/erp/providers"
BUILT_IN = sorted(path.parent for path in PROVIDERS.glob("*/*/provider.yaml"))

Manifest = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_provider("cache/example", tmp_path)


def edit(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))


def change(folder: Path, how: Callable[[Manifest], object]) -> None:
    manifest = yaml.safe_load((folder / "provider.yaml").read_text())
    how(manifest)
    (folder / "provider.yaml").write_text(yaml.safe_dump(manifest))


def code(text: str) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "provider.py", "class ExampleCache:", f"{text}\n\n\nclass ExampleCache:")


def body(text: str) -> Callable[[Path], None]:
    return lambda folder: edit(
        folder,
        "provider.py",
        '        return Health(status="ok")',
        f"        {text}\n        return Health(status='ok')",
    )


def module(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "provider.py", old, new)


def readme(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "README.md", old, new)


def stated(**facts: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, lambda manifest: manifest.update(facts))


def setting(name: str, **schema: Any) -> Callable[[Path], None]:
    complete = {"title": "T", "description": "D.", **schema}
    return lambda folder: change(folder, lambda manifest: manifest["config"]["properties"].update({name: complete}))


def conformance(**facts: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, lambda manifest: manifest["conformance"].update(facts))


def file(name: str, text: str = '"""Something."""\n') -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def both(*breaks: Callable[[Path], None]) -> Callable[[Path], None]:
    def each(folder: Path) -> None:
        for one in breaks:
            one(folder)

    return each


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


BREAKS: list[tuple[str, Callable[[Path], None], str]] = [
    ("BRONZE-01", stated(colour="red"), "Additional properties"),
    ("BRONZE-01", stated(ref="cache/other"), "is not the folder"),
    ("BRONZE-01", stated(capabilities=["flight"]), "not in the contract"),
    ("BRONZE-01", stated(capabilities=["ttl"]), "has no method expire"),
    ("BRONZE-01", module("async def get_many", "async def fetch_many"), "has no method get_many"),
    ("BRONZE-02", module("async def get(self", "def get(self"), "get in line"),
    ("BRONZE-02", module("return DeleteResult(", "yield DeleteResult("), "delete in line"),
    ("BRONZE-03", module("async def health", "async def _health"), "no asynchronous method health"),
    ("BRONZE-03", module("__init__(self, config: Config, context: OpenContext)", "__init__(self, config: Config)"), "the constructor"),
    ("BRONZE-04", module("translate: ClassVar[ErrorTable]", "_translate: ClassVar[ErrorTable]"), "no table translate"),
    ("BRONZE-05", code("from erp.control_plane import ControlPlane"), "imports erp.control_plane.ControlPlane"),
    ("BRONZE-05", code("import erp.providers.cache.memory.provider"), "imports erp.providers.cache.memory"),
    ("BRONZE-05", code("from erp import main"), "imports erp.main"),
    ("BRONZE-05", body('__import__("erp.main")'), "imports erp.main"),
    ("BRONZE-05", code("from ..memory import provider"), "imports ..memory from outside"),
    ("BRONZE-06", body("print(1)"), "prints"),
    ("BRONZE-07", body("try:\n            pass\n        except:\n            pass"), "swallows"),
    ("BRONZE-08", body("\n        ".join(["x = 1"] * 41)), "health has"),
    ("BRONZE-08", file("long.py", '"""Long."""\n' + "x = 1\n" * 400), "long.py has 401 lines"),
    ("BRONZE-09", without("README.md"), "no README.md"),
    ("BRONZE-09", readme("Quirks", "Oddities"), "does not show its quirks"),
    ("BRONZE-10", setting("size", type="boolean", description=""), "size has no description"),
    ("BRONZE-11", setting("client_secret", type="string", maxLength=9), "looks like a secret"),
    ("BRONZE-11", setting("password", **{"type": "string", "maxLength": 9, "x-erp-secret": True, "default": "x"}), "has a default"),
    ("BRONZE-12", setting("size", type="integer", minimum=5, maximum=9, default=1), "default of size"),
    ("BRONZE-12", setting("size", type="wrong"), "is no schema"),
    ("BRONZE-13", stated(contract="9.0.0"), "names version 9.0.0"),
    ("BRONZE-14", file("queue.py"), "queue.py is called like"),
    ("BRONZE-14", file("utils.py"), "says nothing about what"),
    ("SILVER-01", body("# TODO: be honest"), "be honest"),
    ("SILVER-02", without("test_example.py"), "no test"),
    ("SILVER-03", body("time.sleep(1)"), "calls time.sleep"),
    ("SILVER-03", body('open("x")'), "calls open"),
    ("SILVER-03", body('Path("x").read_text()'), "read_text, which"),
    ("SILVER-04", body("ThreadPoolExecutor()"), "without a bound"),
    ("SILVER-05", code("import logging"), "imports logging"),
    ("SILVER-06", code("from tenacity import retry"), "imports tenacity"),
    ("SILVER-07", setting("tenant_id", type="string", maxLength=9), "names a tenant"),
    ("SILVER-07", body('os.environ["HOME"]'), "reads the environment"),
    ("SILVER-08", setting("size", type="number", minimum=1), "size has no bounds"),
    ("SILVER-09", setting("host", type="string"), "any text"),
    ("SILVER-10", setting("timeout", type="integer", minimum=1, maximum=2), "has no unit"),
    ("SILVER-11", stated(limits={}), "not stated"),
    ("SILVER-12", conformance(server="redis"), "conformance.unreachable"),
    ("SILVER-13", conformance(gaps=[{"case": "CACHE-01"}]), "gap CACHE-01"),
    ("SILVER-14", code("def untyped(x):\n    return x"), "untyped is not annotated"),
    ("GOLD-01", stated(capabilities=["ttl"]), "ttl is declared"),
    ("GOLD-02", conformance(gaps=[{"case": "CACHE-01", "kind": "ours", "reason": "r"}]), "is ours"),
    ("GOLD-03", conformance(gaps=[{"case": "CACHE-01", "kind": "upstream", "reason": "r"}]), "no link"),
    ("GOLD-04", stated(stability="alpha"), "stability is alpha"),
    ("GOLD-05", file("quiet.py", "x = 1\n"), "quiet.py says nothing"),
    ("GOLD-06", both(stated(extra="redis"), code("import redis")), "imports redis when"),
    ("GOLD-07", body("ErrorCode.BROKEN"), "ErrorCode.BROKEN"),
    ("GOLD-08", body('ProviderError(ErrorCode.CONFLICT, "no")'), "says only 'no'"),
    ("GOLD-09", body("pass  # type: ignore"), "silences"),
    ("GOLD-10", stated(summary="A cache provider."), "the summary reads"),
    ("GOLD-11", readme("/providers/cache/example/set", "/elsewhere"), "no call of"),
    ("PLATINUM-01", stated(capabilities=["ttl"]), "ttl is declared, not P4"),
    ("PLATINUM-02", conformance(gaps=[{"case": "CACHE-01", "kind": "never", "reason": "r"}]), "CACHE-01 is open"),
    ("PLATINUM-03", stated(stability="beta"), "stability is beta"),
    ("PLATINUM-04", stated(capabilities=[]), "`ttl` is missing"),
    ("PLATINUM-05", stated(embedded=False), "no latency_ms"),
    ("PLATINUM-06", stated(embedded=False), "homepage is missing"),
    ("PLATINUM-07", stated(), "no machine"),
    ("PLATINUM-08", stated(), "no machine"),
    ("PLATINUM-09", stated(), "no machine"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "break_it", "words"), BREAKS, ids=[f"{rule}-{words}" for rule, _, words in BREAKS])
def test_what_breaks_a_rule_is_found_with_its_mend(
    rule: str, break_it: Callable[[Path], None], words: str, folder: Path
) -> None:
    break_it(folder)

    found = [str(finding) for finding in assess(read_folder(folder)).findings if finding.rule.id == rule]

    assert any(words in text for text in found), found
    assert all("How to fix: " in text for text in found)


def test_every_rule_has_an_example_that_breaks_it() -> None:
    assert {rule.id for rule in all_rules()} == {rule for rule, _, _ in BREAKS}


def test_rules_are_numbered_without_holes_and_say_what_they_ask_for() -> None:
    for level in LEVELS[1:]:
        mine = [rule for rule in all_rules() if rule.level == level]
        assert [rule.id for rule in mine] == [f"{level.upper()}-{number:02}" for number in range(1, len(mine) + 1)]
    assert [rule.id for rule in all_rules() if not re.search(r"[.:]$|\.", rule.sentence) or not rule.fix] == []


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_built_in_provider_is_sound(path: Path) -> None:
    assert [str(finding) for finding in assess(read_folder(path)).errors] == []


def test_a_level_is_reached_when_all_below_it_hold(folder: Path) -> None:
    edit(folder, "README.md", "<!-- TODO: say for whom it is right, and who should take another -->", "")
    assert assess(read_folder(folder)).level == "silver"

    stated(stability="beta")(folder)
    assert assess(read_folder(folder)).level == "gold"

    body("print(1)")(folder)
    assert assess(read_folder(folder)).level == "none"


def test_a_rule_is_exempt_only_with_a_reason_and_bronze_never(folder: Path) -> None:
    without("test_example.py")(folder)
    conformance(exempt=[{"rule": "SILVER-02", "reason": ""}])(folder)
    assert {finding.rule.id for finding in assess(read_folder(folder)).findings} == {"BRONZE-01"}

    reason = "The suite covers all that it does."
    conformance(exempt=[{"rule": "SILVER-02", "reason": reason}, {"rule": "BRONZE-09", "reason": reason}])(folder)
    without("README.md")(folder)
    found = assess(read_folder(folder))
    assert found.exempt == {"SILVER-02": reason}
    assert {finding.rule.id for finding in found.errors} == {"BRONZE-09"}


@pytest.mark.parametrize(
    ("file_name", "text"),
    [("provider.yaml", "["), ("provider.yaml", "- 1"), ("provider.py", "def ("), ("provider.py", "\x00")],
)
def test_a_folder_that_cannot_be_read_is_refused_with_the_file(file_name: str, text: str, folder: Path) -> None:
    (folder / file_name).write_text(text)

    with pytest.raises(FolderError, match=re.escape(file_name)):
        read_folder(folder)


def test_a_folder_without_a_manifest_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="erp provider new"):
        read_folder(tmp_path)


@pytest.mark.parametrize("value", [None, [], "x", {"gaps": "x"}, {"exempt": "x"}, {"gaps": ["x"]}])
def test_a_manifest_of_wrong_types_is_a_finding_and_no_crash(value: object, folder: Path) -> None:
    for key in ("conformance", "config", "capabilities", "limits", "authentication", "implementation", "contract"):
        stated(**{key: value})(folder)

    assert "BRONZE-01" in {finding.rule.id for finding in assess(read_folder(folder)).errors}
