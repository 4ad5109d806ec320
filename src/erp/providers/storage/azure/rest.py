"""The interface of Azure Blob Storage that ``obstore`` has nothing for.

Source: Azure Storage REST API reference, "Operations on blobs" and "Operations on containers".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree

from erp.providers.storage.azure.shared_key import SharedKey
from erp.vendor_clients.guarded_http import Answer, GuardedHttp
from erp.vendor_clients.object_store.endpoint import Endpoint, quoted
from erp.vendor_clients.object_store.failures import Refusal, RefusedError
from erp.vendor_clients.object_store.s3_rest import Listed, Page, parsed, text
from erp.vendor_clients.object_store.sigv4 import query_text

_REDIRECTION = 300


class BlobRest:
    """Requests to one container.

    Raises of all methods: ``RefusedError`` and the errors of ``guarded_http``.
    """

    def __init__(self, http: GuardedHttp, endpoint: Endpoint, key: SharedKey) -> None:
        self._http = http
        self._endpoint = endpoint
        self._key = key

    def __repr__(self) -> str:
        return f"BlobRest({self._endpoint.bucket_url!r})"

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
        url = f"{self._endpoint.bucket_url}/{quoted(name)}" if name else self._endpoint.bucket_url
        asked = query or {}
        path = url.partition("://")[2].partition("/")[2]
        signed = self._key.headers(method, f"/{path}", query=asked, headers=headers or {}, body=body)
        address = f"{url}?{query_text(asked)}" if asked else url
        answer = await self._http.send(method, address, headers=signed, body=body, timeout_seconds=seconds)
        if answer.status >= _REDIRECTION:
            raise RefusedError(Refusal.of(answer))
        return answer

    async def page(
        self, prefix: str, *, delimiter: str | None = None, cursor: str | None = None, limit: int, seconds: float
    ) -> Page:
        """List blobs by their names (List Blobs)."""
        query = {"restype": "container", "comp": "list", "prefix": prefix, "maxresults": str(limit)}
        query |= {"delimiter": delimiter} if delimiter else {}
        query |= {"marker": cursor} if cursor else {}
        document = parsed(await self.send("GET", query=query, seconds=seconds))
        return Page(
            [_listed(one) for one in document.iterfind("Blobs/Blob")],
            [text(one, "Name") for one in document.iterfind("Blobs/BlobPrefix")],
            text(document, "NextMarker") or None,
        )

    async def copy(self, source: str, target: str, *, headers: Mapping[str, str], seconds: float) -> Answer:
        """Begin to copy a blob at the store (Copy Blob); within an account it is mostly done at once."""
        sent = {"x-ms-copy-source": f"{self._endpoint.bucket_url}/{quoted(source)}", **headers}
        return await self.send("PUT", target, headers=sent, seconds=seconds)

    async def delete(self, name: str, *, seconds: float) -> None:
        """Remove a blob with its snapshots."""
        await self.send("DELETE", name, headers={"x-ms-delete-snapshots": "include"}, seconds=seconds)

    async def add_block(self, name: str, block: bytes, content: bytes, *, seconds: float) -> None:
        """Keep a block beside the blob until a list names it, or for a week (Put Block)."""
        await self.send("PUT", name, query={"comp": "block", "blockid": _id(block)}, body=content, seconds=seconds)

    async def blocks(self, name: str, *, is_committed: bool = False, seconds: float) -> list[tuple[bytes, int]]:
        """Return name and size of the blocks of a blob, or of those that no list names yet (Get Block List)."""
        kind = "committed" if is_committed else "uncommitted"
        query = {"comp": "blocklist", "blocklisttype": kind}
        document = parsed(await self.send("GET", name, query=query, seconds=seconds))
        found = document.iterfind(f"{kind.capitalize()}Blocks/Block")
        return [(base64.b64decode(text(one, "Name")), int(text(one, "Size"))) for one in found]

    async def commit(self, name: str, blocks: Sequence[bytes], *, headers: Mapping[str, str], seconds: float) -> None:
        """Make the blob of its blocks (Put Block List)."""
        root = ElementTree.Element("BlockList")
        for block in blocks:
            ElementTree.SubElement(root, "Uncommitted").text = _id(block)
        body = ElementTree.tostring(root, encoding="utf-8")
        await self.send("PUT", name, query={"comp": "blocklist"}, headers=headers, body=body, seconds=seconds)


def _id(block: bytes) -> str:
    return base64.b64encode(block).decode()


def _listed(one: ElementTree.Element) -> Listed:
    about = one.find("Properties")
    assert about is not None  # noqa: S101  (every blob has them)
    modified_at = parsedate_to_datetime(text(about, "Last-Modified"))
    return Listed(text(one, "Name"), int(text(about, "Content-Length")), text(about, "Etag").strip('"'), modified_at)
