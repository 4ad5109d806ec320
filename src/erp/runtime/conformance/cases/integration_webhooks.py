"""Outgoing webhooks: endpoints, what is sent to them, and what never is."""

from __future__ import annotations

import itertools
import json
import time

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.hooks import Hook, is_signed, require_events
from erp.runtime.conformance.host import BETA
from erp.runtime.conformance.peers import HOOKS, Reply

PRIVATE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
]
NO_ADDRESS = ["ftp://hooks.example/", "file:///etc/passwd", "http:///nowhere", "http://user:word@hooks.example/"]
AGE_SECONDS = 60
PER_SECOND = 10.0
SLOW_SECONDS = 0.6


@case("INT-50", capability="endpoints")
async def messages_are_signed(bench: Bench) -> None:
    """A message MUST carry id, time and a signature of id, time and body by the secret of its endpoint alone.

    Headers, signed text and HMAC-SHA256 are those of Standard Webhooks.
    """
    hook, other = await Hook.made(bench), await Hook.made(bench)
    answer = await hook.trigger(payload={"total": "19.90"}, occurred_at="2026-11-23T10:00:00Z")
    [request] = hook.received
    require(answer["status"] == "completed", f"it is {answer['status']}")
    require(request.headers["webhook-id"] == answer["id"], "the id of the message is not that of the answer")
    require(abs(int(request.headers["webhook-timestamp"]) - time.time()) < AGE_SECONDS, "the time is not now")
    require(is_signed(hook.secret, request), f"the signature is {request.headers.get('webhook-signature')}")
    require(not is_signed(other.secret, request), "the secret of another endpoint verifies it")
    require(request.headers["content-type"].startswith("application/json"), "the body is not said to be JSON")
    expected = {"type": hook.name, "timestamp": "2026-11-23T10:00:00Z", "data": {"total": "19.90"}}
    require(json.loads(request.body) == expected, f"the message is {request.body.decode()}")


@case("INT-51", capability="outgoing_webhooks", needs="peer")
async def a_trigger_is_one_message_for_its_key(bench: Bench) -> None:
    """A trigger that is repeated with its ``Idempotency-Key`` MUST be the same message id, and be delivered once.

    Without a key, and with another one, every trigger is a message of its own. The provider itself has to keep this:
    the layer may have died between its answer and remembering it.
    """
    provider, name = bench.bare(), bench.unique("conformance.keyed")
    await provider.open()
    try:
        keys = ["key-1", "key-1", "key-1", "key-2", None, None]
        answers = [await bench.bare_call(provider, "trigger", {"name": name}, idempotency_key=key) for key in keys]
    finally:
        await provider.close()
    ids = [one.id for one in answers]
    require(len({*ids[:3]}) == 1, f"repeating made the messages {ids[:3]}")
    require(len({*ids}) == 4, f"different triggers are one message: {ids}")  # noqa: PLR2004
    sent = [one.headers["webhook-id"] for one in bench.peer.received]
    require(sent == ids[2:], f"sent were {sent} of {ids}")


@case("INT-52", capability="endpoints")
async def only_the_names_wanted_are_sent(bench: Bench) -> None:
    """An endpoint MUST get the names of its ``event_types`` and no others; an empty list means all."""
    hook, everything = await Hook.made(bench), await Hook.made(bench, event_types=[])
    await hook.trigger()
    await bench.call("trigger", {"name": f"{hook.name}.more"})
    require(len(hook.received) == 1, f"the one name was sent {len(hook.received)} times")
    require(len(everything.received) == 2, f"all names were sent {len(everything.received)} times")  # noqa: PLR2004
    await hook.update(event_types=[f"{hook.name}.more"])
    await bench.call("trigger", {"name": f"{hook.name}.more"})
    await hook.trigger()
    sent = [one.document["type"] for one in hook.received]
    require(sent == [hook.name, f"{hook.name}.more"], f"sent were {sent}")


@case("INT-53", capability="endpoints")
async def endpoints_are_paged_to_the_end(bench: Bench) -> None:
    """``list_endpoints`` page by page MUST list every endpoint once, as it was created, and never its secret."""
    hooks = [await Hook.made(bench, title=f"number {number}", max_per_second=5) for number in range(3)]
    found, cursor = [], None
    for _ in range(10):
        page = await bench.call("list_endpoints", {"limit": 1, **({"cursor": cursor} if cursor else {})})
        found += page["endpoints"]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    mine = [one for one in found if one["id"] in {hook.id for hook in hooks}]
    require(mine == [hook.endpoint for hook in hooks], f"listed are {mine}")
    listed = json.dumps(found)
    require(not any(hook.secret in listed for hook in hooks), "a secret is listed")


