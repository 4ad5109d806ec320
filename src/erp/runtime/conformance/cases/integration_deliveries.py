"""Deliveries: kept, attempted again, listed, sent again."""

from __future__ import annotations

import datetime
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.hooks import Hook, is_signed, require_events
from erp.runtime.conformance.host import BETA
from erp.runtime.conformance.peers import Reply

LONGEST_SECONDS = 3600.0
"""Within which a delivery that failed for the first time is attempted again at the latest."""
EVER = "2020-01-01T00:00:00Z"


@case("INT-70", capability="deliveries")
async def what_failed_is_attempted_again(bench: Bench) -> None:
    """A delivery that fails MUST be kept, planned again within the hour and announced by ``delivery_failing``."""
    failures = {"500": Reply.of(500), "404": Reply.of(404), "429": Reply.of(429), "hung up": Reply(hangs_up=True)}
    for what, reply in failures.items():
        hook = await Hook.made(bench)
        hook.instead(reply)
        answer = await hook.trigger()
        require(answer["status"] == "accepted", f"after {what} the trigger is {answer['status']}")
        [event] = require_events(bench, "delivery_failing")
        delivery = (await hook.delivery(answer["id"]))["delivery"]
        require((delivery["status"], delivery["attempts"]) == ("failing", 1), f"after {what} it is {delivery}")
        require(event["delivery"] == delivery, f"announced {event}")
        require(0 < _in_seconds(delivery) <= LONGEST_SECONDS, f"planned in {_in_seconds(delivery):.0f} s")


def _in_seconds(delivery: Any) -> float:
    due = datetime.datetime.fromisoformat(delivery["next_attempt_at"])
    return (due - datetime.datetime.now(datetime.UTC)).total_seconds()


@case("INT-71", capability="deliveries")
async def an_endpoint_is_not_asked_again_too_soon(bench: Bench) -> None:
    """The next attempt MUST NOT come before the time that the endpoint asks to wait (``Retry-After``)."""
    hook = await Hook.made(bench)
    hook.instead(Reply.of(503, retry_after="1800"))
    answer = await hook.trigger()
    delivery = (await hook.delivery(answer["id"]))["delivery"]
    require(_in_seconds(delivery) > 1700, f"planned in {_in_seconds(delivery):.0f} s")  # noqa: PLR2004


@case("INT-72", capability="deliveries")
async def every_attempt_is_on_record(bench: Bench) -> None:
    """``get_delivery`` MUST show the payload and every attempt, in order, with what the endpoint answered."""
    hook = await Hook.made(bench)
    hook.instead(Reply(500, {}, b"out of paper"), Reply(202, {}, b"thanks"))
    answer = await hook.trigger(payload={"a": None})
    await bench.call("resend_delivery", {"id": answer["id"], "endpoint": hook.id})
    shown = await hook.delivery(answer["id"])
    facts = [(one["number"], one["status"], one["http_status"], one["response_excerpt"]) for one in shown["attempts"]]
    expected = [(1, "failed", 500, "out of paper"), (2, "delivered", 202, "thanks")]
    require(facts == expected, f"the attempts are {facts}")
    require(shown["attempts"][0].get("code") == "unavailable", f"the first failed as {shown['attempts'][0]}")
    require(shown["payload"] == hook.received[0].document, f"the payload is {shown['payload']}")
    require(shown["delivery"]["status"] == "delivered", f"the delivery is {shown['delivery']}")


