"""Shared Key authorization of Azure Storage.

Source: Azure Storage REST API reference, "Authorize with Shared Key" (version 2015-02-21 and later) and "Create a service
SAS" (version 2020-12-06 and later).
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hmac
from collections.abc import Mapping
from email.utils import format_datetime

API_VERSION = "2023-11-03"
_SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


class SharedKey:
    """Signs requests of one account."""

    def __init__(self, account: str, key: str) -> None:
        """``key`` is base64, as the portal shows it.

        Raises:
            ValueError: it is not.
        """
        self._account = account
        try:
            self._key = base64.b64decode(key, validate=True)
        except binascii.Error as error:
            raise ValueError("The account key is not base64.") from error

    def __repr__(self) -> str:
        return f"SharedKey({self._account!r})"

    def headers(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        now: datetime.datetime | None = None,
    ) -> dict[str, str]:
        """Return ``headers`` (names in lower case) with those that sign the request."""
        moment = format_datetime(now or datetime.datetime.now(datetime.UTC), usegmt=True)
        signed = {**headers, "x-ms-date": moment, "x-ms-version": API_VERSION}
        standard = {**signed, "content-length": str(len(body)) if body else ""}
        own = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed) if name.startswith("x-ms-"))
        asked = "".join(f"\n{name.lower()}:{query[name]}" for name in sorted(query, key=str.lower))
        lines = "\n".join(standard.get(name, "") for name in _SIGNED)
        text = f"{method}\n{lines}\n{own}/{self._account}{path}{asked}"
        signature = base64.b64encode(hmac.digest(self._key, text.encode(), "sha256")).decode()
        return {**signed, "authorization": f"SharedKey {self._account}:{signature}"}

    def query(self, container: str, name: str, *, permissions: str, ends: datetime.datetime) -> dict[str, str]:
        """Return the query that lets anybody use one blob until it ends (a service SAS).

        ``obstore`` makes such links, too, but signs the escaped name, which the store does not accept.
        """
        end = ends.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        place = f"/blob/{self._account}/{container}/{name}"
        # Permissions, start, end, place, identifier, address, protocol, version, kind, snapshot, scope, five headers.
        fields = (permissions, "", end, place, "", "", "", API_VERSION, "b", "", "", *[""] * 5)
        signature = base64.b64encode(hmac.digest(self._key, "\n".join(fields).encode(), "sha256")).decode()
        return {"sv": API_VERSION, "sr": "b", "sp": permissions, "se": end, "sig": signature}