@case("INT-54", capability="endpoints")
async def a_disabled_endpoint_is_sent_nothing(bench: Bench) -> None:
    """A disabled endpoint MUST be sent nothing; enabling it MUST NOT send what it missed, only what follows."""
    hook = await Hook.made(bench)
    disabled = await hook.update(enabled=False)
    require((disabled["enabled"], disabled.get("disabled_reason")) == (False, "requested"), f"it is {disabled}")
    [event] = require_events(bench, "endpoint_disabled")
    require((event["endpoint"]["id"], event["reason"]) == (hook.id, "requested"), f"announced {event}")
    await hook.trigger()
    enabled = await hook.update(enabled=True)
    require((enabled["enabled"], enabled.get("disabled_reason")) == (True, None), f"it is {enabled}")
    answer = await hook.trigger()
    require(hook.ids == [answer["id"]], f"sent were {hook.ids}")


@case("INT-55", capability="endpoints")
async def a_deleted_endpoint_is_forgotten(bench: Bench) -> None:
    """``delete_endpoint`` MUST answer whether there was one; nothing is sent to it, and no action finds it any more."""
    hook = await Hook.made(bench)
    for expected in (True, False):
        await bench.equal("delete_endpoint", {"id": hook.id}, {"deleted": expected})
    await hook.trigger()
    require(hook.received == [], "it was sent something")
    require(await hook.shown() is None, "it is still listed")
    for action in ("update_endpoint", "rotate_endpoint_secret"):
        await bench.refused("not_found", action, {"id": hook.id})


@case("INT-56", capability="endpoints")
async def both_secrets_sign_during_a_rotation(bench: Bench) -> None:
    """After ``rotate_endpoint_secret`` both secrets MUST sign until the grace time is over, then the new one alone."""
    hook = await Hook.made(bench)
    rotated = await bench.call("rotate_endpoint_secret", {"id": hook.id, "grace_seconds": 3600})
    require("previous_secret_until" in rotated["endpoint"], "it does not say until when both sign")
    await hook.trigger()
    require(is_signed(rotated["secret"], hook.received[-1]), "the new secret does not sign")
    require(is_signed(hook.secret, hook.received[-1]), "the previous secret does not sign any more")
    newest = await bench.call("rotate_endpoint_secret", {"id": hook.id, "grace_seconds": 0})
    await hook.trigger()
    require(is_signed(newest["secret"], hook.received[-1]), "the newest secret does not sign")
    require(not is_signed(rotated["secret"], hook.received[-1]), "a secret signs that has no time left")


@case("INT-57", capability="endpoints")
async def private_addresses_are_refused(bench: Bench) -> None:
    """An address that is not public MUST be refused, however it is spelled, when an endpoint is created and changed."""
    hook = await Hook.made(bench)
    for url in PRIVATE:
        await bench.refused("failed_precondition", "create_endpoint", {"url": url})
        await bench.refused("failed_precondition", "update_endpoint", {"id": hook.id, "url": url})
    require((await hook.shown())["url"] == hook.endpoint["url"], "the address was changed all the same")
    listed = (await bench.call("list_endpoints"))["endpoints"]
    require(not [one["url"] for one in listed if one["url"] in PRIVATE], "an endpoint was made all the same")


@case("INT-58", capability="endpoints")
async def what_is_no_http_address_is_refused(bench: Bench) -> None:
    """What is no address of HTTP, or has a user name in it, MUST be refused, and no endpoint be made."""
    before = len((await bench.call("list_endpoints"))["endpoints"])
    for url in NO_ADDRESS:
        error = await bench.refused_with({"failed_precondition", "invalid_argument"}, "create_endpoint", {"url": url})
        require(not error.retryable, f"{url} is refused as if it could be tried again")
    after = len((await bench.call("list_endpoints"))["endpoints"])
    require(after == before, f"{after - before} endpoints were made")


