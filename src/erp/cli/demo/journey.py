"""Runs the sample orders through a layer over HTTP and watches what becomes of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from erp.cli.demo.client import DemoClient
from erp.cli.demo.orders import Sample

SETTLE_SECONDS = 60.0
TOPIC = "service.events.order.submitted"


@dataclass
class Outcome:
    """What became of one submission."""

    sample: Sample
    status: int
    order_id: str | None = None
    total: str = ""
    row: str = ""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    delivery: dict[str, Any] = field(default_factory=dict)
    """How the webhook stands: status and number of attempts."""
    event_position: str = ""
    problem: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being worked on any more."""
        return all(step["status"] != "pending" for step in self.steps.values())


def submit(client: DemoClient, sample: Sample) -> Outcome:
    """Submit one order."""
    answer = client.call("/services/order/submit", sample.params, **sample.headers)
    if answer.status != 200:  # noqa: PLR2004  (HTTP OK)
        errors = [f"{item['pointer']} {item['message']}" for item in answer.body.get("errors", [])]
        return Outcome(sample, answer.status, problem="; ".join(errors) or answer.body["detail"])
    data = answer.data
    row = "written" if data["created"] else "was there already"
    return Outcome(sample, 200, data["order_id"], f"{data['total']} {data['currency']}", row)


def watch(client: DemoClient, outcomes: list[Outcome], changed: Callable[[], None]) -> bool:
    """Look at the orders until all steps have ended; return False when they did not in time."""
    deadline = time.monotonic() + SETTLE_SECONDS
    kept = [outcome for outcome in outcomes if outcome.order_id]
    while time.monotonic() < deadline:
        for outcome in kept:
            if not outcome.steps or not outcome.is_settled:
                found = client.call("/services/order/get", {"order_id": outcome.order_id}).data
                outcome.steps = {step["name"]: step for step in found["steps"]}
        changed()
        if all(outcome.steps and outcome.is_settled for outcome in kept):
            return True
        time.sleep(0.1)
    return False


def follow_deliveries(client: DemoClient, outcomes: list[Outcome], changed: Callable[[], None]) -> None:
    """Look at the webhooks until each is delivered; the layer tries again by itself after a few seconds."""
    deadline = time.monotonic() + SETTLE_SECONDS
    sent = [outcome for outcome in outcomes if outcome.steps.get("integration", {}).get("status") == "done"]
    while time.monotonic() < deadline:
        for outcome in sent:
            if outcome.delivery.get("status") != "delivered":
                params = {"id": outcome.steps["integration"]["detail"], "endpoint": "configured"}
                answer = client.call("/providers/integration/webhook/get_delivery", params)
                outcome.delivery = answer.data["delivery"]
        changed()
        if all(outcome.delivery["status"] == "delivered" for outcome in sent):
            return
        time.sleep(0.2)


def receive_events(client: DemoClient, outcomes: list[Outcome], group: str) -> None:
    """Pull the announced orders from the event bus and confirm them."""
    wanted = {outcome.order_id for outcome in outcomes if outcome.order_id}
    deadline = time.monotonic() + SETTLE_SECONDS
    while wanted and time.monotonic() < deadline:
        params = {"topic": TOPIC, "group": group, "wait_seconds": 1}
        deliveries = client.call("/providers/bus/log/pull", params).data["deliveries"]
        for item in deliveries:
            order_id = item["event"]["data"]["order_id"]
            wanted.discard(order_id)
            for outcome in outcomes:
                if outcome.order_id == order_id:
                    outcome.event_position = item["position"]
        if deliveries:
            client.call("/providers/bus/log/ack", {"ack_ids": [item["ack_id"] for item in deliveries]})
