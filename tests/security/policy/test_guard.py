"""What the embedded engine gets wrong is kept away from it."""

from __future__ import annotations

import json
import threading

import pytest

from erp.runtime.context import Actor
from erp.runtime.question import Question
from erp.security.policy.document import Facts, document, encoded, safe
from erp.security.policy.engines import ENTRY, UNDECIDED, platform_modules, verdict
from erp.security.policy.rego import MAX_SOURCE_BYTES, RegoError, compiled

HEAD = "package tenant\nimport rego.v1\n"


def findings(body: str) -> list[str]:
    with pytest.raises(RegoError) as raised:
        compiled({"p.rego": HEAD + body}, "tenant/deny")
    return [f"{one.line}: {one.problem}" for one in raised.value.findings]


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
    compiled({"p.rego": HEAD + 'deny contains "do not come with input" if input.a # with data\n'}, "tenant/deny")


def test_what_is_malformed_is_refused_with_its_line() -> None:
    assert findings('\ndeny contains "x" if {\n')[0] == "4: This is unclosed."


def test_an_oversized_module_is_refused() -> None:
    assert findings("#" * MAX_SOURCE_BYTES) == [f"1: The module has more than {MAX_SOURCE_BYTES} bytes."]


def test_texts_reach_the_policy_as_they_are_or_encoded() -> None:
    program = compiled({"p.rego": HEAD + "deny contains input.a\n"}, "tenant/deny")

    for text in ("a", "Müller", "日本", "a b", "50 %"):
        assert program.evaluate("tenant/deny", encoded({"a": safe(text)})) == [safe(text)]
    assert safe('a"b\\c\n%') == "a%22b%5Cc%0A%25"


def test_literals_that_are_not_ascii_are_equal_to_the_same_input() -> None:
    program = compiled({"p.rego": HEAD + 'deny contains "found" if input.a == "Müller"\n'}, "tenant/deny")

    assert program.evaluate("tenant/deny", encoded({"a": "Müller"})) == ["found"]


def test_large_numbers_stay_what_they_are() -> None:
    program = compiled(
        {"p.rego": HEAD + 'deny contains "same" if input.a == 123456789012345678901234567890\n'}, "tenant/deny"
    )

    assert program.evaluate("tenant/deny", '{"a": 123456789012345678901234567890}') == ["same"]


def test_threads_do_not_get_each_others_answers() -> None:
    program = compiled({"p.rego": HEAD + "deny contains input.a\n"}, "tenant/deny")
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(200):
            if program.evaluate("tenant/deny", json.dumps({"a": f"n{number}"})) != [f"n{number}"]:
                wrong.append(number)  # noqa: PERF401  (as it happens, from a thread)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_undefined_or_no_input_is_nothing() -> None:
    program = compiled({"p.rego": "package other\nimport rego.v1\nx := 1\n"}, "tenant/deny")

    assert program.evaluate("tenant/deny", "{}") is None
    assert program.evaluate("tenant/deny", "no json") is None


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


def test_the_platforms_policy_calls_only_what_it_may() -> None:
    program = compiled(platform_modules(), ENTRY)
    question = Question(
        actor=Actor(id="k", tenant="acme", roles=frozenset({"developer"})),
        area="providers",
        domain="cache",
        name="memory",
        action="get",
        effect="read",
    )

    assert verdict(program.evaluate(ENTRY, encoded(document(question, Facts())))).allow
