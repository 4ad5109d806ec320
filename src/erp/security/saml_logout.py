"""Single logout that an identity provider begins (saml-profiles-2.0-os, section 4.4), by HTTP-Redirect on both ways.

A request counts when it is signed by a certificate of the provider, with SHA-256 or better, is meant for exactly this
place, is young, and was not used before: it could else be found in the history of a browser, and used again.
"""

from __future__ import annotations

import asyncio
import datetime
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.errors import ProviderError
from erp.security.saml import SKEW_SECONDS, library_settings, refused, request_of

if TYPE_CHECKING:
    from erp.control_plane.saml import SamlProvider, SamlProviders, SamlSettings
    from erp.security.saml import Place
    from erp.security.saml_keys import KeyPair, SamlKeys

OLDEST_SECONDS = 600
MOST_XML = 64 * 1024
"""Bytes of an inflated request."""
MOST_INDEXES = 100
_NAMES = frozenset({"SAMLRequest", "RelayState", "SigAlg", "Signature"})
_ALGORITHMS = frozenset(f"http://www.w3.org/2001/04/xmldsig-more#rsa-sha{bits}" for bits in (256, 384, 512))
_ENCRYPTED = "{http://www.w3.org/2001/04/xmlenc#}*"


class Logout(msgspec.Struct, frozen=True, kw_only=True):
    """What a valid request asks for."""

    name_id: str
    """Whose sessions."""
    session_indexes: list[str]
    """Which of them; none: all."""
    answer: str
    """Where the browser takes the signed answer to."""


class SamlLogout:
    """Believes what identity providers have signed, once."""

    def __init__(self, providers: SamlProviders, keys: SamlKeys) -> None:
        self._providers = providers
        self._keys = keys

    async def accept(self, place: Place, provider: SamlProvider, query: str) -> Logout:
        """Return what a request asks for.

        Args:
            place: who the layer is to this provider.
            provider: whose request it has to be.
            query: as it came, for the signature is over its very bytes (saml-bindings-2.0-os, section 3.4.4.1).

        Raises:
            ProviderError: ``permission_denied``: it is not signed, not valid, not for us, too old or was used before;
                ``failed_precondition`` when the provider has no address for answers.
        """
        settings = provider.settings
        if settings.slo_url is None:
            message = "Single logout is not set up for this identity provider: it has no slo_url."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        pair = await self._keys.newest(provider.tenant)
        id_, found = await asyncio.to_thread(_checked, place, settings, pair, query)
        ends = moments.after(OLDEST_SECONDS + 2 * SKEW_SECONDS)
        if not await self._providers.use(provider.tenant, settings.entity_id, id_, ends):
            raise refused("The request for a logout was used before.")
        return found


def _checked(place: Place, settings: SamlSettings, pair: KeyPair, query: str) -> tuple[str, Logout]:
    made = library_settings(place, settings, pair)
    try:
        return _facts(made, place, query)
    except Exception as error:  # whatever a forged request makes the libraries raise, it is refused
        raise refused(f"{type(error).__name__}: {error}") from error


def _facts(settings: Any, place: Place, query: str) -> tuple[str, Logout]:
    from onelogin.saml2.auth import OneLogin_Saml2_Auth
    from onelogin.saml2.logout_request import OneLogin_Saml2_Logout_Request
    from onelogin.saml2.utils import OneLogin_Saml2_Utils
    from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

    given = _parameters(query)
    root = OneLogin_Saml2_XML.to_etree(_inflated(OneLogin_Saml2_Utils.b64decode(given["SAMLRequest"])))
    _check_frame(root, place)
    request = {**request_of(place.logout), "get_data": given, "query_string": query, "validate_signature_from_qs": True}
    auth = OneLogin_Saml2_Auth(request, settings)
    answer = auth.process_slo(keep_local_session=True)
    if auth.get_errors():
        raise ValueError(f"{', '.join(auth.get_errors())}: {auth.get_last_error_reason() or ''}")
    text = auth.get_last_request_xml()
    indexes = OneLogin_Saml2_Logout_Request.get_session_indexes(text)[:MOST_INDEXES]
    name_id = OneLogin_Saml2_Logout_Request.get_nameid(text)
    return root.get("ID"), Logout(name_id=name_id, session_indexes=indexes, answer=answer)


def _parameters(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=2 * len(_NAMES))
    given = dict(pairs)
    if len(given) != len(pairs) or not given.keys() <= _NAMES or not given.keys() >= _NAMES - {"RelayState"}:
        raise ValueError("It needs SAMLRequest, SigAlg and Signature, each once, and may have RelayState.")
    if given["SigAlg"] not in _ALGORITHMS:
        raise ValueError(f"{given['SigAlg'][:100]} is not allowed: sign with RSA and SHA-256 or better.")
    return given


def _inflated(content: bytes) -> bytes:
    """Inflate what has to be small: a few bytes can become gigabytes."""
    inflater = zlib.decompressobj(-15)
    found = inflater.decompress(content, MOST_XML)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError(f"It is longer than {MOST_XML} bytes, or not complete.")
    return found


def _check_frame(root: Any, place: Place) -> None:
    """Judge what the library leaves open: it takes a request without a destination, of any age, encrypted in any way."""
    if root.get("Destination") != place.logout:
        raise ValueError("It is meant for another place.")
    issued = datetime.datetime.fromisoformat(root.get("IssueInstant", ""))
    age = (datetime.datetime.now(datetime.UTC) - issued).total_seconds()
    if not -SKEW_SECONDS <= age <= OLDEST_SECONDS + SKEW_SECONDS:
        raise ValueError("It is too old, or not from now.")
    if next(root.iter(_ENCRYPTED), None) is not None:
        raise ValueError("Its name is encrypted, which is not supported.")
    if not 1 <= len(root.get("ID", "")) <= 256:  # noqa: PLR2004
        raise ValueError("It has no id.")
