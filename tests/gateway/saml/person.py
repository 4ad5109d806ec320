"""Somebody with a browser who signs in by SAML."""

from __future__ import annotations

import asyncio
import base64

import httpx2
from tests.support.contract_client import contract_client
from tests.support.saml_peer import Encryption, IdentityProvider

from erp.main import Layer

BASE = "/auth/saml/acme/office"
START = "/me?from=saml"


class Person:
    """Somebody with a browser who signs in at ``acme``."""

    def __init__(self, layer: Layer, provider: IdentityProvider) -> None:
        self.layer = layer
        self.provider = provider
        self.browser = contract_client(layer.application())

    async def begin(self, start: str = START) -> tuple[str, str]:
        """Go to the identity provider; return the request and the metadata of the layer."""
        metadata = await self.browser.get(f"{BASE}/metadata")
        begun = await self.browser.get(f"{BASE}/login", params={"return_to": start})
        assert (metadata.status_code, begun.status_code) == (200, 303), begun.text
        return begun.headers["location"], metadata.text

    async def answered(self, encryption: Encryption | None = None, **facts: str) -> str:
        """Begin, and return what the identity provider answers."""
        request, metadata = await self.begin()
        return await asyncio.to_thread(self.provider.answer, request, metadata, encryption, **facts)

    async def post(self, xml: str) -> httpx2.Response:
        """Send a response as another site makes the browser send it: without cookies."""
        form = {"SAMLResponse": base64.b64encode(xml.encode()).decode()}
        async with contract_client(self.layer.application()) as without_cookies:
            return await without_cookies.post(f"{BASE}/acs", data=form)

    async def sign_in(self, **facts: str) -> httpx2.Response:
        """Sign in; return the last answer."""
        accepted = await self.post(await self.answered(**facts))
        return await self.follow(accepted)

    async def follow(self, accepted: httpx2.Response) -> httpx2.Response:
        return await self.browser.get(accepted.headers["location"]) if accepted.status_code == 303 else accepted

    async def is_nobody(self) -> bool:
        """Whether nobody is signed in: no session was made, and the browser has none."""
        found, _ = await self.layer.people.browser.sessions.list("acme", subject=None, cursor=None, limit=10)
        return found == [] and (await self.browser.get("/me")).status_code == 401
