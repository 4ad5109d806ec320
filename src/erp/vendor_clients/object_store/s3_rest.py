"""The interface of S3 that ``obstore`` has nothing for; Cloud Storage answers most of it, too.

Source: Amazon S3 API reference (2006-03-01), and Cloud Storage XML API, "Migrating from Amazon S3".
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from erp.vendor_clients.guarded_http import Answer, AnswerLostError, GuardedHttp
from erp.vendor_clients.object_store.bodies import Described, Written
from erp.vendor_clients.object_store.endpoint import Endpoint, quoted
from erp.vendor_clients.object_store.failures import Refusal, RefusedError
from erp.vendor_clients.object_store.metadata import MetadataForm
from erp.vendor_clients.object_store.sigv4 import query_text

XML = "http://s3.amazonaws.com/doc/2006-03-01/"
_REDIRECTION = 300


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a page."""

    name: str
    size: int
    etag: str
    modified_at: datetime.datetime
    version: str | None = None
    is_latest: bool = True
    is_deleted: bool = False


@dataclass(slots=True)
class Page:
    """A part of what is in a bucket."""

    objects: list[Listed] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part that has arrived."""

    number: int
    etag: str
    size: int


class Authorize(Protocol):
    """Return the headers of a request with those that let it in."""

    async def __call__(
        self, method: str, host: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Mapping[str, str]: ...


class S3Rest:
    """Requests to one bucket.

    Raises of all methods: ``RefusedError`` and the errors of ``guarded_http``.
    """

    def __init__(self, http: GuardedHttp, endpoint: Endpoint, authorize: Authorize, *, vendor: str = "x-amz-") -> None:
        """``vendor`` begins the vendor's own headers."""
        self._http = http
        self._endpoint = endpoint
        self._authorize = authorize
        self.vendor = vendor
        path = endpoint.bucket_url.removeprefix(f"{endpoint.bucket_url.partition('://')[0]}://{endpoint.host}")
        self._path = path

    def __repr__(self) -> str:
        return f"S3Rest({self._endpoint.bucket_url!r})"

    async def send(
        self,
        method: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float,
    ) -> Answer:
        """Send one request and return its answer, which is no refusal."""
        path = f"{self._path}/{quoted(name)}"
        asked = query or {}
        signed = await self._authorize(method, self._endpoint.host, path, asked, headers or {}, body)
        url = self._endpoint.url_of(name) + (f"?{query_text(asked)}" if asked else "")
        answer = await self._http.send(method, url, headers=signed, body=body, timeout_seconds=seconds)
        if answer.status >= _REDIRECTION:
            raise RefusedError(Refusal.of(answer))
        return answer

    async def page(
        self, prefix: str, *, delimiter: str | None = None, cursor: str | None = None, limit: int, seconds: float
    ) -> Page:
        """List objects by their names (ListObjectsV2)."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix, "max-keys": str(limit)}
        query |= {"delimiter": delimiter} if delimiter else {}
        query |= {"continuation-token": cursor} if cursor else {}
        document = parsed(await self.send("GET", query=query, seconds=seconds))
        return Page(
            [_listed(one) for one in document.iterfind("{*}Contents")],
            [unquote(text(one, "Prefix")) for one in document.iterfind("{*}CommonPrefixes")],
            text(document, "NextContinuationToken") or None if text(document, "IsTruncated") == "true" else None,
        )

    async def head(self, name: str, form: MetadataForm, *, version: str | None, seconds: float) -> Described:
        """Describe an object by everything the store says."""
        answer = await self.send("HEAD", name, query={"versionId": version} if version else None, seconds=seconds)
        prefix, headers = f"{self.vendor}meta-", answer.headers
        entries = {key.removeprefix(prefix): value for key, value in headers.items() if key.startswith(prefix)}
        return Described(
            headers.get("etag", "").strip('"'),
            int(headers.get("content-length", "0")),
            parsedate_to_datetime(headers["last-modified"]),
            form.read(headers.get("content-type"), entries),
            headers.get(f"{self.vendor}version-id"),
            headers.get(f"{self.vendor}server-side-encryption-aws-kms-key-id"),
        )

    async def put(self, name: str, content: bytes, *, headers: Mapping[str, str], seconds: float) -> Written:
        """Write an object in one request."""
        answer = await self.send("PUT", name, headers=headers, body=content, seconds=seconds)
        return Written(answer.headers.get("etag", "").strip('"'), answer.headers.get(f"{self.vendor}version-id"))

    async def versions(
        self, name: str, *, cursor: str | None, limit: int, seconds: float
    ) -> tuple[list[Listed], str | None]:
        """Return versions of one object, newest first, and what to go on with."""
        query = {"versions": "", "encoding-type": "url", "prefix": name, "max-keys": str(limit)}
        query |= {"key-marker": name, "version-id-marker": cursor} if cursor else {}
        document = parsed(await self.send("GET", query=query, seconds=seconds))
        kinds = {"Version", "DeleteMarker"}
        found = [_version(one) for one in document if one.tag.rpartition("}")[2] in kinds]
        own = [one for one in found if one.name == name]
        has_more = text(document, "IsTruncated") == "true" and len(own) == len(found)
        newest_first = sorted(own, key=lambda one: (one.is_latest, one.modified_at), reverse=True)
        return newest_first, text(document, "NextVersionIdMarker") or None if has_more else None

    async def copy(self, source: str, target: str, *, headers: Mapping[str, str], seconds: float) -> str:
        """Copy an object at the store; return the etag of the copy."""
        sent = {f"{self.vendor}copy-source": f"/{quote(self._endpoint.bucket)}/{quoted(source)}", **headers}
        document = parsed(await self.send("PUT", target, headers=sent, seconds=seconds))
        return text(document, "ETag").strip('"')

    async def delete(self, name: str, *, version: str | None = None, seconds: float) -> Answer:
        """Remove an object, which need not be there."""
        return await self.send("DELETE", name, query={"versionId": version} if version else None, seconds=seconds)

    # -- uploads in parts ------------------------------------------------------------------------

    async def begin(self, name: str, *, headers: Mapping[str, str], seconds: float) -> str:
        """Begin an upload; return its id."""
        return text(
            parsed(await self.send("POST", name, query={"uploads": ""}, headers=headers, seconds=seconds)), "UploadId"
        )

    async def add(self, name: str, upload: str, number: int, content: bytes, *, seconds: float) -> str:
        """Send a part; return its etag."""
        query = {"partNumber": str(number), "uploadId": upload}
        answer = await self.send("PUT", name, query=query, body=content, seconds=seconds)
        return answer.headers.get("etag", "").strip('"')

    async def parts(self, name: str, upload: str, *, seconds: float) -> list[SentPart]:
        """Return the parts that have arrived."""
        found: list[SentPart] = []
        marker = "0"
        while True:
            query = {"uploadId": upload, "part-number-marker": marker}
            document = parsed(await self.send("GET", name, query=query, seconds=seconds))
            found += [
                SentPart(int(text(one, "PartNumber")), text(one, "ETag").strip('"'), int(text(one, "Size")))
                for one in document.iterfind("{*}Part")
            ]
            following = text(document, "NextPartNumberMarker")
            if text(document, "IsTruncated") != "true" or following in {"", marker}:
                return found
            marker = following

    async def complete(self, name: str, upload: str, parts: Sequence[tuple[int, str]], *, seconds: float) -> str:
        """Make the object of its parts; return its etag."""
        root = ElementTree.Element("CompleteMultipartUpload", xmlns=XML)
        for number, etag in parts:
            part = ElementTree.SubElement(root, "Part")
            ElementTree.SubElement(part, "PartNumber").text = str(number)
            ElementTree.SubElement(part, "ETag").text = f'"{etag}"'
        body = ElementTree.tostring(root)
        document = parsed(await self.send("POST", name, query={"uploadId": upload}, body=body, seconds=seconds))
        return text(document, "ETag").strip('"')

    async def abort(self, name: str, upload: str, *, seconds: float) -> None:
        """Give an upload up."""
        await self.send("DELETE", name, query={"uploadId": upload}, seconds=seconds)

    # -- settings of the bucket ------------------------------------------------------------------

    async def setting(self, name: str, *, seconds: float) -> ElementTree.Element:
        """Return a setting of the bucket (``lifecycle``, ``versioning``)."""
        return parsed(await self.send("GET", query={name: ""}, seconds=seconds))

    async def set(self, name: str, document: ElementTree.Element | None, *, seconds: float) -> None:
        """Replace a setting of the bucket; None removes it."""
        if document is None:
            await self.send("DELETE", query={name: ""}, seconds=seconds)
            return
        body = ElementTree.tostring(document)
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        await self.send("PUT", query={name: ""}, headers={"content-md5": digest}, body=body, seconds=seconds)


def parsed(answer: Answer) -> ElementTree.Element:
    """Read the document of an answer; a refusal can come with status 200 (CompleteMultipartUpload, CopyObject).

    No store sends a document type; one that does may want to have entities expanded, and is not read.
    """
    try:
        content = answer.body.decode()
        if answer.truncated or "<!DOCTYPE" in content:
            raise AnswerLostError("The answer of the store is too long, or no plain document.")
        document = ElementTree.fromstring(content)  # noqa: S314  (without a document type there are no entities)
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise AnswerLostError("The answer of the store is no document.") from error
    if document.tag.rpartition("}")[2] == "Error":
        raise RefusedError(Refusal(500, text(document, "Code") or None))
    return document


def text(document: ElementTree.Element, name: str) -> str:
    """Return the text of a child, empty when there is none."""
    return document.findtext(f"{{*}}{name}") or ""


def _version(one: ElementTree.Element) -> Listed:
    is_deleted = one.tag.endswith("DeleteMarker")
    return Listed(
        unquote(text(one, "Key")),
        0 if is_deleted else int(text(one, "Size")),
        text(one, "ETag").strip('"'),
        datetime.datetime.fromisoformat(text(one, "LastModified")),
        text(one, "VersionId"),
        text(one, "IsLatest") == "true",
        is_deleted,
    )


def _listed(one: ElementTree.Element) -> Listed:
    modified_at = datetime.datetime.fromisoformat(text(one, "LastModified"))
    # Cloud Storage compares generations, which it lists; S3 has none.
    etag = text(one, "Generation") or text(one, "ETag").strip('"')
    return Listed(unquote(text(one, "Key")), int(text(one, "Size")), etag, modified_at)
