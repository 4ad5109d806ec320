"""Requests to a Vault or OpenBao server, and what its answers mean.

Source: https://openbao.org/api-docs/ (HTTP status codes) and https://developer.hashicorp.com/vault/api-docs.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from erp.runtime.spi import ErrorCode, ErrorTable, ProviderError
from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import (
    Answer,
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
    HttpLimits,
)
from erp.vendor_clients.retry_after import retry_after_seconds

MEANING: ErrorTable = {
    EgressRefusedError: ErrorCode.FAILED_PRECONDITION,
    ConnectFailedError: ErrorCode.UNAVAILABLE,
    AnswerLostError: ErrorCode.UNAVAILABLE,
    AnswerTimedOutError: ErrorCode.TIMEOUT,
}
MAX_ANSWER_BYTES = 8 * 1024 * 1024
_OK, _NO_CONTENT, _REDIRECT, _NOT_FOUND = 200, 204, 307, 404
_RETRY_SECONDS = 5.0
NO_ENGINE = "no handler for route"
_STANDBY = "This node is a standby that does not answer; name the active one or a load balancer."
_STATUSES = {
    400: (ErrorCode.FAILED_PRECONDITION, "The server does not accept the request; is the engine of version 2?"),
    403: (ErrorCode.PERMISSION_DENIED, "The server's policies do not let this token do that."),
    404: (ErrorCode.FAILED_PRECONDITION, "The server knows no such path."),
    # Vault Enterprise: the node has not seen an earlier write yet.
    412: (ErrorCode.UNAVAILABLE, "The node has not caught up with the cluster yet."),
    413: (ErrorCode.INVALID_ARGUMENT, "The value is longer than the server takes."),
    429: (ErrorCode.RATE_LIMITED, "The server's rate limit is reached."),
    472: (ErrorCode.UNAVAILABLE, _STANDBY),
    473: (ErrorCode.UNAVAILABLE, _STANDBY),
    503: (ErrorCode.UNAVAILABLE, "The server is sealed or has no active node. Ask its operators to unseal it."),
}
_TEXTS = {
    NO_ENGINE: (ErrorCode.FAILED_PRECONDITION, "There is no key-value engine, version 2, at this mount."),
    "check-and-set parameter": (ErrorCode.CONFLICT, "The secret was changed meanwhile."),
    "Upgrading from non-versioned": (ErrorCode.UNAVAILABLE, "The engine is just being made; try again in a moment."),
}
_LOST = (AnswerLostError, AnswerTimedOutError)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; ``document`` is an empty object where there is none."""

    status: int
    document: dict[str, Any]
    errors: list[str]
    headers: Mapping[str, str]

    @property
    def is_absent(self) -> bool:
        """Whether there is no such thing; an engine that is missing is another matter."""
        return self.status == _NOT_FOUND and not any(NO_ENGINE in text for text in self.errors)

    @property
    def is_ok(self) -> bool:
        """Whether the request was carried out."""
        return self.status in {_OK, _NO_CONTENT}


class VaultServer:
    """One server, in one of its namespaces."""

    def __init__(self, address: str, *, namespace: str | None, seconds: float, ca_certificate: str | None) -> None:
        self.address = address.rstrip("/")
        self._namespace = namespace
        self._seconds = seconds
        tls = _trusting(ca_certificate) if ca_certificate else None
        limits = HttpLimits(total_seconds=seconds, max_answer_bytes=MAX_ANSWER_BYTES)
        self._http = GuardedHttp(EgressRule.from_environment(), limits=limits, tls=tls)
        self._http.check_url(self.address)

    def __repr__(self) -> str:
        return f"VaultServer({self.address!r})"

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        query: str = "",
        seconds: float | None = None,
        is_root: bool = False,
    ) -> Reply:
        """Send one request and return the answer, whatever its status; a standby's redirect is followed once.

        Raises:
            EgressRefusedError, ConnectFailedError, AnswerLostError, AnswerTimedOutError: as ``GuardedHttp.send``.
            ProviderError: ``outcome_unknown`` when the answer to a write was lost.
        """
        headers = {"x-vault-request": "true", "content-type": "application/json"}
        if token is not None:
            headers["x-vault-token"] = token
        if self._namespace and not is_root:
            headers["x-vault-namespace"] = self._namespace
        url = f"{self.address}/v1/{quote(path)}{query}"
        content = b"" if body is None else msgspec.json.encode(body)
        within = self._seconds if seconds is None else min(seconds, self._seconds)
        try:
            answer = await self._http.send(method, url, headers=headers, body=content, timeout_seconds=within)
            if answer.status == _REDIRECT and self._is_elsewhere(answer):
                there = answer.headers["location"]
                answer = await self._http.send(method, there, headers=headers, body=content, timeout_seconds=within)
        except _LOST as error:
            if body is None and method != "DELETE":
                raise
            message = "The server's answer to a change was lost; it may have been carried out."
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, message) from error
        return _reply(answer)

    def _is_elsewhere(self, answer: Answer) -> bool:
        """Whether a redirect leads to the active node; the token is never sent in clear where it was not before."""
        there, here = urlsplit(answer.headers.get("location", "")), urlsplit(self.address)
        return bool(there.netloc) and there.scheme in {here.scheme, "https"}


def _reply(answer: Answer) -> Reply:
    try:
        document = msgspec.json.decode(answer.body) if answer.body else {}
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict):
        if answer.status in {_OK, _NO_CONTENT}:
            message = "What answers at this address is no Vault or OpenBao server."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        document = {}
    errors = [str(one) for one in document.get("errors") or []]
    return Reply(status=answer.status, document=document, errors=errors, headers=answer.headers)


def failure(reply: Reply) -> ProviderError:
    """Return what an answer that is no success means. The server's own words are for the log alone."""
    text = " ".join(reply.errors)
    detail = f"{reply.status} {text[:500]}"
    wait = retry_after_seconds(reply.headers.get("retry-after"))
    code, message = _meaning(reply.status, text)
    if code in {ErrorCode.UNAVAILABLE, ErrorCode.RATE_LIMITED}:
        return ProviderError(code, message, detail=detail, retry_after_seconds=_RETRY_SECONDS if wait is None else wait)
    return ProviderError(code, message, detail=detail)


def _meaning(status: int, text: str) -> tuple[ErrorCode, str]:
    for part, meaning in _TEXTS.items():
        if part in text:
            return meaning
    return _STATUSES.get(status, (ErrorCode.UNAVAILABLE, f"The server answered {status}."))


def _trusting(certificate: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=certificate)
    except (ssl.SSLError, ValueError) as error:
        message = "ca_certificate holds no certificate in PEM that can be read."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