@case("INT-59", capability="endpoints")
async def redirects_are_not_followed(bench: Bench) -> None:
    """A redirect MUST NOT be followed: it is an answer that does not confirm."""
    hook, elsewhere = await Hook.made(bench), f"{HOOKS}/{bench.unique('elsewhere')}"
    for status in (301, 302, 303, 307, 308):
        hook.instead(Reply.of(status, location=f"{bench.peer.address}{elsewhere}"))
        answer = await hook.trigger()
        require(answer["status"] != "completed", f"{status} is taken for a confirmation")
    require(bench.peer.sent_to(elsewhere) == [], "the redirect was followed")


@case("INT-60", capability="endpoints", timed=True)
async def the_rate_of_an_endpoint_is_kept(bench: Bench) -> None:
    """An endpoint MUST NOT be sent more than ``max_per_second``; what is more MUST wait and be sent by itself."""
    hook, free = await Hook.made(bench, max_per_second=PER_SECOND), await Hook.made(bench)
    answers = [await hook.trigger() for _ in range(4)]
    statuses = [one["status"] for one in answers]
    require(statuses[0] == "completed", f"the first one is {statuses[0]}")
    require("accepted" in statuses[1:], f"none has to wait: {statuses}")
    require((await free.trigger())["status"] == "completed", "another endpoint has to wait too")
    await hook.sent(4)
    require(sorted(set(hook.ids)) == sorted(one["id"] for one in answers), f"sent were {hook.ids}")
    times = sorted(one.at for one in hook.received)
    gaps = [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
    require(times[-1] - times[0] >= 3 / PER_SECOND * 0.8, f"sent with the pauses {gaps}")


@case("INT-61", capability="endpoints")
async def an_endpoint_that_is_gone_is_disabled(bench: Bench) -> None:
    """An endpoint that answers 410 MUST be disabled as ``gone``, be announced, and be sent nothing more."""
    hook = await Hook.made(bench)
    hook.instead(Reply.of(410))
    answer = await hook.trigger()
    require(answer["status"] != "accepted", "the delivery is said to be attempted again")
    [event] = require_events(bench, "endpoint_disabled")
    require((event["endpoint"]["id"], event["reason"]) == (hook.id, "gone"), f"announced {event}")
    await hook.trigger()
    require(len(hook.received) == 1, f"it was sent {len(hook.received)} messages")
    shown = await hook.shown()
    require((shown["enabled"], shown.get("disabled_reason")) == (False, "gone"), f"it is {shown}")


@case("INT-62", capability="endpoints", timed=True)
async def one_endpoint_does_not_disturb_another(bench: Bench) -> None:
    """An endpoint that fails or is slow MUST NOT keep a message from another."""
    failing, slow, slower, well = [await Hook.made(bench, event_types=[]) for _ in range(4)]
    failing.instead(Reply.of(500))
    # Two slow ones, so that whoever sends one after the other is found whichever endpoint comes first.
    for late in (slow, slower):
        late.instead(Reply.of(204).late(SLOW_SECONDS))
    answer = await well.trigger()
    arrivals = [hook.received[0].at for hook in (slow, slower, well)]
    waited = max(arrivals) - min(arrivals)
    require(waited < 0.75 * SLOW_SECONDS, "a message came only after a slow endpoint had answered")
    require(answer["status"] == "accepted", f"with one that failed the trigger is {answer['status']}")
    require(well.ids == [answer["id"]], f"sent were {well.ids}")


@case("INT-63", capability="endpoints")
async def tenants_share_no_endpoints(bench: Bench) -> None:
    """No tenant MUST see, change or trigger the endpoints of another."""
    hook = await Hook.made(bench)
    listed = (await bench.call("list_endpoints", tenant=BETA))["endpoints"]
    require(hook.id not in [one["id"] for one in listed], "another tenant lists it")
    await bench.refused("not_found", "update_endpoint", {"id": hook.id, "enabled": False}, tenant=BETA)
    await bench.refused("not_found", "rotate_endpoint_secret", {"id": hook.id}, tenant=BETA)
    await bench.call("delete_endpoint", {"id": hook.id}, tenant=BETA)
    await bench.call("trigger", {"name": hook.name}, tenant=BETA)
    require(hook.received == [], "another tenant's trigger was sent to it")
    require(await hook.shown() == hook.endpoint, "another tenant changed it")
