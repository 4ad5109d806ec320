"""How an installation fails."""

from __future__ import annotations


class InstallError(Exception):
    """The model could not be installed; the text says why and what to do. Nothing half done is left."""
