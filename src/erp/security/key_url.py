"""Where key-encryption keys are: what ``ERP_KEK_URL`` says, and opening it.

    file:                              keys/kek in the data directory, made when it is missing
    file:/etc/erp/kek                  a file of keys in base64
    env:NAME                           keys in base64 in an environment variable
    awskms:alias/erp?region=eu-west-1  a key of AWS KMS, by id, ARN or alias (extra aws)
    pkcs11:token=erp;object=kek?...    a key in a PKCS#11 token (RFC 7512; extra pkcs11)
    vault+transit://HOST/transit/erp   a key of a transit engine of Vault or OpenBao

Several are separated by spaces: the first wraps, the others only unwrap.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.security.keyring import KEYS_DIRECTORY, Keyring, keks_in_file, keks_in_text, pepper_of
from erp.security.wrapping import Place, WrappingKey

VARIABLE = "ERP_KEK_URL"
PROBE = Place("", "erp:start", 0)
PROBE_KEY = bytes(32)
_FORMS = "file:, file:/PATH, env:NAME, awskms:KEY?region=REGION, pkcs11:token=TOKEN;object=KEY?module-path=PATH, vault+transit://HOST:PORT/MOUNT/KEY"


async def open_keyring(data_dir: Path, environment: Mapping[str, str] = os.environ) -> Keyring:
    """Open the platform's keys where ``ERP_KEK_URL`` says they are; without it where ``Keyring.open`` says.

    Every key elsewhere is proven to wrap or to answer before this returns.

    Raises:
        ProviderError: ``failed_precondition`` when a key is not there, malformed or may not be used, ``unavailable``
            when it cannot be reached.
    """
    urls = environment.get(VARIABLE, "").split()
    if not urls:
        return Keyring.open(data_dir, environment)
    pepper = pepper_of(data_dir, environment)
    keks, file = _local(urls, data_dir, environment)
    async with contextlib.AsyncExitStack() as opened:
        remote: list[WrappingKey] = []
        for url in urls:
            if (scheme := url.partition(":")[0]) not in {"file", "env"}:
                key = await _remote(scheme, url, environment)
                opened.push_async_callback(key.close)
                await _prove(key)
                remote.append(key)
        opened.pop_all()
    is_remote = urls[0].partition(":")[0] not in {"file", "env"}
    return Keyring(pepper, keks, kek_file=file, remote=remote, remote_first=is_remote)


def _local(urls: list[str], data_dir: Path, environment: Mapping[str, str]) -> tuple[tuple[bytes, ...], Path | None]:
    """Return the keys in memory, the present one first, and the file that the first of them comes from."""
    keks: list[bytes] = []
    file: Path | None = None
    for url in urls:
        scheme, _, rest = url.partition(":")
        if scheme == "file":
            path = _path(rest) if rest else data_dir / KEYS_DIRECTORY / "kek"
            file = path if not keks else file
            keks += keks_in_file(path)
        elif scheme == "env":
            keks += keks_in_text(environment.get(rest, ""), rest or "env:")
    return tuple(keks), file


def _path(text: str) -> Path:
    """Read a file URL (RFC 8089, appendix A: also without an authority)."""
    path = Path(unquote(text.removeprefix("//")))
    if not path.is_absolute() or not path.exists():
        why = "is not absolute" if not path.is_absolute() else "does not exist"
        message = (
            f"The key file {path} of {VARIABLE} {why}. Make it with: openssl rand -base64 32 > FILE; chmod 600 FILE"
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return path


async def _remote(scheme: str, url: str, environment: Mapping[str, str]) -> WrappingKey:
    if scheme == "awskms":
        from erp.security.aws_kms import AwsKmsKey

        return await AwsKmsKey.open(url)
    if scheme == "pkcs11":
        from erp.security.hsm import HsmKey

        return await HsmKey.open(url, environment)
    if scheme == "vault+transit":
        from erp.security.vault_transit import VaultTransitKey

        return await VaultTransitKey.open(url, environment)
    message = f"{VARIABLE} has a part that begins with {scheme[:20]!r}. Use one of: {_FORMS}."
    raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


async def _prove(key: WrappingKey) -> None:
    """Wrap and unwrap once: a key that cannot is found at start and not at the first secret."""
    if await key.unwrap(await key.wrap(PROBE_KEY, PROBE), PROBE) != PROBE_KEY:
        message = f"{key.id} does not give back what it has wrapped."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
