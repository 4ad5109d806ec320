"""The conformance kit: proves that a provider keeps its domain's contract.

Cases are written once per rule of the provider specification and run through the whole pipeline
against any provider, built in or not: ``erp conformance cache/redis``, or under pytest with
``--erp-provider cache/redis``.
"""

from erp.runtime.conformance.bench import Bench
from erp.runtime.conformance.case import Case, all_cases, case, cases_for
from erp.runtime.conformance.host import Host
from erp.runtime.conformance.outcome import Outcome, Report
from erp.runtime.conformance.running import Run

__all__ = ["Bench", "Case", "Host", "Outcome", "Report", "Run", "all_cases", "case", "cases_for"]
