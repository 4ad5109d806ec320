"""The two tenants of the hostile suite, for requests that nobody has thought of."""

from __future__ import annotations

from tests.hostile.conftest import anyio_backend, scene

__all__ = ["anyio_backend", "scene"]
