"""Where an object store is reached: judged before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from erp.runtime.spi import ErrorCode, FieldError, ProviderError
from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.object_store.gate import EgressGate


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of one bucket."""

    url: str
    """Scheme, host and port, and the path before the bucket if there is one; no slash at the end."""
    bucket: str
    is_virtual: bool = False
    """Whether the bucket is part of the host name rather than of the path."""
    is_vendor: bool = False
    """Whether the host is the vendor's own, which no tenant has chosen."""

    @property
    def bucket_url(self) -> str:
        """What the names of objects are below."""
        if not self.is_virtual:
            return f"{self.url}/{quote(self.bucket)}"
        scheme, _, host = self.url.partition("://")
        return f"{scheme}://{self.bucket}.{host}"

    @property
    def host(self) -> str:
        """Host and port as they stand in the header Host."""
        return urlsplit(self.bucket_url).netloc

    def url_of(self, name: str = "") -> str:
        """The address of an object; of the bucket without a name."""
        return f"{self.bucket_url}/{quoted(name)}"

    @property
    def is_plain(self) -> bool:
        """Whether it is http, without encryption."""
        return self.url.startswith("http://")

    def gate(self, rule: EgressRule) -> EgressGate | None:
        """Return what the library's own connections have to pass; None when they cannot lead elsewhere.

        A number cannot, where every port of it is permitted: the library follows redirects to other ports.

        Raises:
            ProviderError: ``failed_precondition``: connections to it are not permitted.
        """
        from erp.vendor_clients.guarded_http import GuardedHttp
        from erp.vendor_clients.guarded_transport import host_of, numeric_addresses, parse_url, port_of

        try:
            GuardedHttp(rule).check_url(self.bucket_url)
        except EgressRefusedError as error:
            wrong = [FieldError("/config/endpoint", str(error))]
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error), errors=wrong) from error
        target = parse_url(self.bucket_url)
        numbers = numeric_addresses(host_of(target))
        if self.is_vendor or (numbers and all(rule.permits(address) for address in numbers)):
            return None
        return EgressGate(host_of(target), port_of(target), rule)


def quoted(name: str) -> str:
    """A name as it stands in a path; the same as S3 signs (SigV4, "UriEncode")."""
    return quote(name, safe="/-_.~")
