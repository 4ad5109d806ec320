"""The layer as a service provider of SAML 2.0: Web Browser SSO profile (saml-profiles-2.0-os, section 4.1).

Requests go by HTTP-Redirect, responses come by HTTP-POST. Assertions must be signed, with SHA-256 or better; each is good
for one sign-in. Checking one costs about 20 ms of computation, so it is done in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.errors import ProviderError
from erp.security.saml_encryption import NotAllowedError, is_encrypted

if TYPE_CHECKING:
    from erp.control_plane.directory import Directory
    from erp.control_plane.saml import SamlProvider, SamlProviders, SamlSettings
    from erp.security.saml_keys import KeyPair, SamlKeys

SKEW_SECONDS = 300
"""What python3-saml allows clocks to differ by (``OneLogin_Saml2_Constants.ALLOWED_CLOCK_DRIFT``)."""
LONGEST_SECONDS = 3600
"""How long an assertion is remembered that does not say how long it is valid."""
MOST_SUBJECT = 255
REFUSAL = "The answer of the identity provider is not valid. Begin again."
_RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
_SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-"


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """What a valid response says."""

    subject: str
    roles: list[str]
    request: str
    """Id of the request that it answers."""
    name_id: str | None = None
    """What the identity provider calls the person,"""
    session_index: str | None = None
    """and the session, when it ends it."""


class Place(msgspec.Struct, frozen=True):
    """Where the layer is reached as the service provider of one tenant and identity provider."""

    base: str
    """For example ``https://erp.example.com/auth/saml/acme/office``."""

    @property
    def entity_id(self) -> str:
        """Who the layer is; also where its metadata are."""
        return f"{self.base}/metadata"

    @property
    def consumer(self) -> str:
        """Where responses are sent."""
        return f"{self.base}/acs"

    @property
    def logout(self) -> str:
        """Where requests to end sessions are sent."""
        return f"{self.base}/logout"


class SamlSignIn:
    """Asks identity providers, and believes what they have signed, once."""

    def __init__(self, providers: SamlProviders, directory: Directory, keys: SamlKeys) -> None:
        self._providers = providers
        self._directory = directory
        self.keys = keys

    async def metadata(self, place: Place, provider: SamlProvider) -> str:
        """Return the metadata of the layer (saml-metadata-2.0-os) as XML."""
        settings = provider.settings
        needs_key = settings.encryption != "none" or settings.slo_url is not None
        pair = await self.keys.newest(provider.tenant) if needs_key else None
        made: str = await asyncio.to_thread(
            lambda: library_settings(place, settings, pair, describe=True).get_sp_metadata()
        )
        return made

    async def request(self, place: Place, settings: SamlSettings) -> tuple[str, str]:
        """Return the URL that takes a browser to the identity provider with a new request, and the request's id."""

        def made() -> tuple[str, str]:
            from onelogin.saml2.auth import OneLogin_Saml2_Auth

            auth = OneLogin_Saml2_Auth(request_of(place.consumer), library_settings(place, settings))
            return auth.login(return_to=""), auth.get_last_request_id()

        return await asyncio.to_thread(made)

    async def accept(self, place: Place, provider: SamlProvider, response: str) -> SignedIn:
        """Return what a response says, and never again for the same assertion.

        Args:
            place: who the layer is to this provider.
            provider: whose response it has to be.
            response: as it came: base64 of XML.

        Raises:
            ProviderError: ``permission_denied``: it is not signed, not valid, not for us, too old, was used before, or
                gives the person no role here.
        """
        settings = provider.settings
        pairs = [] if settings.encryption == "none" else await self.keys.known(provider.tenant)
        found = await asyncio.to_thread(_checked, place, settings, pairs, response)
        ends = moments.after(max(0.0, (found["ends"] or time.time() + LONGEST_SECONDS) - time.time()) + SKEW_SECONDS)
        if not await self._providers.use(provider.tenant, settings.entity_id, found["assertion"], ends):
            raise refused("The assertion was used before.")
        attributes: dict[str, list[str]] = found["attributes"]
        subject = found["name_id"]
        if settings.subject_attribute is not None:
            named = attributes.get(settings.subject_attribute, [])
            subject = named[0] if len(named) == 1 else ""
        if not subject or len(subject) > MOST_SUBJECT or not subject.isprintable():
            raise refused("The assertion does not name the person in a way that is known here.")
        roles = _roles(attributes, settings)
        standing = await self._directory.standing(provider.tenant, subject)
        if standing is not None and not standing.is_active:
            raise refused("The person was deactivated.")
        if not roles and (standing is None or not standing.roles):
            raise ProviderError(ErrorCode.PERMISSION_DENIED, "You have no role here. Ask an administrator for one.")
        return SignedIn(
            subject=subject,
            roles=roles,
            request=found["request"],
            name_id=found["name_id"] or None,
            session_index=found["session_index"],
        )


def _roles(attributes: dict[str, list[str]], settings: SamlSettings) -> list[str]:
    """Only what the tenant has mapped: a role of the provider is none of the layer by having its name."""
    named = attributes.get(settings.roles_attribute, []) if settings.roles_attribute else []
    roles = sorted({settings.role_map[name] for name in named if name in settings.role_map})
    if not roles and settings.default_role is not None:
        roles = [settings.default_role]
    return roles


