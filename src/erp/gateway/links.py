"""What a link leads to: ``/objects/{token}`` reads or writes one object, ``/webhooks/{token}`` receives from a peer.

The link is the credential. The calls it causes go through the pipeline as the service ``link`` of
the link's tenant, within the tenant's rate limit and quota.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from starlette.responses import Response, StreamingResponse

from erp.contracts.models import integration, storage
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.gateway import answers, bodies
from erp.gateway.endpoint import guarded
from erp.gateway.inbound import Inbound
from erp.runtime.call import Call
from erp.runtime.service_calls import service_actor

if TYPE_CHECKING:
    from starlette.requests import Request

    from erp.control_plane.tenants import Tenants
    from erp.runtime.calls import Calls
    from erp.security.links import Link, SealedLinks

PART_BYTES = 1024 * 1024
SERVICE = "link"

_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_REPLY_HEADERS = frozenset({"content-type"})
"""What a provider may say beside the body: nothing that could set a cookie or move the caller elsewhere."""
_HARMLESS = {
    # Whoever wrote the object chose its bytes and type: no browser may run it under the gateway's origin.
    "content-disposition": "attachment",
    "content-security-policy": "default-src 'none'; sandbox",
}


class LinkRoutes:
    """Serves links."""

    def __init__(self, links: SealedLinks, calls: Calls, tenants: Tenants) -> None:
        self._links = links
        self._calls = calls
        self._tenants = tenants

    @property
    def objects(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of ``/objects/{token}``."""
        return guarded(self._object)

    @property
    def webhooks(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of ``/webhooks/{token}``."""
        return guarded(self._webhook)

    async def _opened(self, request: Request, purpose: Any) -> Link:
        link = self._links.open(purpose, request.path_params["token"])
        await self._tenants.get(link.tenant)
        await self._calls.limit(link.tenant)
        return link

    async def _invoke(self, link: Link, inbound: Inbound, action: str, request: Any) -> Any:
        call = Call(
            action=self._calls.plans.catalog.action("providers", link.domain, action),
            actor=service_actor(SERVICE, link.tenant),
            provider=link.provider,
            connection=link.connection,
            request=request,
            request_id=inbound.request_id,
            traceparent=inbound.traceparent,
            parent=inbound.parent,
        )
        return (await self._calls.invoke(call)).result

    # -- objects ---------------------------------------------------------------------------------

    async def _object(self, request: Request, inbound: Inbound) -> Response:
        link = await self._opened(request, "objects")
        method, allowed = request.method, link.claims["method"]
        if method != allowed and (method, allowed) != ("HEAD", "GET"):
            message = f"The link is for {allowed}, not {method}."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
        return await (self._put(link, inbound, request) if method == "PUT" else self._get(link, inbound, request))

    async def _put(self, link: Link, inbound: Inbound, request: Request) -> Response:
        wanted, sent = link.claims.get("content_type"), inbound.content_type
        if wanted is not None and sent != wanted:
            message = f"The link is for content of type {wanted}. Send it as Content-Type."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=415)
        content = await bodies.read(inbound, request.receive)
        put = storage.PutRequest(key=link.claims["key"], content=content)
        if sent:
            put.content_type = sent
        stored = await self._invoke(link, inbound, "put", put)
        return Response(status_code=204, headers={**_common(inbound), "etag": f'"{stored.etag}"'})

    async def _get(self, link: Link, inbound: Inbound, request: Request) -> Response:
        key = link.claims["key"]
        found = await self._invoke(link, inbound, "head", storage.HeadRequest(key=key))
        if not found.found:
            raise ProviderError(ErrorCode.NOT_FOUND, "The object of this link does not exist.")
        size = found.size or 0
        headers = {
            **_common(inbound),
            **_HARMLESS,
            "etag": f'"{found.etag}"',
            "accept-ranges": "bytes",
            "content-type": found.content_type,
        }
        asked = request.headers.get("range")
        span = _span(asked, size) if asked else (0, size)
        if span is None:
            return Response(status_code=416, headers={**_common(inbound), "content-range": f"bytes */{size}"})
        start, end = span
        headers["content-length"] = str(end - start)
        if asked:
            headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        status = 206 if asked else 200
        if request.method == "HEAD" or start == end:
            return Response(status_code=status, headers=headers)
        return StreamingResponse(self._parts(link, inbound, found.etag, start, end), status, headers)

    async def _parts(self, link: Link, inbound: Inbound, etag: str, start: int, end: int) -> AsyncGenerator[bytes]:
        """Yield bytes ``start`` to ``end``; an object replaced meanwhile ends the answer early, never mixes two."""
        while start < end:
            part = storage.GetRequest(
                key=link.claims["key"], offset=start, length=min(PART_BYTES, end - start), if_match=etag
            )
            content = (await self._invoke(link, inbound, "get", part)).content
            start += len(content)
            yield content

    # -- webhooks --------------------------------------------------------------------------------

    async def _webhook(self, request: Request, inbound: Inbound) -> Response:
        link = await self._opened(request, "webhooks")
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        received = integration.ReceiveRequest(
            receiver=link.claims["receiver"],
            method=request.method,  # type: ignore[arg-type]  # the route takes GET, POST and PUT alone
            query=request.url.query,
            headers=headers,
            body=await bodies.read(inbound, request.receive),
            received_at=datetime.datetime.now(datetime.UTC),
            remote_address=request.client.host if request.client else UNSET,
        )
        result = await self._invoke(link, inbound, "receive", received)
        reply = {name: value for name, value in (result.reply_headers or {}).items() if name.lower() in _REPLY_HEADERS}
        return Response(result.reply_body or b"", result.reply_status, {**_common(inbound), **reply})


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Return start and end (exclusive) of a single byte range (RFC 9110, section 14.1.2); None: not satisfiable."""
    match = _RANGE.match(asked.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        return (size - length, size) if length else None
    start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
    return (start, end) if start < end else None


def _common(inbound: Inbound) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in answers.common_headers(inbound)}
