"""Reading changes: passes over a list, each beginning where the peer's clock stood when the one before began."""

from __future__ import annotations

import datetime
import time
from typing import Any

from msgspec import UNSET

from erp.contracts.models.integration import Change, RecordProblem, SyncRequest, SyncResult, UnreadRecord
from erp.providers.integration.http_api import checkpoints
from erp.providers.integration.http_api.checkpoints import MAX_SEEN, Checkpoint
from erp.providers.integration.http_api.pages import Page, Pages
from erp.providers.integration.http_api.peer import Peer
from erp.providers.integration.http_api.records import Shape
from erp.providers.integration.http_api.specification import Listing
from erp.runtime.spi import CallContext, ErrorCode, FieldError, ProviderError


class Changes:
    """The changes of one object."""

    def __init__(self, peer: Peer, listing: Listing, shape: Shape, target: str) -> None:
        self._listing = listing
        self._shape = shape
        self._target = target
        self._pages = Pages(peer, listing, shape.identity)

    async def read(self, request: SyncRequest, context: CallContext) -> SyncResult:
        """Read one page."""
        place = self._place(request)
        if request.start == "now":
            return self._nothing_yet(place)
        page = await self._pages.read(place, context)
        begun_at = place.begun_at
        if begun_at is None:
            begun_at = (time.time() if page.at is None else page.at) - self._listing.lookback_seconds
        taken = page.items[: request.limit]
        is_end = len(taken) == len(page.items) and page.next_position is None
        after = self._ended(begun_at) if is_end else self._within(place, page, taken, begun_at)
        result = SyncResult(
            changes=[],
            unread=[],
            checkpoint=checkpoints.written(after),
            more=not is_end,
            snapshot_complete=not after.is_snapshot,
            deletions=self._deletions,
        )
        if is_end:
            result.covered_until = datetime.datetime.fromtimestamp(begun_at, datetime.UTC)
        self._add(result, [item for item in taken if self._is_wanted(item, place)], request)
        return result

    @property
    def _deletions(self) -> Any:
        return "reported" if self._shape.specification.deleted_field else "not_reported"

    def _place(self, request: SyncRequest) -> Checkpoint:
        if request.start == "checkpoint":
            if request.checkpoint is UNSET:
                raise _missing("checkpoint")
            return checkpoints.read(request.checkpoint, self._target)
        if request.start == "beginning":
            return Checkpoint(target=self._target, since=None, is_snapshot=True)
        if self._listing.since_param is None:
            message = "The peer cannot list changes since a time (list.since_param is not configured). Start from the beginning."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        if request.start == "now":
            return Checkpoint(target=self._target, since=time.time() - self._listing.lookback_seconds)
        if request.changed_since is UNSET:
            raise _missing("changed_since")
        return Checkpoint(target=self._target, since=request.changed_since.timestamp())

    def _nothing_yet(self, place: Checkpoint) -> SyncResult:
        return SyncResult(
            changes=[],
            unread=[],
            checkpoint=checkpoints.written(place),
            more=False,
            snapshot_complete=True,
            deletions=self._deletions,
        )

    def _ended(self, begun_at: float) -> Checkpoint:
        """The next pass reads what changed since this one began; without a way to ask for that, everything again."""
        since = begun_at if self._listing.since_param is not None else None
        return Checkpoint(target=self._target, since=since)

    def _within(self, place: Checkpoint, page: Page, taken: list[Any], begun_at: float) -> Checkpoint:
        seen = (place.seen + [self._shape.identity(item) for item in taken])[-MAX_SEEN:]
        position = page.next_position or ""
        is_numbered = self._listing.paging.style in {"page", "offset"}
        is_partial = len(taken) < len(page.items)
        if is_partial:
            # The rest of the page: by number, or by reading the whole page again where it has none.
            position = str(page.start + len(taken)) if is_numbered else place.position
        return Checkpoint(
            target=self._target,
            since=place.since,
            begun_at=begun_at,
            position=position,
            seen=seen,
            is_partial=is_partial and not is_numbered,
            is_snapshot=place.is_snapshot,
        )

    def _is_wanted(self, item: Any, place: Checkpoint) -> bool:
        """Deleted records are told apart only once everything was listed."""
        return not (place.is_snapshot and self._shape.is_deleted(item))

    def _add(self, result: SyncResult, items: list[Any], request: SyncRequest) -> None:
        for item in items:
            keys = self._shape.keys(item)
            if keys is None:
                message = f"The record lacks a key field ({', '.join(self._shape.specification.key)})."
                problem = RecordProblem(code=ErrorCode.INTERNAL.value, message=message, retryable=False)
                result.unread.append(UnreadRecord(peer_id=self._shape.peer_id(item), problem=problem))
                continue
            is_deleted = self._shape.is_deleted(item)
            change = Change(
                kind="deleted" if is_deleted else "changed",
                keys=keys,
                peer_id=self._shape.peer_id(item),
                version=self._shape.version(item),
                changed_at=self._shape.changed_at(item),
            )
            if not is_deleted:
                change.fields = self._shape.fields(item, request.fields)
            result.changes.append(change)


def _missing(name: str) -> ProviderError:
    problem = FieldError(f"/params/{name}", f"Give {name} with this start.")
    return ProviderError(ErrorCode.INVALID_ARGUMENT, problem.message, errors=[problem])
