"""Single records: what their fields mean, reading, writing and deleting them by their keys."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from erp.contracts.models.integration import FetchedRecord, RecordProblem, RecordWrite, WriteOutcome
from erp.providers.integration.http_api.peer import Peer, Reply, filled
from erp.providers.integration.http_api.specification import ObjectSpecification, Request, at_pointer, wrapped
from erp.runtime.spi import CallContext, ErrorCode, FieldError, ProviderError

Keys = dict[str, str]


class Shape:
    """Reads the records of one object as its specification says."""

    def __init__(self, specification: ObjectSpecification) -> None:
        self.specification = specification

    def keys(self, item: Any) -> Keys | None:
        """The key fields as text; None when one is missing."""
        if not isinstance(item, dict):
            return None
        found = {name: _text(item.get(name)) for name in self.specification.key}
        keys = {name: value for name, value in found.items() if value is not None}
        return keys if len(keys) == len(found) else None

    def identity(self, item: Any) -> str:
        """What tells the record, as it is now, from all others: one that changed is another."""
        content = msgspec.json.encode(item, order="sorted")
        return hashlib.blake2b(content, digest_size=12).hexdigest()

    def peer_id(self, item: Any) -> str | UnsetType:
        """The peer's own id."""
        return self._named(item, self.specification.id_field)

    def version(self, item: Any) -> str | UnsetType:
        """The version of the record."""
        return self._named(item, self.specification.version_field)

    def _named(self, item: Any, name: str | None) -> str | UnsetType:
        found = _text(item.get(name)) if name is not None and isinstance(item, dict) else None
        return found[:256] if found else UNSET

    def changed_at(self, item: Any) -> datetime.datetime | UnsetType:
        """When the record changed, if it says so in RFC 3339 or seconds since 1970."""
        name = self.specification.changed_field
        found = item.get(name) if name is not None and isinstance(item, dict) else None
        try:
            if isinstance(found, int) and not isinstance(found, bool):
                return datetime.datetime.fromtimestamp(found, datetime.UTC)
            moment = datetime.datetime.fromisoformat(found) if isinstance(found, str) else None
        except (ValueError, OverflowError, OSError):
            return UNSET
        return moment if moment is not None and moment.tzinfo is not None else UNSET

    def is_deleted(self, item: Any) -> bool:
        """Whether the record says that it is deleted."""
        name = self.specification.deleted_field
        found = item.get(name) if name is not None and isinstance(item, dict) else None
        return found not in (None, False, "", 0)

    def fields(self, item: Mapping[str, Any], wanted: list[str] | UnsetType) -> dict[str, Any] | UnsetType:
        """The fields that are wanted; unset when none is."""
        if isinstance(wanted, UnsetType):
            return dict(item)
        return {name: item[name] for name in wanted if name in item} if wanted else UNSET


class Records:
    """The records of one object."""

    def __init__(self, peer: Peer, shape: Shape) -> None:
        self._peer = peer
        self._shape = shape
        self._specification = shape.specification

    def check_keys(self, keys: Keys, pointer: str) -> None:
        """Refuse keys that do not name a record.

        Raises:
            ProviderError: ``invalid_argument`` naming the field.
        """
        if set(keys) != set(self._specification.key):
            message = f"Give the key fields {', '.join(self._specification.key)}, and no others."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError(pointer, message)])

    async def fetch(self, keys: Keys, wanted: list[str] | UnsetType, context: CallContext) -> FetchedRecord:
        """Read a record; one that is not there is an answer."""
        item = await self._found(keys, context)
        if item is None or self._shape.is_deleted(item):
            return FetchedRecord(keys=keys, found=False)
        return FetchedRecord(
            keys=keys,
            found=True,
            peer_id=self._shape.peer_id(item),
            version=self._shape.version(item),
            changed_at=self._shape.changed_at(item),
            fields=self._shape.fields(item, wanted),
        )

    async def _found(self, keys: Keys, context: CallContext) -> dict[str, Any] | None:
        assert self._specification.get is not None  # noqa: S101  (the caller looked at the actions)
        try:
            reply = await self._send(self._specification.get, keys, context)
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            raise
        item = at_pointer(reply.document, self._specification.get.record)
        if not isinstance(item, dict):
            message = f"The peer's answer has no record at {self._specification.get.record or 'its root'!r}; correct get.record."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return item

    async def _send(self, request: Request, keys: Keys, context: CallContext, body: Any = UNSET) -> Reply:
        content = UNSET if body is UNSET else wrapped(body, request.record)
        return await self._peer.request(request.method, filled(request.path, keys), context, body=content)

    async def write(self, record: RecordWrite, mode: str, context: CallContext) -> WriteOutcome:
        """Create or change a record.

        Raises:
            ProviderError: ``already_exists`` or ``not_found`` by ``mode``, else what the peer said.
        """
        body = {**record.fields, **record.keys}
        if mode == "upsert" and self._specification.put is not None:
            return self._written(
                record, self._specification.put, await self._send(self._specification.put, record.keys, context, body)
            )
        exists = await self._exists(record.keys, context)
        if exists and mode == "create":
            raise ProviderError(ErrorCode.ALREADY_EXISTS, "There is a record with these keys already.")
        if not exists and mode == "update":
            raise ProviderError(ErrorCode.NOT_FOUND, "There is no record with these keys.")
        request = (self._specification.update if exists else self._specification.create) or self._specification.put
        assert request is not None  # noqa: S101  (the caller looked at the actions)
        return self._written(record, request, await self._send(request, record.keys, context, body))

    async def _exists(self, keys: Keys, context: CallContext) -> bool:
        if self._specification.get is None:
            message = "Whether the record exists cannot be asked (get is not configured). Use the mode upsert."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return await self._found(keys, context) is not None

    def _written(self, record: RecordWrite, request: Request, reply: Reply) -> WriteOutcome:
        is_created = reply.status == 201 or request is self._specification.create  # noqa: PLR2004  (Created)
        outcome = WriteOutcome(keys=record.keys, status="created" if is_created else "updated")
        item = at_pointer(reply.document, request.record)
        outcome.peer_id, outcome.version = self._shape.peer_id(item), self._shape.version(item)
        return outcome

    async def delete(self, keys: Keys, context: CallContext) -> WriteOutcome:
        """Delete a record; one that is not there is no failure."""
        assert self._specification.delete is not None  # noqa: S101  (the caller looked at the actions)
        try:
            await self._send(self._specification.delete, keys, context)
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return WriteOutcome(keys=keys, status="missing")
            raise
        return WriteOutcome(keys=keys, status="deleted")


def problem_of(error: ProviderError) -> RecordProblem:
    """What went wrong with one record."""
    return RecordProblem(code=error.code.value, message=error.message, retryable=error.retryable)


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)[:1024] or None
    return None
