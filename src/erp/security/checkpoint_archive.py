"""Copies every signed checkpoint into a storage connection, where whoever rewrites the database cannot reach it.

An object is created where none is and never written again; one that is there already must hold the same note.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models import storage
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from erp.control_plane.checkpoints import StoredCheckpoint, StoredCheckpoints
    from erp.runtime.context import CallContext

_log = logging.getLogger(__name__)

SERVICE = "audit"
SECONDS = 60.0
PAGE = 100
_PLACE = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/([a-z][a-z0-9_]{0,63})#([a-z0-9][a-z0-9_-]{0,63})")


class ArchivePlace(msgspec.Struct, frozen=True):
    """A storage connection: ``TENANT/PROVIDER#CONNECTION``."""

    tenant: str
    provider: str
    connection: str

    @classmethod
    def parse(cls, text: str) -> ArchivePlace:
        """Read ``platform/s3#archive``.

        Raises:
            ProviderError: ``failed_precondition``.
        """
        match = _PLACE.fullmatch(text)
        if match is None:
            message = (
                f"{text[:100]!r} names no archive. Write TENANT/PROVIDER#CONNECTION, for example platform/s3#archive."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return cls(*match.groups())


class CheckpointArchive:
    """The checkpoints of all tenants in one storage connection, an object each."""

    def __init__(self, place: ArchivePlace, context: Callable[[str, str, float], CallContext]) -> None:
        """``context``: makes the context of a service's work: its name, the tenant, how many seconds it may take."""
        self._place = place
        self._context = context

    async def send(self, stored: StoredCheckpoints) -> int:
        """Write what is not there yet; return how much. What fails is told of and tried again by the next call."""
        sent, last = 0, ("", 0)
        while page := await stored.unarchived(last, PAGE):
            for checkpoint in page:
                try:
                    await self._write(checkpoint)
                except ProviderError as error:
                    _log.error(
                        "the checkpoint of %s over %d records is not in the archive: %s",
                        checkpoint.tenant,
                        checkpoint.size,
                        error.message,
                    )
                    if error.retryable:
                        return sent  # the archive is away: the others would wait for their turn in vain
                    continue
                await stored.archived(checkpoint.tenant, checkpoint.size)
                sent += 1
            last = (page[-1].tenant, page[-1].size)
        return sent

    async def _write(self, checkpoint: StoredCheckpoint) -> None:
        content, key = checkpoint.note.encode(), _key(checkpoint.tenant, checkpoint.size)
        request = storage.PutRequest(key=key, content=content, content_type="text/plain", if_none_match="*")
        try:
            await self._call("put", request)
        except ProviderError as error:
            if error.code is not ErrorCode.FAILED_PRECONDITION or await self._read(key) != content:
                raise

    async def notes(self, tenant: str) -> list[str]:
        """Return the checkpoints of ``tenant`` that the archive holds.

        Raises:
            ProviderError: what the storage answers.
        """
        notes: list[str] = []
        cursor = msgspec.UNSET
        while True:
            page = await self._call("list", storage.ListRequest(prefix=_key(tenant), cursor=cursor))
            notes += [(await self._read(one.key)).decode(errors="replace") for one in page.objects]
            cursor = page.next_cursor
            if cursor is msgspec.UNSET:
                return notes

    async def _read(self, key: str) -> bytes:
        content: bytes = (await self._call("get", storage.GetRequest(key=key))).content
        return content

    async def _call(self, action: str, request: msgspec.Struct) -> Any:
        context = self._context(SERVICE, self._place.tenant, SECONDS)
        return await context.invoke(
            "storage", action, request, provider=self._place.provider, connection=self._place.connection
        )


def _key(tenant: str, size: int | None = None) -> str:
    return f"audit/{tenant}/" if size is None else f"audit/{tenant}/{size:012}.txt"
