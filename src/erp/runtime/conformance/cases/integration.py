"""What every integration keeps: describe, trigger, test."""

from __future__ import annotations

from typing import Any

from erp.errors import ProviderError
from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.peers import Reply

NAMES = ["conformance.one", "conformance.two", "conformance.three"]
PAYLOAD = {
    "id": "ord_1",
    "total": "19.90",
    "note": "",
    "gone": None,
    "name": "Grüße, 世界 \U0001f600 \u0000",
    "lines": [{"quantity": 2}, {}],
    "large": "x" * 100_000,
}
"""What a careless peer or provider would change: decimals as text, null, empty, characters beyond ASCII, size."""


@case("INT-01")
async def descriptions_are_paged_to_the_end(bench: Bench) -> None:
    """``describe`` page by page MUST list every entry once, in the order of one large page."""
    await _furnished(bench)
    whole = [_identity(one) for one in (await bench.call("describe", {"limit": 1000}))["items"]]
    require(len(whole) > 1, f"there is too little to describe: {whole}")
    require(len(set(whole)) == len(whole), f"entries are listed twice: {whole}")
    found, cursor = [], None
    for _ in range(len(whole) + 1):
        page = await bench.call("describe", {"limit": 1, **({"cursor": cursor} if cursor else {})})
        found += [_identity(one) for one in page["items"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    require(found == whole, f"page by page {found}, at once {whole}")


@case("INT-02")
async def descriptions_are_filtered(bench: Bench) -> None:
    """``describe`` MUST list only what ``kind``, ``names`` and ``text`` ask for, and nothing when nothing fits."""
    await _furnished(bench)
    whole = (await bench.call("describe"))["items"]
    for kind in ("trigger", "object", "event"):
        listed = (await bench.call("describe", {"kind": kind}))["items"]
        require(listed == [one for one in whole if one["kind"] == kind], f"of kind {kind}: {listed}")
    name = whole[-1]["name"]
    for params in ({"names": [name]}, {"text": name.upper()}):
        listed = (await bench.call("describe", params))["items"]
        require(whole[-1] in listed, f"{params}: {listed}")
        require(all(name.lower() in one["name"].lower() for one in listed), f"{params}: {listed}")
    require((await bench.call("describe", {"text": bench.unique("no-such")}))["items"] == [], "everything fits")


@case("INT-03")
async def a_cursor_of_nobody_is_refused(bench: Bench) -> None:
    """A cursor that the provider did not give MUST be refused with ``invalid_argument``."""
    await bench.refused("invalid_argument", "describe", {"cursor": "no cursor of anybody"})


@case("INT-04")
async def only_what_is_described_is_started(bench: Bench) -> None:
    """``trigger`` with a name that ``describe`` does not list MUST be ``not_found``, unless it answers ``any_trigger``."""
    described = await bench.call("describe")
    name = bench.unique("nobody.described")
    if described.get("any_trigger"):
        await bench.call("trigger", {"name": name})
        return
    await bench.refused("not_found", "trigger", {"name": name})
    require(not bench.peer.received, "the peer was sent something")


@case("INT-05", needs="peer")
async def the_peer_gets_the_payload_unchanged(bench: Bench) -> None:
    """What is triggered MUST reach the peer as it is: null, empty, decimals as text, any character, 100 kB."""
    name = await _name(bench)
    payloads: list[Any] = [PAYLOAD, [], "", "0.10", None]
    for payload in payloads:
        await bench.call("trigger", {"name": name, "payload": payload})
        body = bench.peer.received[-1].document
        arrived = body["data"] if bench.declares("outgoing_webhooks") else body
        require(arrived == payload, f"{str(payload)[:80]} arrived as {str(arrived)[:200]}")


@case("INT-06")
async def a_connection_that_works_passes_its_test(bench: Bench) -> None:
    """``test`` of a connection that works MUST answer ``ok`` and name at least one check that passed, and none failed."""
    answer = await bench.call("test")
    statuses = {one["name"]: one["status"] for one in answer["checks"]}
    require(answer["ok"] is True, f"not ok: {answer['checks']}")
    require("passed" in statuses.values(), f"nothing was checked: {statuses}")
    require("failed" not in statuses.values(), f"ok, and failed: {statuses}")


@case("INT-07", needs="server")
async def a_test_tells_that_the_peer_cannot_be_reached(bench: Bench) -> None:
    """When the peer cannot be reached ``test`` MUST answer so: not ``ok``, a check that failed as ``unavailable``."""
    await bench.connected(config=bench.settings("unreachable"))
    await _failed_test(bench, "unavailable")


@case("INT-08", needs="credentials")
async def a_test_tells_that_the_credentials_are_refused(bench: Bench) -> None:
    """When the peer refuses the credentials ``test`` MUST answer so: a check that failed as ``unauthenticated``."""
    await bench.connected(config=bench.settings("wrong_credentials"))
    await _failed_test(bench, "unauthenticated")


async def _failed_test(bench: Bench, code: str) -> None:
    answer = await bench.call("test")
    failed = [one.get("code") for one in answer["checks"] if one["status"] == "failed"]
    require(answer["ok"] is False, f"ok, with the checks {answer['checks']}")
    require(code in failed, f"failed as {failed}, not as {code}")


@case("INT-09", without="outgoing_webhooks", needs="peer")
async def a_trigger_whose_answer_is_lost_is_unknown(bench: Bench) -> None:
    """A trigger that the peer may have acted upon although no answer confirms it MUST be ``outcome_unknown``.

    One that it has certainly refused MUST NOT be.
    """
    name = await _name(bench)
    lost = {"500": Reply.of(500), "504": Reply.of(504), "hung up": Reply(hangs_up=True)}
    refused = {"422": Reply.of(422), "401": Reply.of(401), "429": Reply.of(429), "404": Reply.of(404)}
    for what, reply in {**lost, **refused}.items():
        bench.peer.instead("/", reply)
        code = await _code(bench, name)
        require((code == "outcome_unknown") is (what in lost), f"when the peer answers {what}: {code}")
    await bench.call("trigger", {"name": name})


async def _code(bench: Bench, name: str) -> str:
    try:
        await bench.call("trigger", {"name": name})
    except ProviderError as error:
        return str(error.code.value)
    return "an answer"


async def _furnished(bench: Bench) -> None:
    if bench.declares("endpoints"):
        await bench.call("create_endpoint", {"url": f"{bench.peer.hooks}/furnished", "event_types": NAMES})


def _identity(one: Any) -> tuple[str, str]:
    return one["kind"], one["name"]


async def _name(bench: Bench) -> str:
    described = await bench.call("describe", {"kind": "trigger"})
    names = [one["name"] for one in described["items"]]
    return names[0] if names else bench.unique("conformance.anything")
