"""Requests to Secrets Manager (JSON 1.1, signed with Signature Version 4), and what its answers mean.

Source: https://docs.aws.amazon.com/secretsmanager/latest/apireference/ (actions and common errors).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from erp.runtime.spi import Config, ErrorCode, ErrorTable, ProviderError
from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import (
    Answer,
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
    HttpLimits,
)

MEANING: ErrorTable = {
    EgressRefusedError: ErrorCode.FAILED_PRECONDITION,
    ConnectFailedError: ErrorCode.UNAVAILABLE,
    AnswerLostError: ErrorCode.UNAVAILABLE,
    AnswerTimedOutError: ErrorCode.TIMEOUT,
}
MAX_ANSWER_BYTES = 8 * 1024 * 1024
SERVICE = "secretsmanager"
_OK = 200
_SERVER_ERROR = 500
_RETRY_SECONDS = 2.0
_XML_CODE = re.compile(rb"<Code>(\w{1,100})</Code>")
_CODES = {
    "AccessDeniedException": ErrorCode.PERMISSION_DENIED,
    "DecryptionFailure": ErrorCode.FAILED_PRECONDITION,
    "EncryptionFailure": ErrorCode.FAILED_PRECONDITION,
    "ExpiredTokenException": ErrorCode.UNAUTHENTICATED,
    "IncompleteSignature": ErrorCode.UNAUTHENTICATED,
    "InvalidClientTokenId": ErrorCode.UNAUTHENTICATED,
    "InvalidParameterException": ErrorCode.INVALID_ARGUMENT,
    "InvalidSignatureException": ErrorCode.UNAUTHENTICATED,
    "LimitExceededException": ErrorCode.FAILED_PRECONDITION,
    "MissingAuthenticationToken": ErrorCode.UNAUTHENTICATED,
    "SignatureDoesNotMatch": ErrorCode.UNAUTHENTICATED,
    "Throttling": ErrorCode.RATE_LIMITED,
    "ThrottlingException": ErrorCode.RATE_LIMITED,
    "UnrecognizedClientException": ErrorCode.UNAUTHENTICATED,
    "ValidationException": ErrorCode.INVALID_ARGUMENT,
}
_WORDS = {
    ErrorCode.FAILED_PRECONDITION: "AWS cannot do that with this secret, its key or within the account's limits.",
    ErrorCode.INVALID_ARGUMENT: "AWS does not accept the request.",
    ErrorCode.PERMISSION_DENIED: "The permissions of the access key do not allow that.",
    ErrorCode.RATE_LIMITED: "The request rate of the account is reached.",
    ErrorCode.UNAUTHENTICATED: "AWS does not accept the access key.",
}


class RefusedError(Exception):
    """Secrets Manager has refused a request; nothing was done."""

    def __init__(self, kind: str, status: int, message: str) -> None:
        super().__init__(kind)
        self.kind = kind
        """The name of the error: ``ResourceNotFoundException``."""
        self.status = status
        self.message = message

    def meaning(self) -> ProviderError:
        """Return what the layer makes of it; the vendor's own words are for the log alone."""
        detail = f"{self.status} {self.kind}: {self.message[:300]}"
        code = _CODES.get(self.kind)
        if code is None and self.status < _SERVER_ERROR:
            code = ErrorCode.FAILED_PRECONDITION
        if code is None:
            message = f"Secrets Manager answered {self.status}."
            return ProviderError(ErrorCode.UNAVAILABLE, message, detail=detail, retry_after_seconds=_RETRY_SECONDS)
        wait = _RETRY_SECONDS if code is ErrorCode.RATE_LIMITED else None
        return ProviderError(code, f"{_WORDS[code]} ({self.kind})", detail=detail, retry_after_seconds=wait)


class SecretsService:
    """One region of one account."""

    def __init__(self, config: Config) -> None:
        from botocore.auth import SigV4Auth
        from botocore.credentials import Credentials

        # At the level debug it logs what it signs, with the session token.
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._url = (
            str(config.get("endpoint") or f"https://{SERVICE}.{config['region']}.amazonaws.com").rstrip("/") + "/"
        )
        who = Credentials(config["access_key_id"], config["secret_access_key"], config.get("session_token"))
        self._signature = SigV4Auth(who, SERVICE, config["region"])
        self._seconds = float(config["timeout_seconds"])
        limits = HttpLimits(total_seconds=self._seconds, max_answer_bytes=MAX_ANSWER_BYTES)
        self._http = GuardedHttp(EgressRule.from_environment(), limits=limits)
        self._http.check_url(self._url)

    def __repr__(self) -> str:
        return f"SecretsService({self._url!r})"

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def ask(
        self, action: str, params: Mapping[str, Any], *, seconds: float, is_write: bool = False
    ) -> dict[str, Any]:
        """Send one request and return its result.

        Raises:
            RefusedError: the service has refused it.
            ProviderError: ``outcome_unknown`` when the answer to a write was lost.
            EgressRefusedError, ConnectFailedError, AnswerLostError, AnswerTimedOutError: as ``GuardedHttp.send``.
        """
        body = msgspec.json.encode(params)
        headers = self._signed(action, body)
        try:
            answer = await self._http.send(
                "POST", self._url, headers=headers, body=body, timeout_seconds=min(seconds, self._seconds)
            )
        except (AnswerLostError, AnswerTimedOutError) as error:
            if not is_write:
                raise
            message = "The answer to a change was lost; it may have been carried out."
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, message) from error
        return _result(answer)

    def _signed(self, action: str, body: bytes) -> dict[str, str]:
        from botocore.awsrequest import AWSRequest

        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{SERVICE}.{action}"}
        request = AWSRequest("POST", self._url, data=body, headers=headers)
        self._signature.add_auth(request)
        return {str(name): str(value) for name, value in request.headers.items()}


def _result(answer: Answer) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(answer.body or b"{}")
    except msgspec.DecodeError:
        document = None
    if answer.status == _OK and isinstance(document, dict):
        return document
    facts = document if isinstance(document, dict) else {}
    kind = str(facts.get("__type") or answer.headers.get("x-amzn-errortype") or "").partition(":")[0].rpartition("#")[2]
    if not kind and (found := _XML_CODE.search(answer.body)):  # what stands before the service answers in XML
        kind = found[1].decode()
    raise RefusedError(kind, answer.status, str(facts.get("Message") or facts.get("message") or ""))
