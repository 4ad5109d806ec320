"""The certificates of the server, and which ones it asks its clients for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Whose certificates clients may have; None: they are not asked."""
    is_client_required: bool = False

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None, client_ca: Path | None, client: str | None) -> Tls | None:
        """Return what the options say; None without any.

        Raises:
            ProviderError: ``failed_precondition`` when options are missing, or a file cannot be used.
        """
        if certificate is None or key is None:
            if certificate or key or client_ca or client:
                raise _wrong("TLS needs both --tls-cert and --tls-key.")
            return None
        if client is not None and client_ca is None:
            raise _wrong("--client-cert needs --client-ca: who may issue the certificates of clients.")
        made = cls(certificate.absolute(), key.absolute(), client_ca and client_ca.absolute(), client == "required")
        made._check()
        return made

    def _check(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise _wrong(f"There is no file {path}.")
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except (ssl.SSLError, OSError, ValueError) as error:
            files = ", ".join(str(path) for path in (self.certificate, self.key, self.client_ca) if path)
            raise _wrong(f"The certificates cannot be used ({files}): {error}.") from error

    @property
    def config(self) -> dict[str, Any]:
        """What uvicorn is given."""
        found: dict[str, Any] = {"ssl_certfile": str(self.certificate), "ssl_keyfile": str(self.key)}
        if self.client_ca is not None:
            needed = ssl.CERT_REQUIRED if self.is_client_required else ssl.CERT_OPTIONAL
            found |= {"ssl_ca_certs": str(self.client_ca), "ssl_cert_reqs": needed}
        return found

    @property
    def options(self) -> list[str]:
        """The command-line options that say the same."""
        found = ["--tls-cert", str(self.certificate), "--tls-key", str(self.key)]
        if self.client_ca is not None:
            found += ["--client-ca", str(self.client_ca)]
            found += ["--client-cert", "required" if self.is_client_required else "optional"]
        return found


def _no_password() -> str:
    message = "the private key must not be encrypted"
    raise ValueError(message)


def _wrong(message: str) -> ProviderError:
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message)
