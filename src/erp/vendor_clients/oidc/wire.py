"""Requests to an issuer: JSON answers, form bodies, one kind of failure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import (
    Answer,
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
    HttpLimits,
)
from erp.vendor_clients.oidc.failures import IssuerRefusedError, IssuerUnavailableError
from erp.vendor_clients.oidc.settings import IssuerSettings

MAX_ANSWER_BYTES = 256 * 1024
_OK = 200
_REFUSALS = frozenset({400, 401, 403})
_FIRST_SERVER_ERROR = 500
_TOO_MANY_REQUESTS = 429


def issuer_http(timeout_seconds: float = 10.0) -> GuardedHttp:
    """Return a client for requests to issuers, within the operator's egress rule."""
    limits = HttpLimits(total_seconds=timeout_seconds, max_answer_bytes=MAX_ANSWER_BYTES)
    return GuardedHttp(EgressRule.from_environment(), limits=limits)


class Wire:
    """One issuer's endpoints over HTTP."""

    def __init__(self, http: GuardedHttp, settings: IssuerSettings) -> None:
        self._http = http
        self._settings = settings

    async def get(self, url: str, *, bearer: str = "") -> dict[str, Any]:
        """Read a JSON document, with an access token (RFC 6750) where one is given.

        Raises:
            IssuerRefusedError: the token is not good for it.
            IssuerUnavailableError: there is none.
        """
        answer = await self._send("GET", url, {"authorization": f"Bearer {bearer}"} if bearer else None)
        if bearer and answer.status in _REFUSALS:
            raise IssuerRefusedError(_error(answer), answer.status)
        if answer.status != _OK:
            raise IssuerUnavailableError(f"{url} answered with status {answer.status}.")
        return _document(url, answer)

    async def post(self, url: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Send a form as the client; return the JSON answer (empty when there is none).

        Raises:
            IssuerRefusedError: an OAuth error.
            IssuerUnavailableError: no usable answer.
        """
        headers = {"content-type": "application/x-www-form-urlencoded", **self._authorization()}
        answer = await self._send("POST", url, headers, urlencode({**form, **self._identification()}).encode())
        if answer.status == _OK:
            return _document(url, answer) if answer.body else {}
        if answer.status >= _FIRST_SERVER_ERROR or answer.status == _TOO_MANY_REQUESTS:
            raise IssuerUnavailableError(f"{url} answered with status {answer.status}.")
        raise IssuerRefusedError(_error(answer), answer.status)

    def _authorization(self) -> dict[str, str]:
        settings = self._settings
        if not settings.client_secret or settings.client_authentication != "client_secret_basic":
            return {}
        # Both parts are form-encoded first (RFC 6749, section 2.3.1).
        text = f"{quote(settings.client_id, safe='')}:{quote(settings.client_secret, safe='')}"
        return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}

    def _identification(self) -> dict[str, str]:
        settings = self._settings
        if settings.client_secret and settings.client_authentication == "client_secret_basic":
            return {}
        secret = {"client_secret": settings.client_secret} if settings.client_secret else {}
        return {"client_id": settings.client_id, **secret}

    async def _send(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        try:
            return await self._http.send(
                method,
                url,
                headers={"accept": "application/json", **(headers or {})},
                body=body,
                timeout_seconds=self._settings.timeout_seconds,
            )
        except (ConnectFailedError, AnswerTimedOutError, AnswerLostError, EgressRefusedError) as error:
            raise IssuerUnavailableError(str(error)) from error


def _document(url: str, answer: Answer) -> dict[str, Any]:
    if answer.truncated:
        raise IssuerUnavailableError(f"The answer of {url} is longer than {MAX_ANSWER_BYTES} bytes.")
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise IssuerUnavailableError(f"{url} answered no JSON object.") from error


def _error(answer: Answer) -> str:
    """Return the code of an OAuth error; the description is the issuer's and stays there."""
    try:
        found = msgspec.json.decode(answer.body, type=dict[str, Any]).get("error")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = None
    return found[:100] if isinstance(found, str) else "no OAuth error"
