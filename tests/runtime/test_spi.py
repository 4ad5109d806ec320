"""The interface that providers see quotes the rules that the conformance suite proves."""

from __future__ import annotations

import re
from pathlib import Path

from erp.runtime import spi
from erp.runtime.conformance import all_cases
from erp.runtime.conformance.spec import provider_spec

QUOTED = re.compile(r"\b[A-Z]{2,8}-[0-9]{2}\b")


def test_every_rule_that_the_interface_quotes_has_a_case() -> None:
    quoted = set(QUOTED.findall(Path(spi.__file__).read_text()))
    assert quoted
    assert quoted - {case.id for case in all_cases()} == set()


def test_the_specification_names_every_case_once_and_nothing_else() -> None:
    named = re.findall(r"^- \*\*([A-Z]+-[0-9]{2})\*\* (\S)", provider_spec(), re.MULTILINE)
    assert sorted(name for name, _ in named) == sorted(case.id for case in all_cases())


def test_every_rule_is_normative() -> None:
    vague = [case.id for case in all_cases() if not re.search(r"\b(MUST|SHOULD|MAY)\b", case.rule)]
    assert vague == []
