"""The cookies of the gateway: what they are called, what protects them, and what a browser says with them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PAIR = re.compile(r"(?:^|;) *([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([^;]*)")
MAX_COOKIE = 8192


def cookie(header: str | None, name: str) -> str | None:
    """Return the value of a cookie (RFC 6265, section 4.2.1); None when it is absent, or sent twice with two values."""
    if not header or len(header) > MAX_COOKIE:
        return None
    values = {match[2].strip() for match in _PAIR.finditer(header) if match[1] == name}
    return values.pop() if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class CookieNames:
    """How cookies are called: with https, by names that browsers protect (RFC 6265bis, section 4.1.3)."""

    is_secure: bool

    @property
    def session(self) -> str:
        """Proves the session; no script can read it."""
        return "__Host-erp_session" if self.is_secure else "erp_session"

    @property
    def csrf(self) -> str:
        """What pages send back as ``X-CSRF-Token``; scripts of ours read it."""
        return "__Host-erp_csrf" if self.is_secure else "erp_csrf"

    @property
    def sign_in(self) -> str:
        """The sign-in that has begun."""
        return "__Secure-erp_sign_in" if self.is_secure else "erp_sign_in"

    def set(self, name: str, value: str, *, seconds: int, path: str = "/", is_readable: bool = False) -> str:
        """Return a ``Set-Cookie`` value; zero seconds remove it."""
        parts = [f"{name}={value}", f"Max-Age={seconds}", f"Path={path}", "SameSite=Lax"]
        parts += [] if is_readable else ["HttpOnly"]
        return "; ".join([*parts, *(["Secure"] if self.is_secure else [])])
