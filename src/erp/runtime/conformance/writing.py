"""Reports for people (Markdown) and for CI systems (JUnit XML)."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from erp.runtime.conformance.outcome import Outcome, Report

_MARKS = {
    "passed": "passed",
    "failed": "**FAILED**",
    "gap": "gap",
    "closed_gap": "**closed gap**",
    "not_run": "not run",
}


def markdown(report: Report) -> str:
    """Return a report that can be read without knowing the suite."""
    lines = [
        f"# Conformance of {report.ref} {report.version}",
        "",
        f"Contract {report.contract}. {report.summary}.",
        "",
        "| Case | Rule | Outcome | Why |",
        "|---|---|---|---|",
        *map(_row, report.outcomes),
        "",
    ]
    return "\n".join(lines)


def _row(one: Outcome) -> str:
    reason = one.reason.replace("|", "\\|").replace("\n", " ")
    return f"| {one.case.id} | {one.case.rule} | {_MARKS[one.status]} | {reason} |"


def junit(report: Report) -> str:
    """Return the report as JUnit XML: one test suite, one test case for each case."""
    failures = sum(one.is_bad for one in report.outcomes)
    skipped = sum(one.status in {"gap", "not_run"} for one in report.outcomes)
    seconds = sum(one.seconds for one in report.outcomes)
    suite = Element(
        "testsuite",
        name=report.ref,
        tests=str(len(report.outcomes)),
        failures=str(failures),
        skipped=str(skipped),
        time=f"{seconds:.3f}",
    )
    for one in report.outcomes:
        _case(suite, report.ref, one)
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: Element, ref: str, one: Outcome) -> None:
    name = f"{one.case.id} {one.case.name}"
    made = SubElement(suite, "testcase", classname=ref.replace("/", "."), name=name, time=f"{one.seconds:.3f}")
    if one.is_bad:
        SubElement(made, "failure", message=one.reason).text = one.trace
    elif one.status in {"gap", "not_run"}:
        SubElement(made, "skipped", message=one.reason)