def _checked(place: Place, settings: SamlSettings, pairs: list[KeyPair], response: str) -> dict[str, Any]:
    made = {None: library_settings(place, settings)} | {pair: library_settings(place, settings, pair) for pair in pairs}
    try:
        fitting = [made[pair] for pair in _fitting(settings, pairs, response)]
        return _facts(_opened(fitting, response), request_of(place.consumer))
    except Exception as error:  # whatever a forged document makes the libraries raise, it is refused
        raise refused(f"{type(error).__name__}: {error}") from error


def _fitting(settings: SamlSettings, pairs: list[KeyPair], response: str) -> Sequence[KeyPair | None]:
    """Return what to open a response with; None: nothing is needed."""
    from onelogin.saml2.utils import OneLogin_Saml2_Utils
    from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

    if is_encrypted(OneLogin_Saml2_XML.to_etree(OneLogin_Saml2_Utils.b64decode(response))):
        if pairs:
            return pairs
        raise NotAllowedError("The assertion is encrypted, but encryption is not set up for this provider.")
    if settings.encryption == "required":
        raise NotAllowedError("The assertion is not encrypted, but has to be.")
    return [None]


def _opened(settings: list[Any], response: str) -> Any:
    """Return the response, decrypted with the first key that fits when it is encrypted."""
    import xmlsec
    from onelogin.saml2.response import OneLogin_Saml2_Response

    for one in settings[:-1]:
        try:
            return OneLogin_Saml2_Response(one, response)
        except xmlsec.Error:
            continue
    return OneLogin_Saml2_Response(settings[-1], response)


def _facts(found: Any, request: dict[str, Any]) -> dict[str, Any]:
    found.is_valid(request, raise_exceptions=True)
    # Of the signed assertion: what the response around it says of its request anybody can have written.
    confirmations = found._query_assertion("/saml:Subject/saml:SubjectConfirmation/saml:SubjectConfirmationData")  # noqa: SLF001
    requests = {one.get("InResponseTo") or "" for one in confirmations}
    return {
        "assertion": found.get_assertion_id(),
        "ends": found.get_assertion_not_on_or_after(),
        "name_id": found.get_nameid() or "",
        "session_index": found.get_session_index(),
        "attributes": {name: [str(value) for value in values] for name, values in found.get_attributes().items()},
        "request": requests.pop() if len(requests) == 1 else "",
    }


def refused(reason: str) -> ProviderError:
    """Return a refusal that says nothing to the caller, and ``reason`` to the audit trail."""
    return ProviderError(ErrorCode.PERMISSION_DENIED, REFUSAL, detail=reason[:500])


def request_of(url: str) -> dict[str, Any]:
    """Describe a request to ``url`` as the library wants it."""
    parts = urlsplit(url)
    return {
        "https": "on" if parts.scheme == "https" else "off",
        "http_host": parts.netloc,
        "script_name": parts.path,
        "get_data": {},
        "post_data": {},
    }


def library_settings(
    place: Place, settings: SamlSettings, pair: KeyPair | None = None, *, describe: bool = False
) -> Any:
    """Return who both sides are, and what is asked of messages, as the library wants it.

    Raises:
        ProviderError: ``failed_precondition`` when the library is not installed.
    """
    try:
        from onelogin.saml2.settings import OneLogin_Saml2_Settings
    except ImportError as error:
        message = "SAML needs the extra saml: pip install 'erp-provider-layer[saml]'."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    facts = {
        "strict": True,
        "debug": False,
        "sp": {
            "entityId": place.entity_id,
            "assertionConsumerService": {"url": place.consumer, "binding": f"{_BINDING}POST"},
            "NameIDFormat": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
            **({} if pair is None else {"x509cert": pair.certificate, "privateKey": pair.key}),
            **({} if settings.slo_url is None else {"singleLogoutService": _redirect(place.logout)}),
        },
        "idp": {
            "entityId": settings.entity_id,
            "singleSignOnService": _redirect(settings.sso_url),
            **({} if settings.slo_url is None else {"singleLogoutService": _redirect(settings.slo_url)}),
            "x509certMulti": {"signing": settings.certificates, "encryption": settings.certificates[:1]},
        },
        "security": {
            "wantAssertionsSigned": True,
            "wantAssertionsEncrypted": describe and settings.encryption != "none",
            "wantMessagesSigned": False,
            "logoutResponseSigned": settings.slo_url is not None and pair is not None,
            "wantNameId": settings.subject_attribute is None,
            "wantAttributeStatement": False,
            "rejectDeprecatedAlgorithm": True,
            "signatureAlgorithm": _RSA_SHA256,
            "digestAlgorithm": _SHA256,
            "requestedAuthnContext": False,
            "allowRepeatAttributeName": True,
        },
    }
    return OneLogin_Saml2_Settings(facts)


def _redirect(url: str) -> dict[str, str]:
    return {"url": url, "binding": f"{_BINDING}Redirect"}