@case("INT-73", capability="deliveries")
async def deliveries_are_listed_newest_first(bench: Bench) -> None:
    """``list_deliveries`` MUST list newest first, page by page to the end, and only what the filters ask for."""
    hook, other = await Hook.made(bench), await Hook.made(bench)
    ids = [(await hook.trigger())["id"] for _ in range(3)]
    hook.instead(Reply.of(500))
    ids.append((await hook.trigger())["id"])
    await other.trigger()
    found, cursor = [], None
    for _ in range(10):
        further: dict[str, Any] = {"cursor": cursor} if cursor else {}
        page = await bench.call("list_deliveries", {"endpoint": hook.id, "limit": 2, **further})
        found += [one["id"] for one in page["deliveries"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    require(found == ids[::-1], f"listed are {found} of {ids}")
    filters: dict[str, Any] = {"status": "failing", "name": hook.name, "created_from": EVER}
    require([one["id"] for one in await hook.deliveries(**filters)] == ids[-1:], f"{filters} is not what is listed")
    for nothing in ({"created_until": EVER}, {"name": "nobody.triggered"}, {"status": "exhausted"}):
        require(await hook.deliveries(**nothing) == [], f"{nothing} lists something")


@case("INT-74", capability="deliveries")
async def sending_again_keeps_the_id(bench: Bench) -> None:
    """``resend_delivery`` MUST send the same message with the same id and a new signature, and answer the attempt."""
    hook = await Hook.made(bench)
    hook.instead(Reply.of(500))
    id_ = (await hook.trigger(payload={"n": 1}))["id"]
    attempt = (await bench.call("resend_delivery", {"id": id_, "endpoint": hook.id}))["attempt"]
    require((attempt["number"], attempt["status"]) == (2, "delivered"), f"the attempt is {attempt}")
    [event] = require_events(bench, "delivery_recovered")
    require(event["delivery"]["id"] == id_, f"announced {event}")
    require(hook.ids == [id_, id_], f"sent were {hook.ids}")
    first, second = hook.received
    require(first.body == second.body, "another body was sent")
    require(is_signed(hook.secret, second), "the second one is not signed")


@case("INT-75", capability="deliveries")
async def nothing_is_sent_again_to_a_disabled_endpoint(bench: Bench) -> None:
    """What waits for an endpoint that is disabled MUST be ``aborted``, and sending again be ``failed_precondition``."""
    hook = await Hook.made(bench)
    hook.instead(Reply.of(500))
    id_ = (await hook.trigger())["id"]
    await hook.update(enabled=False)
    delivery = (await hook.delivery(id_))["delivery"]
    require((delivery["status"], "next_attempt_at" in delivery) == ("aborted", False), f"it is {delivery}")
    await bench.refused("failed_precondition", "resend_delivery", {"id": id_, "endpoint": hook.id})
    require(len(hook.received) == 1, "it was sent all the same")


@case("INT-76", capability="deliveries")
async def an_unknown_delivery_is_not_found(bench: Bench) -> None:
    """A delivery that there is not, not to this endpoint or not of this tenant, MUST be ``not_found``."""
    hook, other = await Hook.made(bench), await Hook.made(bench)
    id_ = (await hook.trigger())["id"]
    for action in ("get_delivery", "resend_delivery"):
        await bench.refused("not_found", action, {"id": bench.unique("msg"), "endpoint": hook.id})
        await bench.refused("not_found", action, {"id": id_, "endpoint": other.id})
        await bench.refused("not_found", action, {"id": id_, "endpoint": hook.id}, tenant=BETA)
    listed = (await bench.call("list_deliveries", {"limit": 1000}, tenant=BETA))["deliveries"]
    require(id_ not in [one["id"] for one in listed], "another tenant lists it")
    require(len(hook.received) == 1, "it was sent again all the same")


@case("INT-77", capability="deliveries")
async def a_slow_endpoint_does_not_hold_up_the_call(bench: Bench) -> None:
    """When an endpoint does not answer in the time of the call the trigger MUST be ``accepted`` and attempted again."""
    hook = await Hook.made(bench)
    hook.instead(Reply.of(204).late(5.0))
    answer = await bench.call("trigger", {"name": hook.name}, seconds=1.5)
    require(answer["status"] == "accepted", f"the trigger is {answer['status']}")
    shown = await hook.delivery(answer["id"])
    require([one.get("code") for one in shown["attempts"]] == ["timeout"], f"the attempts are {shown['attempts']}")
    require(shown["delivery"]["status"] == "failing", f"it is {shown['delivery']}")


@case("INT-80", capability="delivery_replay")
async def what_failed_is_replayed(bench: Bench) -> None:
    """``replay_deliveries`` of ``failed`` MUST send, by itself and with their ids, those that were not delivered."""
    hook = await Hook.made(bench)
    await hook.trigger()
    hook.instead(Reply.of(500), Reply.of(500))
    failed = [(await hook.trigger())["id"] for _ in range(2)]
    params = {"endpoint": hook.id, "created_from": EVER, "select": "failed"}
    await bench.equal("replay_deliveries", params, {"scheduled": 2})
    await hook.sent(5)
    require(sorted(hook.ids[3:]) == sorted(failed), f"sent again were {hook.ids[3:]}, failed had {failed}")

    async def is_delivered() -> bool:
        return all(one["status"] == "delivered" for one in await hook.deliveries())

    await bench.eventually(is_delivered, "they are listed as delivered")


@case("INT-81", capability="delivery_replay")
async def what_was_missed_is_replayed(bench: Bench) -> None:
    """``missing`` MUST send what the endpoint wants and was never sent; ``all`` MUST send everything it wants."""
    hook = await Hook.made(bench)
    missed = (await hook.trigger())["id"]
    late = await Hook.made(bench, event_types=[hook.name])
    own = (await bench.call("trigger", {"name": hook.name}))["id"]
    params = {"endpoint": late.id, "created_from": EVER}
    await bench.equal("replay_deliveries", {**params, "select": "missing"}, {"scheduled": 1})
    await late.sent(2)
    require(late.ids == [own, missed], f"sent were {late.ids}")
    await bench.equal("replay_deliveries", {**params, "select": "all"}, {"scheduled": 2})
    await late.sent(4)
    require(sorted(late.ids[2:]) == sorted([own, missed]), f"sent were {late.ids}")


@case("INT-82", capability="delivery_replay")
async def only_the_period_is_replayed(bench: Bench) -> None:
    """``replay_deliveries`` MUST be confined to its period, and ``not_found`` for an endpoint that there is not."""
    hook = await Hook.made(bench)
    await hook.trigger()
    params = {"endpoint": hook.id, "created_from": EVER, "created_until": EVER, "select": "all"}
    await bench.equal("replay_deliveries", params, {"scheduled": 0})
    [delivery] = await hook.deliveries()
    at = delivery["created_at"]
    bounds = {**params, "created_from": at, "created_until": at}
    await bench.equal("replay_deliveries", bounds, {"scheduled": 0})
    await bench.refused("not_found", "replay_deliveries", {**params, "endpoint": bench.unique("ep")})
    await bench.refused("not_found", "replay_deliveries", params, tenant=BETA)


@case("INT-83", capability="delivery_replay")
async def nothing_is_replayed_to_a_disabled_endpoint(bench: Bench) -> None:
    """``replay_deliveries`` to a disabled endpoint MUST be refused with ``failed_precondition``."""
    hook = await Hook.made(bench)
    await hook.trigger()
    await hook.update(enabled=False)
    params = {"endpoint": hook.id, "created_from": EVER, "select": "all"}
    await bench.refused("failed_precondition", "replay_deliveries", params)
    await hook.update(enabled=True)
    await bench.equal("replay_deliveries", params, {"scheduled": 1})
    await hook.sent(2)
