"""The peer's HTTP interface: authenticated JSON requests, and what its answers mean."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec

from erp.runtime.spi import CallContext, Config, ErrorCode, ErrorTable, ProviderError
from erp.vendor_clients.egress import EgressRefusedError
from erp.vendor_clients.guarded_http import (
    Answer,
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
)
from erp.vendor_clients.retry_after import retry_after_seconds

MEANING: ErrorTable = {
    EgressRefusedError: ErrorCode.FAILED_PRECONDITION,
    ConnectFailedError: ErrorCode.UNAVAILABLE,
    AnswerLostError: ErrorCode.UNAVAILABLE,
    AnswerTimedOutError: ErrorCode.TIMEOUT,
}
_STATUSES = {
    400: ErrorCode.INVALID_ARGUMENT,
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.PERMISSION_DENIED,
    404: ErrorCode.NOT_FOUND,
    408: ErrorCode.TIMEOUT,
    409: ErrorCode.CONFLICT,
    410: ErrorCode.NOT_FOUND,
    412: ErrorCode.CONFLICT,
    422: ErrorCode.INVALID_ARGUMENT,
    425: ErrorCode.UNAVAILABLE,
    429: ErrorCode.RATE_LIMITED,
}
_MAYBE_DONE = frozenset({500, 502, 504})
_MARGIN_SECONDS = 0.2
_EXCERPT_CHARACTERS = 300

# Decimal numbers are text in the contract: read as floats they would lose what was written.
_decode = msgspec.json.Decoder(float_hook=str).decode


@dataclass(frozen=True, slots=True)
class Reply:
    """A confirmed answer (2xx)."""

    status: int
    headers: Mapping[str, str]
    document: Any


class Peer:
    """Sends requests below one address with one set of credentials."""

    def __init__(self, http: GuardedHttp, config: Config) -> None:
        self._http = http
        self._base = str(config["base_url"]).rstrip("/")
        self._headers = {"accept": "application/json", **config.get("headers", {}), **_credentials(config)}
        self._timeout_seconds = float(config.get("timeout_seconds", 30))

    def __repr__(self) -> str:
        return f"Peer({self._base!r})"

    async def request(
        self,
        method: str,
        path: str,
        context: CallContext,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = msgspec.UNSET,
    ) -> Reply:
        """Send one request and return what the peer confirmed.

        Raises:
            ProviderError: ``outcome_unknown`` when the answer to anything but GET was lost; else by the status.
        """
        url = self._base + path
        if query:
            url += ("&" if "?" in path else "?") + urlencode(query)
        headers = dict(self._headers)
        content = b""
        if body is not msgspec.UNSET:
            headers["content-type"] = "application/json"
            content = msgspec.json.encode(body)
        if context.traceparent:
            headers["traceparent"] = context.traceparent
        answer = await self._answer(method, url, headers, content, context)
        if method == "POST" and answer.status in _MAYBE_DONE:
            message = f"The peer failed ({answer.status}); the request may have taken effect."
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=_excerpt(answer))
        return _confirmed(answer)

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes, context: CallContext
    ) -> Answer:
        seconds = min(self._timeout_seconds, context.remaining_seconds() - _MARGIN_SECONDS)
        if seconds <= 0:
            raise ProviderError(ErrorCode.UNAVAILABLE, "There was no time left to ask the peer.")
        try:
            return await self._http.send(method, url, headers=headers, body=content, timeout_seconds=seconds)
        except (AnswerLostError, AnswerTimedOutError) as error:
            if method == "GET":
                raise
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, f"{error} The request may have taken effect.") from error

    def relative(self, target: str, path: str) -> str | None:
        """The path and query of a link in the answer to ``path``; None when it leads away from the peer."""
        url = urljoin(self._base + path, target)
        if not url.startswith(self._base + "/") or urlsplit(url).netloc != urlsplit(self._base).netloc:
            return None
        return url.removeprefix(self._base)

    async def probe(self) -> float:
        """Connect and send nothing; milliseconds."""
        return await self._http.probe(self._base + "/")


def filled(template: str, keys: Mapping[str, str]) -> str:
    """A path with the keys of a record in it, each encoded so that it stays one segment.

    Raises:
        ProviderError: ``invalid_argument`` for a key that would lead to another path.
    """
    for name, value in keys.items():
        if value in {"", ".", ".."}:
            message = f"The key {name[:100]!r} is empty or dots alone, which would lead to another path."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message)
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template


def _credentials(config: Config) -> dict[str, str]:
    if config.get("token"):
        return {"authorization": f"Bearer {config['token']}"}
    if config.get("username") is not None:
        pair = f"{config['username']}:{config.get('password', '')}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if config.get("api_key"):
        return {str(config.get("api_key_header", "x-api-key")): str(config["api_key"])}
    return {}


def _confirmed(answer: Answer) -> Reply:
    if not 200 <= answer.status < 300:  # noqa: PLR2004
        raise refusal(answer)
    if answer.truncated:
        message = "The peer's answer is too long. Lower paging.size of the object."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    if not answer.body.strip():
        return Reply(answer.status, answer.headers, None)
    try:
        return Reply(answer.status, answer.headers, _decode(answer.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "The peer answered something that is not JSON."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=_excerpt(answer)) from error


def refusal(answer: Answer) -> ProviderError:
    """What an answer other than 2xx means."""
    status = answer.status
    wait = retry_after_seconds(answer.headers.get("retry-after"))
    if 300 <= status < 400:  # noqa: PLR2004
        message = f"The peer redirects ({status}); configure the final address as base_url."
        return ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    if status >= 500:  # noqa: PLR2004
        message = f"The peer failed ({status})."
        return ProviderError(ErrorCode.UNAVAILABLE, message, detail=_excerpt(answer), retry_after_seconds=wait)
    code = _STATUSES.get(status, ErrorCode.FAILED_PRECONDITION)
    message = f"The peer refused the request ({status})."
    return ProviderError(code, message, detail=_excerpt(answer), retry_after_seconds=wait)


def _excerpt(answer: Answer) -> str | None:
    return answer.body[: _EXCERPT_CHARACTERS * 4].decode(errors="replace")[:_EXCERPT_CHARACTERS] or None
