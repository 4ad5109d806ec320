"""Every embedded provider keeps the contract of its domain: one test for each provider and case."""

from __future__ import annotations

from erp.runtime.conformance.plugin import provider_tests

test_ai_local = provider_tests("ai/local")
test_auth_local = provider_tests("auth/local")
test_bus_log = provider_tests("bus/log")
test_cache_memory = provider_tests("cache/memory")
test_db_sqlite = provider_tests("db/sqlite")
test_secrets_local = provider_tests("secrets/local")
test_storage_filesystem = provider_tests("storage/filesystem")
