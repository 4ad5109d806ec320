"""AWS Signature Version 4 for S3, which Cloud Storage and most other stores accept as well.

Source: Amazon S3 API reference, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def query_text(query: Mapping[str, str]) -> str:
    """The query as it is sent and signed: sorted, everything but unreserved characters escaped."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


class Signer:
    """Signs requests to one region."""

    def __init__(self, credentials: Credentials, region: str) -> None:
        self._credentials = credentials
        self._region = region
        self._day_key: tuple[str, bytes] = ("", b"")

    def __repr__(self) -> str:
        return f"Signer({self._region!r})"

    def headers(
        self,
        method: str,
        host: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        now: datetime.datetime | None = None,
    ) -> dict[str, str]:
        """Return ``headers`` (names in lower case) with those that sign the request and the whole body."""
        moment = _moment(now)
        digest = hashlib.sha256(body).hexdigest()
        signed = {**headers, "host": host, "x-amz-date": moment, "x-amz-content-sha256": digest}
        if self._credentials.session_token:
            signed["x-amz-security-token"] = self._credentials.session_token
        names, signature = self._signature(method, path, query, signed, digest, moment)
        who = f"{self._credentials.access_key_id}/{self._scope(moment)}"
        signed["authorization"] = f"{_ALGORITHM} Credential={who}, SignedHeaders={names}, Signature={signature}"
        return signed

    def query(
        self,
        method: str,
        host: str,
        path: str,
        *,
        seconds: int,
        headers: Mapping[str, str],
        now: datetime.datetime | None = None,
    ) -> str:
        """Return the query that lets anybody send the request, with exactly these headers, for some time."""
        moment = _moment(now)
        signed = {**headers, "host": host}
        query = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self._credentials.access_key_id}/{self._scope(moment)}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": ";".join(sorted(signed)),
        }
        if self._credentials.session_token:
            query["X-Amz-Security-Token"] = self._credentials.session_token
        _, signature = self._signature(method, path, query, signed, UNSIGNED, moment)
        return f"{query_text(query)}&X-Amz-Signature={signature}"

    def _scope(self, moment: str) -> str:
        return f"{moment[:8]}/{self._region}/s3/aws4_request"

    def _signature(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], digest: str, moment: str, /
    ) -> tuple[str, str]:
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in sorted(headers))
        canonical = "\n".join((method, path, query_text(query), lines, names, digest))
        text = "\n".join((_ALGORITHM, moment, self._scope(moment), hashlib.sha256(canonical.encode()).hexdigest()))
        return names, hmac.digest(self._key(moment[:8]), text.encode(), "sha256").hex()

    def _key(self, day: str) -> bytes:
        if self._day_key[0] != day:
            key = f"AWS4{self._credentials.secret_access_key}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day_key = (day, key)
        return self._day_key[1]


def _moment(now: datetime.datetime | None) -> str:
    return (now or datetime.datetime.now(datetime.UTC)).strftime("%Y%m%dT%H%M%SZ")
