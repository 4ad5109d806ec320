"""A key of the transit engine of Vault or OpenBao that wraps data keys: it never leaves the server.

Source: https://openbao.org/api-docs/secret/transit/ (read key, encrypt and decrypt data, with ``associated_data``).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2
import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.security.wrapping import Place, damaged

SCHEME = "vault+transit"
SECONDS = 5.0
_RETRY_SECONDS = 5.0
_OK, _BAD, _FORBIDDEN, _NOT_FOUND = 200, 400, 403, 404
_AUTHENTICATING = frozenset({"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"})
_FORM = "vault+transit://HOST:PORT/MOUNT/KEY?token-source=file:/PATH"


class TransitAddress(msgspec.Struct, frozen=True, kw_only=True):
    """What the URL says."""

    server: str
    mount: str
    key: str
    namespace: str | None
    token_file: Path | None
    """None: the token is in ``VAULT_TOKEN``."""
    id: str


class VaultTransitKey:
    """One key. Wrapping is bound to tenant, path and version; the server keeps its versions apart itself."""

    def __init__(self, address: TransitAddress, environment: Mapping[str, str]) -> None:
        self._address = address
        self._environment = environment
        self._token = ""
        headers = {"x-vault-request": "true"}
        if address.namespace:
            headers["x-vault-namespace"] = address.namespace
        self._client = httpx2.AsyncClient(base_url=address.server, headers=headers, timeout=SECONDS)
        self.id = address.id

    def __repr__(self) -> str:
        return f"VaultTransitKey({self.id!r})"

    @classmethod
    async def open(cls, url: str, environment: Mapping[str, str] = os.environ) -> VaultTransitKey:
        """Open ``vault+transit://HOST:PORT/MOUNT/KEY?token-source=file:/PATH&namespace=NAME&tls=off``.

        The token is read again when the server refuses it, so that an agent can renew it. A key is never made here: to
        encrypt by one that is not there would make it.

        Raises:
            ProviderError: ``failed_precondition`` when the URL, the token or the key is wrong, ``unavailable`` when the
                server does not answer.
        """
        made = cls(parse(url), environment)
        try:
            made._token = await made._read_token()
            facts = await made._asked("GET", "keys")
            if facts.get("type") not in _AUTHENTICATING:
                made._refuse(f"its type is {facts.get('type')}; use aes256-gcm96")
        except BaseException:
            await made.close()
            raise
        return made

    async def wrap(self, data_key: bytes, place: Place) -> bytes:
        body = {"plaintext": _text(data_key), "associated_data": _text(place.encoded())}
        ciphertext: str = (await self._asked("POST", "encrypt", body))["ciphertext"]
        return ciphertext.encode()

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        try:
            body = {"ciphertext": wrapped.decode("ascii"), "associated_data": _text(place.encoded())}
            answer = await self._asked("POST", "decrypt", body, place)
            return base64.b64decode(answer["plaintext"], validate=True)
        except (UnicodeDecodeError, binascii.Error) as error:
            raise damaged(place) from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _asked(
        self, method: str, action: str, body: Mapping[str, str] | None = None, place: Place | None = None
    ) -> dict[str, Any]:
        """Return the data of an answer; with a new token when there is one and the old one is refused."""
        answer = await self._sent(method, action, body)
        if answer.status_code == _FORBIDDEN and (token := await self._read_token()) != self._token:
            self._token = token
            answer = await self._sent(method, action, body)
        if answer.status_code != _OK:
            raise self._failure(answer, place)
        try:
            data: dict[str, Any] = answer.json()["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._unavailable("what answers is no Vault or OpenBao server") from error
        return data

    async def _sent(self, method: str, action: str, body: Mapping[str, str] | None) -> httpx2.Response:
        address = self._address
        path = f"/v1/{quote(address.mount)}/{action}/{quote(address.key)}"
        try:
            return await self._client.request(method, path, json=body, headers={"x-vault-token": self._token})
        except httpx2.HTTPError as error:
            raise self._unavailable(type(error).__name__) from error

    async def _read_token(self) -> str:
        file = self._address.token_file
        try:
            text = self._environment.get("VAULT_TOKEN", "") if file is None else file.read_text().strip()
        except OSError as error:
            self._refuse(f"the token file {file} cannot be read: {error.strerror}")
        if not text or not text.isascii() or not text.isprintable():
            where = "VAULT_TOKEN" if file is None else str(file)
            self._refuse(f"there is no token in {where}")
        return text

    def _failure(self, answer: httpx2.Response, place: Place | None) -> ProviderError:
        if answer.status_code == _BAD and place is not None:
            return damaged(place)
        reasons = {
            _BAD: "the server does not accept the request",
            _FORBIDDEN: "the token is not known, or its policies do not let it read, encrypt and decrypt by this key",
            _NOT_FOUND: "there is no such key, or no transit engine at this mount",
        }
        if (reason := reasons.get(answer.status_code)) is None:
            return self._unavailable(f"the server answered {answer.status_code}")
        message = f"The key {self.id} cannot be used: {reason}."
        return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=str(answer.status_code))

    def _refuse(self, reason: str) -> NoReturn:
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"The key {self.id} cannot be used: {reason}.")

    def _unavailable(self, why: str) -> ProviderError:
        message = f"The key {self.id} cannot be reached now; what it wraps cannot be opened until it answers."
        return ProviderError(ErrorCode.UNAVAILABLE, message, detail=why, retry_after_seconds=_RETRY_SECONDS)


def parse(url: str) -> TransitAddress:
    """Return what a URL says.

    Raises:
        ProviderError: ``failed_precondition``.
    """
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    source, namespace = settings.pop("token-source", None), settings.pop("namespace", None)
    is_plain = settings.pop("tls", "on") == "off"
    mount, _, key = parts.path.strip("/").rpartition("/")
    is_file = source is None or source.startswith("file:/")
    if not (parts.hostname and mount and key and is_file) or settings or parts.username or parts.fragment:
        message = (
            f"ERP_KEK_URL names no key of a transit engine. Write {_FORM}, or leave the file out and set VAULT_TOKEN."
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return TransitAddress(
        server=f"http{'' if is_plain else 's'}://{parts.netloc}",
        mount=mount,
        key=key,
        namespace=namespace,
        token_file=None if source is None else Path(source.removeprefix("file:")),
        id=f"{SCHEME}://{parts.netloc}/{mount}/{key}",
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
