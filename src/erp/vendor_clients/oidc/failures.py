"""What can go wrong between a token, its issuer and us."""

from __future__ import annotations


class TokenRefusedError(Exception):
    """The token is not valid here. The text says why, for logs and tests; callers are never told."""


class IssuerUnavailableError(Exception):
    """The issuer gave no usable answer; asking again later may help."""


class IssuerRefusedError(Exception):
    """The issuer answered with an error of OAuth (RFC 6749, section 5.2)."""

    def __init__(self, error: str, status: int) -> None:
        super().__init__(f"The issuer answered {error} (status {status}).")
        self.error = error
        self.status = status


class IssuerMisconfiguredError(IssuerUnavailableError):
    """What the issuer says of itself contradicts the configuration, or lacks what is needed."""
