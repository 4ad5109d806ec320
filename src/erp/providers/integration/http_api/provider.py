"""Any JSON HTTP API, described by configuration."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import msgspec

from erp.contracts.models import integration as contract
from erp.providers.integration.http_api import checkpoints, writes
from erp.providers.integration.http_api.changes import Changes
from erp.providers.integration.http_api.peer import MEANING, Peer, filled
from erp.providers.integration.http_api.records import Records, Shape, problem_of
from erp.providers.integration.http_api.specification import Action, ObjectSpecification, Trigger
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
)
from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import GuardedHttp, HttpLimits

MAX_ANSWER_BYTES = 16 * 1024 * 1024


class HttpApi:
    """Translates each call into requests that the configuration describes; keeps nothing."""

    translate: ClassVar[ErrorTable] = MEANING

    def __init__(self, config: Config, context: OpenContext) -> None:  # noqa: ARG002
        self._config = config
        self._objects: dict[str, ObjectSpecification] = {}
        self._triggers: dict[str, Trigger] = {}
        self._http: GuardedHttp | None = None
        self._peer_opened: Peer | None = None

    async def open(self) -> None:
        """Read the configuration; the peer is not asked."""
        limits = HttpLimits(
            total_seconds=float(self._config.get("timeout_seconds", 30)), max_answer_bytes=MAX_ANSWER_BYTES
        )
        try:
            self._objects = msgspec.convert(self._config.get("objects", {}), dict[str, ObjectSpecification])
            self._triggers = msgspec.convert(self._config.get("triggers", {}), dict[str, Trigger])
            http = GuardedHttp(EgressRule.from_environment(), limits=limits)
            http.check_url(self._config["base_url"])
        except (EgressRefusedError, ValueError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        self._http = http
        self._peer_opened = Peer(http, self._config)

    async def close(self) -> None:
        http, self._http, self._peer_opened = self._http, None, None
        if http is not None:
            await http.aclose()

    @property
    def _peer(self) -> Peer:
        if self._peer_opened is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.", retry_after_seconds=1.0)
        return self._peer_opened

    async def health(self) -> Health:
        """Connect to the peer (with TLS for https) and send nothing: whether it lets us in shows only ``test``."""
        try:
            peer = Dependency(name="peer", status="ok", latency_ms=round(await self._peer.probe(), 3))
        except tuple(MEANING) as error:
            peer = Dependency(name="peer", status="down", message=str(error))
        latency_ms = 0.0 if peer.latency_ms is UNSET else peer.latency_ms
        return Health(
            status="ok" if peer.status == "ok" else "down",
            latency_ms=latency_ms,
            dependencies=[peer],
            message=peer.message,
        )

    async def trigger(self, request: contract.TriggerRequest, context: CallContext) -> contract.TriggerResult:
        trigger = self._triggers.get(request.name)
        if trigger is None:
            message = f"There is no trigger {request.name!r}; describe lists them."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        keys = {} if request.subject is UNSET else request.subject.keys
        body = None if request.payload is UNSET else request.payload
        reply = await self._peer.request(trigger.method, filled(trigger.path, keys), context, body=body)
        status: Any = "accepted" if reply.status == 202 else "completed"  # noqa: PLR2004  (Accepted)
        return contract.TriggerResult(id=context.request_id, status=status, result=reply.document)

    async def describe(self, request: contract.DescribeRequest, context: CallContext) -> contract.DescribeResult:  # noqa: ARG002
        items = [item for item in self._descriptions() if _is_wanted(item, request)]
        start = _start(request.cursor)
        result = contract.DescribeResult(items=items[start : start + request.limit])
        if start + request.limit < len(items):
            result.next_cursor = str(start + request.limit)
        return result

    def _descriptions(self) -> list[contract.Description]:
        objects = [
            contract.Description(
                kind="object", name=name, title=item.title or UNSET, keys=[item.key], actions=list(item.actions)
            )
            for name, item in sorted(self._objects.items())
        ]
        triggers = [
            contract.Description(kind="trigger", name=name, title=item.title or UNSET)
            for name, item in sorted(self._triggers.items())
        ]
        return objects + triggers

    async def test(self, request: contract.TestRequest, context: CallContext) -> contract.TestResult:  # noqa: ARG002
        """Connect, then read what is configured for it with the credentials."""
        listed = (item.listing.path for item in self._objects.values() if item.listing is not None)
        path = self._config.get("test_path") or next(listed, None)
        reached = await self._checked("reachable", self._peer.probe())
        if reached.status == "failed" or path is None:
            return contract.TestResult(
                ok=reached.status != "failed", checks=[reached, contract.Check(name="may_read", status="skipped")]
            )
        read = await self._checked("may_read", self._peer.request("GET", path, context))
        return contract.TestResult(ok=read.status == "passed", checks=[reached, read])

    async def _checked(self, name: str, step: Any) -> contract.Check:
        started = time.monotonic()
        check = contract.Check(name=name, status="passed")
        try:
            await step
        except tuple(MEANING) as error:
            check = contract.Check(name=name, status="failed", code=MEANING[type(error)].value, message=str(error))
        except ProviderError as error:
            check = contract.Check(name=name, status="failed", code=error.code.value, message=error.message)
        check.duration_ms = round((time.monotonic() - started) * 1000, 3)
        return check

    def _specification(self, name: str, action: Action) -> ObjectSpecification:
        found = self._objects.get(name)
        if found is None:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no object {name[:100]!r}; describe lists them.")
        if action not in found.actions:
            message = (
                f"The configuration of the object {name!r} does not say how to {action} it; describe lists what it can."
            )
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        return found

    async def fetch(self, request: contract.FetchRequest, context: CallContext) -> contract.FetchResult:
        records = Records(self._peer, Shape(self._specification(request.object, "fetch")))
        for number, keys in enumerate(request.keys):
            records.check_keys(keys, f"/params/keys/{number}")
        return contract.FetchResult(
            records=[await _fetched(records, keys, request.fields, context) for keys in request.keys]
        )

    async def upsert(self, request: contract.UpsertRequest, context: CallContext) -> contract.UpsertResult:
        if request.atomic:
            message = "The peer writes record by record; all or none is not possible. Leave atomic out."
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        records = Records(self._peer, Shape(self._specification(request.object, "upsert")))
        _check(records, request.records)
        outcomes = await writes.each(
            request.records, lambda record: records.write(record, request.mode, context), context
        )
        failed = writes.failed(outcomes) if request.report_failures else writes.require_success(outcomes)
        return contract.UpsertResult(outcomes=outcomes, failed=failed)

    async def delete(self, request: contract.DeleteRequest, context: CallContext) -> contract.DeleteResult:
        records = Records(self._peer, Shape(self._specification(request.object, "delete")))
        _check(records, request.records)
        outcomes = await writes.each(request.records, lambda record: records.delete(record.keys, context), context)
        failed = writes.failed(outcomes) if request.report_failures else writes.require_success(outcomes)
        return contract.DeleteResult(outcomes=outcomes, failed=failed)

    async def sync(self, request: contract.SyncRequest, context: CallContext) -> contract.SyncResult:
        specification = self._specification(request.object, "sync")
        assert specification.listing is not None  # noqa: S101  (sync is one of its actions)
        target = checkpoints.target_of(self._config["base_url"], request.object, specification)
        changes = Changes(self._peer, specification.listing, Shape(specification), target)
        return await changes.read(request, context)


async def _fetched(records: Records, keys: dict[str, str], fields: Any, context: CallContext) -> contract.FetchedRecord:
    """Read one record; a failure that concerns it alone does not spoil the others."""
    try:
        return await records.fetch(keys, fields, context)
    except ProviderError as error:
        if error.code in {ErrorCode.PERMISSION_DENIED, ErrorCode.INVALID_ARGUMENT, ErrorCode.CONFLICT}:
            return contract.FetchedRecord(keys=keys, found=False, problem=problem_of(error))
        raise


def _check(records: Records, items: Any) -> None:
    """Refuse before anything is written what cannot be written."""
    for number, record in enumerate(items):
        records.check_keys(record.keys, f"/params/records/{number}/keys")
        if record.expected_version is not UNSET:
            message = "The peer cannot refuse a write by version (capability versions). Leave expected_version out."
            raise ProviderError(ErrorCode.UNSUPPORTED, message)


def _is_wanted(item: contract.Description, request: contract.DescribeRequest) -> bool:
    if request.kind is not UNSET and item.kind != request.kind:
        return False
    if request.names is not UNSET and item.name not in request.names:
        return False
    if request.text is UNSET:
        return True
    title = "" if item.title is UNSET else item.title
    return request.text.lower() in item.name.lower() or request.text.lower() in title.lower()


def _start(cursor: Any) -> int:
    if cursor is UNSET:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):  # noqa: PLR2004
        problem = FieldError("/params/cursor", "Use next_cursor of the page before.")
        message = "The cursor is not one this provider gave."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[problem])
    return int(cursor)
