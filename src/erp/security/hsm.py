"""A key in a PKCS#11 token (hardware module, smart card, SoftHSM) that wraps data keys: AES-GCM inside the token.

Sources: RFC 7512 (the URI); PKCS #11 v3.0, section 2.11 (CKM_AES_GCM).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.security.wrapping import NONCE_BYTES, Place, damaged

T = TypeVar("T")

_RETRY_SECONDS = 5.0
_SESSION_LOST = (
    "SessionHandleInvalid",
    "SessionClosed",
    "UserNotLoggedIn",
    "DeviceRemoved",
    "DeviceError",
    "TokenNotPresent",
)


class TokenAddress(msgspec.Struct, frozen=True, kw_only=True):
    """What a PKCS#11 URI says."""

    token: str
    object: str
    key_id: bytes | None
    module: str
    pin: str

    def __repr__(self) -> str:
        return f"TokenAddress(token={self.token!r}, object={self.object!r})"


class HsmKey:
    """One AES key of a token. A session belongs to one thread, which does all the work."""

    def __init__(self, address: TokenAddress) -> None:
        self._address = address
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pkcs11")
        self._session: Any = None
        self._key: Any = None
        self._is_closed = False
        self.id = f"pkcs11:token={address.token};object={address.object}"

    def __repr__(self) -> str:
        return f"HsmKey({self.id!r})"

    @classmethod
    async def open(cls, url: str, environment: Mapping[str, str] = os.environ) -> HsmKey:
        """Open the key that a PKCS#11 URI names.

        Raises:
            ProviderError: ``failed_precondition`` when the extra is missing, or the URI, the PIN or the key is wrong,
                ``unavailable`` when the token does not answer.
        """
        key = cls(parse(url, environment))
        try:
            await key._run(lambda: None)
        except BaseException:
            await key.close()
            raise
        return key

    async def wrap(self, data_key: bytes, place: Place) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + await self._run(lambda: self._encrypted(nonce, data_key, place))

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        return await self._run(lambda: self._decrypted(wrapped, place))

    def _encrypted(self, nonce: bytes, data_key: bytes, place: Place) -> bytes:
        from pkcs11 import GCMParams, Mechanism

        made: bytes = self._key.encrypt(
            data_key, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, place.encoded(self.id))
        )
        return made

    def _decrypted(self, wrapped: bytes, place: Place) -> bytes:
        from pkcs11 import GCMParams, Mechanism
        from pkcs11.exceptions import (
            DataInvalid,
            DataLenRange,
            EncryptedDataInvalid,
            EncryptedDataLenRange,
            FunctionFailed,
            GeneralError,
        )

        param = GCMParams(wrapped[:NONCE_BYTES], place.encoded(self.id))
        try:
            data_key: bytes = self._key.decrypt(
                wrapped[NONCE_BYTES:], mechanism=Mechanism.AES_GCM, mechanism_param=param
            )
        except (
            DataInvalid,
            DataLenRange,
            EncryptedDataInvalid,
            EncryptedDataLenRange,
            FunctionFailed,
            GeneralError,
        ) as error:
            raise damaged(place) from error  # SoftHSM answers a wrong tag with CKR_GENERAL_ERROR
        return data_key

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Run ``work`` with an open session; one that was lost is opened anew, once."""
        failure = _library()
        try:
            self._opened()
            return work()
        except failure as error:
            if type(error).__name__ not in _SESSION_LOST:
                raise self._explained(error) from error
        try:
            self._let_go()
            self._opened()
            return work()
        except failure as error:
            raise self._explained(error) from error

    def _opened(self) -> None:
        if self._key is not None:
            return
        import pkcs11

        where = self._address
        self._session = _session(pkcs11.lib(where.module).get_token(token_label=where.token), where.pin)
        try:
            key = self._session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=where.object, id=where.key_id)
        except BaseException:
            self._let_go()
            raise
        if key[pkcs11.Attribute.EXTRACTABLE]:
            self._let_go()
            message = f"The key {self.id} can be taken out of its token. Make one with CKA_EXTRACTABLE false."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        self._key = key

    def _let_go(self) -> None:
        session, self._session, self._key = self._session, None, None
        if session is not None:
            with contextlib.suppress(_library()):  # a session that was lost cannot be closed
                session.close()

    def _explained(self, error: Exception) -> ProviderError:
        name = type(error).__name__
        reasons = {
            "NoSuchToken": "there is no token with this label",
            "NoSuchKey": "the token has no secret key with this label",
            "MultipleObjectsReturned": "the token has several keys with this label; add id=",
            "MultipleTokensReturned": "several tokens have this label",
            "PinIncorrect": "the PIN is wrong",
            "PinLocked": "the PIN is locked after too many wrong ones",
            "PinInvalid": "the PIN is malformed",
            "PinLenRange": "the PIN is malformed",
            "PinExpired": "the PIN has expired",
            "UserPinNotInitialized": "the token has no PIN yet",
            "KeyFunctionNotPermitted": "it may not encrypt and decrypt (CKA_ENCRYPT, CKA_DECRYPT)",
            "MechanismInvalid": "the token cannot do AES-GCM",
        }
        if name in reasons:
            message = f"The key {self.id} cannot be used: {reasons[name]}."
            return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=name)
        if name == "PKCS11Error":  # the class itself: raised for a module that cannot be loaded
            message = f"The PKCS#11 module {self._address.module} cannot be loaded. Check module-path."
            return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=str(error)[:200])
        message = f"The key {self.id} does not answer now; what it wraps cannot be opened until it does."
        return ProviderError(ErrorCode.UNAVAILABLE, message, detail=name, retry_after_seconds=_RETRY_SECONDS)

    async def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        self._thread.shutdown(wait=False)


def _session(token: Any, pin: str) -> Any:
    """Open a session. Who is logged in to a token is a matter of the process, not of the session (section 5.6.1)."""
    from pkcs11.exceptions import UserAlreadyLoggedIn

    try:
        return token.open(user_pin=pin)
    except UserAlreadyLoggedIn:
        return token.open()


def parse(url: str, environment: Mapping[str, str] = os.environ) -> TokenAddress:
    """Read a PKCS#11 URI (RFC 7512): ``token`` and ``object``, and where module and PIN are.

    ``module-path`` may be left to ``PKCS11_MODULE``. The PIN stands in the file ``pin-source`` names; ``pin-value``
    is understood too, but an environment is easier to see than a file.

    Raises:
        ProviderError: ``failed_precondition`` when a part is missing or the PIN cannot be read.
    """
    path, _, query = url.removeprefix("pkcs11:").partition("?")
    where, settings = _attributes(path, ";"), _attributes(query, "&")
    module = settings.get("module-path") or environment.get("PKCS11_MODULE", "")
    missing = [name for name, found in (("token", "token" in where), ("object", "object" in where)) if not found]
    if missing or not module:
        message = (
            f"The PKCS#11 URI of ERP_KEK_URL lacks {', '.join([*missing, *([] if module else ['module-path'])])}. "
            "Write pkcs11:token=TOKEN;object=KEY?module-path=/PATH.so&pin-source=file:/PATH"
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    key_id = where.get("id")
    return TokenAddress(
        token=where["token"],
        object=where["object"],
        key_id=key_id.encode("latin-1") if key_id else None,
        module=module,
        pin=_pin(settings),
    )


def _attributes(text: str, separator: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in re.split(re.escape(separator), text) if part)
    return {name: unquote(value, "latin-1" if name == "id" else "utf-8") for name, _, value in pairs}


def _pin(settings: Mapping[str, str]) -> str:
    if "pin-value" in settings:
        return settings["pin-value"]
    source = settings.get("pin-source", "")
    path = Path(source.removeprefix("file:").removeprefix("//") or "/nonexistent")
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        message = "The PIN of the PKCS#11 token cannot be read. Name its file with pin-source=file:/PATH."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error


def _library() -> type[Exception]:
    """Return what the library raises."""
    try:
        from pkcs11.exceptions import PKCS11Error
    except ImportError as error:
        message = "A key in a PKCS#11 token needs the extra pkcs11: pip install 'erp-provider-layer[pkcs11]'"
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    return PKCS11Error
