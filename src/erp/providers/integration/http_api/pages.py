"""Reads one page of a list, whatever its style, without skipping a record that was there all the time."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from erp.providers.integration.http_api.checkpoints import Checkpoint
from erp.providers.integration.http_api.peer import Peer, Reply
from erp.providers.integration.http_api.specification import Listing, at_pointer
from erp.runtime.spi import CallContext, ErrorCode, ProviderError

_LINK = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
_STEPS_BACK = 20
"""Pages looked through for the place of a reading before it begins again."""

Identity = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Page:
    """Records after the place of a checkpoint."""

    items: list[Any]
    next_position: str | None
    """Of what follows the page; None when nothing does."""
    at: float | None
    """The peer's clock."""
    start: int = 0
    """Number of records before the first item, for numbered pages."""


class Pages:
    """The pages of one object."""

    def __init__(self, peer: Peer, listing: Listing, identity: Identity) -> None:
        self._peer = peer
        self._listing = listing
        self._paging = listing.paging
        self._identity = identity

    async def read(self, place: Checkpoint, context: CallContext) -> Page:
        """Read on from ``place``; may bring records again, never skips one.

        Raises:
            ProviderError: ``failed_precondition`` when the peer no longer knows the place.
        """
        if self._paging.style in {"page", "offset"} and place.position:
            return await self._found_again(place, context)
        if self._paging.style in {"page", "offset"}:
            return await self._numbered(0, place, context)
        return await self._linked(place, context)

    async def _linked(self, place: Checkpoint, context: CallContext) -> Page:
        path, query = self._listing.path, self._query(place)
        if self._paging.style == "link" and place.position:
            path, query = place.position, {}
        elif self._paging.style == "cursor" and place.position:
            query[self._paging.position_param] = place.position
        try:
            reply = await self._peer.request("GET", path, context, query=query)
        except ProviderError as error:
            if place.position and error.code in {ErrorCode.INVALID_ARGUMENT, ErrorCode.NOT_FOUND}:
                message = "The peer no longer knows this place. Start again from the beginning."
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=error.detail) from error
            raise
        items = self._items(reply)
        cut = self._behind_seen(items, place.seen) if place.is_partial else None
        return Page(items[cut or 0 :], self._next(reply, path), _clock_of(reply))

    def _next(self, reply: Reply, path: str) -> str | None:
        if self._paging.style == "cursor":
            found = at_pointer(reply.document, self._paging.next_cursor)
            return str(found) if found not in {None, "", False} else None
        if self._paging.style == "link":
            match = _LINK.search(reply.headers.get("link", ""))
            return None if match is None else self._followed(match[1], path)
        return None

    def _followed(self, target: str, path: str) -> str:
        """The next page; credentials are never sent elsewhere."""
        relative = self._peer.relative(target, path)
        if relative is None:
            message = "The peer's link to the next page leads away from base_url."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return relative

    async def _numbered(self, start: int, place: Checkpoint, context: CallContext) -> Page:
        """Read the numbered page that holds record ``start``; with pages it may begin before it."""
        paging, query = self._paging, self._query(place)
        if paging.style == "page":
            number = start // paging.size
            start = number * paging.size
            query[paging.position_param] = str(number + paging.first_page)
        else:
            query[paging.position_param] = str(start)
        reply = await self._peer.request("GET", self._listing.path, context, query=query)
        items = self._items(reply)
        # A short page need not be the last one; an empty one is.
        following = str(start + len(items)) if items else None
        if paging.style == "page" and items:
            following = str(start + paging.size)
        return Page(items, following, _clock_of(reply), start)

    async def _found_again(self, place: Checkpoint, context: CallContext) -> Page:
        """Read the records behind those last seen, wherever they stand now.

        A record that was deleted or moved makes all behind it move up; read by number alone, one would be skipped.
        """
        start = max(int(place.position) - 1, 0)
        for _ in range(_STEPS_BACK):
            page = await self._numbered(start, place, context)
            cut = self._behind_seen(page.items, place.seen)
            if cut is not None or page.start == 0:
                return await self._continued(page, cut or 0, place, context)
            start = max(page.start - self._paging.size, 0)
        return await self._numbered(0, place, context)

    def _behind_seen(self, items: list[Any], seen: list[str]) -> int | None:
        places = [number for number, item in enumerate(items) if self._identity(item) in seen]
        return places[-1] + 1 if places else None

    async def _continued(self, page: Page, cut: int, place: Checkpoint, context: CallContext) -> Page:
        rest = page.items[cut:]
        if rest or page.next_position is None:
            return Page(rest, page.next_position, page.at, page.start + cut)
        return await self._numbered(int(page.next_position), place, context)

    def _query(self, place: Checkpoint) -> dict[str, str]:
        query = {}
        if self._paging.size_param is not None:
            query[self._paging.size_param] = str(self._paging.size)
        if self._listing.since_param is not None and place.since is not None:
            query[self._listing.since_param] = _since(self._listing, place.since)
        return query

    def _items(self, reply: Reply) -> list[Any]:
        found = at_pointer(reply.document, self._listing.items)
        if not isinstance(found, list):
            message = f"The peer's answer has no list at {self._listing.items or 'its root'!r}; correct list.items."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return found


def _since(listing: Listing, since: float) -> str:
    if listing.since_format == "unix":
        return str(int(since))
    return datetime.datetime.fromtimestamp(int(since), datetime.UTC).isoformat().replace("+00:00", "Z")


def _clock_of(reply: Reply) -> float | None:
    try:
        return parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
