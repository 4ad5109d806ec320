"""Every embedded provider keeps the contract of its domain: one test for each provider and case."""

from __future__ import annotations

from erp.runtime.conformance.plugin import provider_tests

test_cache_memory = provider_tests("cache/memory")
