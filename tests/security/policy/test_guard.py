"""What the embedded engine gets wrong is kept away from it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from erp.security.policy.document import encoded, safe
from erp.security.policy.engines import UNDECIDED, verdict
from erp.security.policy.process import NoAnswerError, RegoProcess
from erp.security.policy.rego import MAX_SOURCE_BYTES, Finding

HEAD = "package tenant\nimport rego.v1\n"
ATTEMPTS = 3


def asked(body: str, input_: str = "{}", *, module: str = HEAD) -> tuple[list[str], Any]:
    """What the engine says of a module in a process of its own, which it may take with it; asked again, as the layer does."""

    async def ask() -> tuple[list[Finding], Any]:
        process = RegoProcess(seconds=10)
        try:
            return await process.findings("p", {"p.rego": module + body}, "tenant/deny", input_)
        finally:
            await process.close()

    for _ in range(ATTEMPTS):
        with suppress(NoAnswerError):
            findings, value = asyncio.run(ask())
            return [f"{one.line}: {one.problem}" for one in findings], value
    pytest.fail("the engine gave no answer")


def findings(body: str) -> list[str]:
    found, _ = asked(body)
    return found


@pytest.mark.parametrize(
    "call",
    [
        'net.cidr_contains("10.0.0.0/8", input.ip)',
        'graphql.is_valid("a", "b")',
        'http.send({"method": "get", "url": "http://127.0.0.1/"}).status_code == 200',
        "opa.runtime().env.HOME",
        'rand.intn("x", 2) == 1',
        'net.lookup_ip_addr("localhost")',
        "time.now_ns() > 1",
        'sprintf("%s", ["x"]) == "x"',
        "no_such_function(input.a)",
        'object.union({"a": 1}, {"b": 2}).a == 1',
        "numbers.range(1, 1000000000)[_] == 5",
        'json.unmarshal("1") == 1',
        'crypto.sha256("a") == "b"',
    ],
)
def test_a_function_the_engine_has_not_or_must_not_have_is_refused_by_name(call: str) -> None:
    name = call.split("(", maxsplit=1)[0]

    assert findings(f'deny contains "x" if not {call}\n') == [f"3: Policies may not call {name}."]


def test_what_ends_the_engine_is_refused_before_it_is_compiled() -> None:
    assert findings('deny contains "x" if { y with input as 2 }\n') == ["3: Policies may not use `with`."]
    assert findings('deny contains "do not come with input" if input.a # with data\n') == []


def test_what_is_malformed_is_refused_with_its_line() -> None:
    assert findings('\ndeny contains "x" if {\n')[0] == "4: This is unclosed."


def test_an_oversized_module_is_refused() -> None:
    assert findings("#" * MAX_SOURCE_BYTES) == [f"1: The module has more than {MAX_SOURCE_BYTES} bytes."]


def test_texts_reach_the_policy_as_they_are_or_encoded() -> None:
    for text in ("a", "Müller", "日本", "a b", "50 %"):
        assert asked("deny contains input.a\n", encoded({"a": safe(text)})) == ([], [safe(text)])
    assert safe('a"b\\c\n%') == "a%22b%5Cc%0A%25"


def test_literals_that_are_not_ascii_are_equal_to_the_same_input() -> None:
    assert asked('deny contains "found" if input.a == "Müller"\n', encoded({"a": "Müller"})) == ([], ["found"])


def test_large_numbers_stay_what_they_are() -> None:
    number = 123456789012345678901234567890
    body = f'deny contains "same" if input.a == {number}\n'

    assert asked(body, f'{{"a": {number}}}') == ([], ["same"])


def test_questions_at_once_do_not_get_each_others_answers() -> None:
    async def ask() -> list[Any]:
        process = RegoProcess(seconds=30)
        modules = {"p.rego": HEAD + "deny contains input.a\n"}
        try:
            waiting = (process.evaluate("p", modules, "tenant/deny", f'{{"a": "n{n}"}}') for n in range(100))
            return await asyncio.gather(*waiting)
        finally:
            await process.close()

    assert asyncio.run(ask()) == [[f"n{number}"] for number in range(100)]


def test_what_is_undefined_or_no_input_is_nothing() -> None:
    assert asked("x := 1\n", module="package other\nimport rego.v1\n") == ([], None)
    assert asked("deny contains input.a\n", "no json") == ([], None)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        True,
        [],
        {"allow": True},
        {"allow": "true", "reason": "x", "grants": ["role admin"], "denials": []},
        {"allow": True, "reason": "x", "grants": [], "denials": []},
        {"allow": True, "reason": "x", "grants": ["role admin"], "denials": ["no"]},
        {"allow": False, "reason": "x", "grants": ["role admin"], "denials": []},
    ],
)
def test_an_answer_that_is_no_whole_verdict_decides_nothing(answer: object) -> None:
    assert verdict(answer) is UNDECIDED
