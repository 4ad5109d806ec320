"""A key of AWS KMS that wraps data keys: it never leaves the service, and every use of it is in CloudTrail.

Source: https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html and API_Decrypt.html.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.security.wrapping import Place, damaged

CONNECT_SECONDS = 3
READ_SECONDS = 5
_RETRY_SECONDS = 5.0
_BUSY = {
    "DependencyTimeoutException",
    "KMSInternalException",
    "KeyUnavailableException",
    "LimitExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
}
_REFUSED = {
    "AccessDeniedException": "this process may not use it (kms:Encrypt, kms:Decrypt)",
    "DisabledException": "it is disabled",
    "KMSInvalidStateException": "its state does not permit use (is its deletion scheduled?)",
    "NotFoundException": "there is no such key in this region",
    "InvalidKeyUsageException": "it is not a key for encryption",
    "ExpiredTokenException": "the credentials have expired",
    "UnrecognizedClientException": "the credentials are not known",
    "InvalidClientTokenId": "the credentials are not known",
    "InvalidSignatureException": "the credentials are wrong",
}
_STATES = {
    "Disabled": "DisabledException",
    "PendingDeletion": "KMSInvalidStateException",
    "PendingImport": "KMSInvalidStateException",
}


class AwsKmsKey:
    """One symmetric key. The encryption context is tenant, path and version, in clear in CloudTrail."""

    def __init__(self, url: str, client: Any, stack: contextlib.AsyncExitStack) -> None:
        self._url = url
        self._client = client
        self._stack = stack
        self._name = url
        self.id = url
        """The ARN of the key, known once it was opened."""

    def __repr__(self) -> str:
        return f"AwsKmsKey({self.id!r})"

    @classmethod
    async def open(cls, url: str) -> AwsKmsKey:
        """Open ``awskms:KEY?region=REGION&endpoint=URL``; credentials come from where AWS SDKs look for them.

        Raises:
            ProviderError: ``failed_precondition`` when the extra is missing, the URL or the key is wrong,
                ``unavailable`` when the service does not answer.
        """
        name, region, endpoint = _parts(url)
        session, config = _library()
        stack = contextlib.AsyncExitStack()
        with _explained(url):
            client = await stack.enter_async_context(
                session.create_client("kms", region_name=region, endpoint_url=endpoint, config=config)
            )
        made = cls(url, client, stack)
        made._name = name
        try:
            with _explained(url):
                facts = (await client.describe_key(KeyId=name))["KeyMetadata"]
        except BaseException:
            await made.close()
            raise
        made.id = facts["Arn"]
        if facts["KeyState"] in _STATES:
            await made.close()
            raise _refusal(url.partition("?")[0], _STATES[facts["KeyState"]], None)
        return made

    async def wrap(self, data_key: bytes, place: Place) -> bytes:
        with _explained(self._url):
            answer = await self._client.encrypt(KeyId=self.id, Plaintext=data_key, EncryptionContext=_context(place))
        wrapped: bytes = answer["CiphertextBlob"]
        return wrapped

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        with _explained(self._url, place):
            answer = await self._client.decrypt(
                KeyId=self.id, CiphertextBlob=wrapped, EncryptionContext=_context(place)
            )
        data_key: bytes = answer["Plaintext"]
        return data_key

    async def close(self) -> None:
        await self._stack.aclose()


def _context(place: Place) -> dict[str, str]:
    return {"tenant": place.tenant or "-", "path": place.path, "version": str(place.version)}


def _parts(url: str) -> tuple[str, str | None, str | None]:
    name, _, query = url.removeprefix("awskms:").removeprefix("///").partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    region, endpoint = settings.pop("region", None), settings.pop("endpoint", None)
    if region is None and name.startswith("arn:"):
        region = (name.split(":") + [""] * 4)[3]
    if not name or settings:
        message = (
            "ERP_KEK_URL names no key of AWS KMS. Write awskms:KEY?region=REGION; KEY is an id, an ARN or alias/NAME."
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return name, region, endpoint


def _library() -> tuple[Any, Any]:
    try:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session
    except ImportError as error:
        message = "A key of AWS KMS needs the extra aws: pip install 'erp-provider-layer[aws]'"
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    # At the level debug it logs requests and answers whole, with data keys in them.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("aiobotocore").setLevel(logging.WARNING)
    retries = {"total_max_attempts": 2, "mode": "standard"}
    return get_session(), AioConfig(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)


@contextlib.contextmanager
def _explained(url: str, place: Place | None = None) -> Iterator[None]:
    """Turn what the library raises into what an operator can act on."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError, NoRegionError

    name = url.partition("?")[0]
    try:
        yield
    except ClientError as error:
        raise _refusal(name, error.response.get("Error", {}).get("Code", ""), place) from error
    except (HTTPClientError, TimeoutError, OSError) as error:
        raise _unavailable(name, type(error).__name__) from error
    except (NoCredentialsError, NoRegionError) as error:
        message = f"The key {name} cannot be used: {error} Give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role, and a region."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    except BotoCoreError as error:
        raise _unavailable(name, type(error).__name__) from error


def _refusal(name: str, code: str, place: Place | None) -> ProviderError:
    if code in {"InvalidCiphertextException", "IncorrectKeyException"} and place is not None:
        return damaged(place)
    if code in _BUSY or code not in _REFUSED:
        return _unavailable(name, code)
    message = f"The key {name} cannot be used: {_REFUSED[code]}."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=code)


def _unavailable(name: str, why: str) -> ProviderError:
    message = f"The key {name} cannot be reached now; what it wraps cannot be opened until it answers."
    return ProviderError(ErrorCode.UNAVAILABLE, message, detail=why, retry_after_seconds=_RETRY_SECONDS)
