"""The conformance suite as a test module, for those who run pytest anyway.

pytest --pyargs erp.runtime.conformance.suite --erp-provider cache/example --erp-config settings.yaml
"""

from __future__ import annotations

from erp.runtime.conformance.case import Case
from erp.runtime.conformance.plugin import Suite, judge


def test_conformance(suite: Suite, case: Case) -> None:
    """One case of the provider that ``--erp-provider`` names."""
    judge(suite.outcome(case))
