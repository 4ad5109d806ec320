"""The cases: one module for each domain, and those of every domain."""
