"""Keys that are the same in every run."""

from __future__ import annotations

import pytest

from erp.security.keyring import Keyring


@pytest.fixture
def keyring() -> Keyring:
    """A keyring with one key-encryption key."""
    return Keyring(b"pepper of the tests, 32 bytes...", (bytes(range(32)),))
