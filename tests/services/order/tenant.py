"""A tenant around the order service: a real database file, an integration and a model that only take notes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from erp.contracts.models import ai, db, integration, order
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.context import Actor, CallContext
from erp.services.order.service import OrderService

PATIENCE_SECONDS = 30.0


@dataclass
class Tenant:
    """Everything the service can reach. ``failures[domain or "publish"]`` are raised one after the other."""

    database: SqliteDatabase
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    statements: list[tuple[str, Any]] = field(default_factory=list)
    triggers: list[tuple[str | None, integration.TriggerRequest]] = field(default_factory=list)
    questions: list[ai.ClassifyRequest] = field(default_factory=list)
    published: list[tuple[str, dict[str, Any], str | None, str | None]] = field(default_factory=list)
    trigger_result: integration.TriggerResult = field(
        default_factory=lambda: integration.TriggerResult(id="msg_1", status="completed")
    )
    during_trigger: Callable[[], Any] | None = None
    contexts: int = 0

    def context(self, tenant: str = "acme") -> CallContext:
        self.contexts += 1
        return CallContext(
            tenant=tenant,
            actor=Actor(id="service:order", tenant=tenant, kind="service"),
            request_id=f"req_{self.contexts}",
            deadline=time.monotonic() + 5.0,
            invoke=self.invoke,
            publish=self.publish,
        )

    async def invoke(self, domain: str, action: str, request: Any, *, idempotency_key: str | None = None) -> Any:
        self._fail(domain)
        if domain == "db":
            # As the contract says it: a request that is too large fails here as it does in the pipeline.
            checked = msgspec.json.decode(msgspec.json.encode(request), type=type(request))
            self.statements.append((action, checked))
            return await getattr(self.database, action)(checked, self.context())
        if domain == "integration":
            self.triggers.append((idempotency_key, request))
            if self.during_trigger is not None:
                await self.during_trigger()
            return self.trigger_result
        self.questions.append(request)
        best = request.labels[0].name
        return ai.ClassifyResult(
            model="toy",
            classifications=[ai.Classification(label=best, scores=[ai.LabelScore(label=best, score=1.0)])],
            usage=ai.Usage(input_tokens=1, output_tokens=0),
        )

    async def publish(self, event: str, data: dict[str, Any], *, key: str | None = None, id: str | None = None) -> None:  # noqa: A002
        self._fail("publish")
        self.published.append((event, data, key, id))

    def _fail(self, what: str) -> None:
        if self.failures.get(what):
            raise self.failures[what].pop(0)

    async def rows(self, sql: str) -> list[list[Any]]:
        return (await self.database.query(db.QueryRequest(sql=sql), self.context())).rows

    async def change(self, sql: str) -> None:
        await self.database.execute(db.ExecuteRequest(sql=sql), self.context())


def refusal(code: ErrorCode, message: str = "no") -> ProviderError:
    """A failure of a provider."""
    return ProviderError(code, message)


def new_order(**changes: Any) -> order.SubmitRequest:
    """A right order over 47.36 EUR; ``changes`` replace members of its parameters."""
    params = {
        "customer_reference": "PO-1",
        "customer": {"id": "C-1", "name": "Ada Byron", "email": "ada@example.com"},
        "currency": "EUR",
        "order_date": "2026-11-23",
        "lines": [{"sku": "SKU-1", "quantity": "2", "unit_price": "19.90", "tax_rate": "0.19"}],
        "total": "47.36",
        "note": "Please deliver before noon, the machine is down. Ada Byron, ada@example.com",
    }
    return msgspec.convert({**params, **changes}, order.SubmitRequest)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for _ in range(int(PATIENCE_SECONDS / 0.002)):
        if is_so():
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def settled(service: OrderService, tenant: Tenant, order_id: str) -> dict[str, tuple[str, int, str]]:
    """Wait until no step is pending; return status, attempts and detail of each."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    steps: list[order.Step] = []
    while time.monotonic() < deadline:
        steps = (await service.get(order.GetRequest(order_id=order_id), tenant.context())).steps
        if all(step.status != "pending" for step in steps):
            return {step.name: (step.status, step.attempts, str(step.detail)) for step in steps}
        await asyncio.sleep(0.002)
    message = f"still pending: {steps}"
    raise AssertionError(message)
