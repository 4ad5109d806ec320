"""Incoming webhooks: verified, received once, announced, published again."""

from __future__ import annotations

import base64
import time
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.hooks import message, require_events
from erp.runtime.conformance.host import BETA

NO_CONTENT, UNAUTHORIZED, NOT_FOUND = 204, 401, 404
OLD_SECONDS = 3600
BODIES: list[Any] = [{"type": "t", "text": "Grüße 世界", "none": None}, [], "text", 5, {"large": "x" * 100_000}]


class Receiver:
    """A receiver and a peer that sends to it."""

    def __init__(self, bench: Bench, created: Any) -> None:
        self._bench = bench
        self.shown: dict[str, Any] = created["receiver"]
        self.id: str = self.shown["id"]
        self.path: str = self.shown["path"]
        self.secret: str = created["secret"]

    @classmethod
    async def made(cls, bench: Bench, **params: Any) -> Receiver:
        """Open a receiver."""
        wanted = {"name": bench.unique("receiver"), **params}
        return cls(bench, await bench.call("create_receiver", wanted))

    async def send(self, document: Any, *, id_: str | None = None, secret: str | None = None) -> int:
        """Send a message to the path, as the peer does; return the status."""
        headers, body = message(secret or self.secret, document, id_=id_ or self._bench.unique("evt"))
        return await self._bench.host.send(self.path, headers, body)

    async def receive(self, document: Any, *, id_: str | None = None, **signed: Any) -> Any:
        """The same through the action itself, which shows the messages and the events."""
        secret = signed.pop("secret", self.secret)
        headers, body = message(secret, document, id_=id_ or self._bench.unique("evt"), **signed)
        return await self._bench.call("receive", self.request(headers, body))

    def request(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        """The parameters of ``receive``."""
        return {
            "receiver": self._bench.host.claims(self.path)["receiver"],
            "method": "POST",
            "query": "",
            "headers": headers,
            "body": base64.b64encode(body).decode(),
            "received_at": "2026-11-23T10:00:00Z",
        }

    async def update(self, **params: Any) -> None:
        """Change it; keep the path it has then."""
        self.shown = (await self._bench.call("update_receiver", {"id": self.id, **params}))["receiver"]
        self.path = self.shown["path"]

    async def received(self, **params: Any) -> list[Any]:
        """What it received, newest first."""
        listed = await self._bench.call("list_received", {"receiver": self.id, **params})
        return list(listed["received"])


@case("INT-85", capability="incoming_webhooks")
async def a_message_is_verified_and_announced(bench: Bench) -> None:
    """A message that is signed with the receiver's secret MUST be confirmed and announced once, by ``received``.

    Its id is the peer's, its payload what was sent: any JSON.
    """
    receiver = await Receiver.made(bench)
    require(await receiver.send({"type": "order.paid"}) == NO_CONTENT, "the path does not confirm it")
    for body in BODIES:
        id_ = bench.unique("evt")
        answer = await receiver.receive(body, id_=id_)
        [shown] = answer["messages"]
        require((shown["id"], shown["payload"]) == (id_, body), f"{str(body)[:80]} became {str(shown)[:200]}")
        [event] = require_events(bench, "received")
        require(event == {"receiver": receiver.id, "message": shown}, f"announced {str(event)[:200]}")


@case("INT-86", capability="incoming_webhooks")
async def a_repetition_is_received_once(bench: Bench) -> None:
    """A message whose id was received before MUST be confirmed and not be received again, whatever its content."""
    receiver, id_ = await Receiver.made(bench), bench.unique("evt")
    require(len((await receiver.receive({"n": 1}, id_=id_))["messages"]) == 1, "the first one was not received")
    for _ in range(2):
        answer = await receiver.receive({"n": 2}, id_=id_)
        require(answer["messages"] == [], f"received again: {answer['messages']}")
        require(200 <= answer["reply_status"] < 300, f"answered {answer['reply_status']}")  # noqa: PLR2004
        announced = [data["message"]["payload"] for _, data in bench.emitted()]
        require({"n": 2} not in announced, "another content was announced under the id")
    require(await receiver.send({"n": 3}, id_=id_) == NO_CONTENT, "the path does not confirm a repetition")


@case("INT-87", capability="incoming_webhooks")
async def what_proves_nothing_is_refused(bench: Bench) -> None:
    """A message that is not signed with the secret MUST be ``unauthenticated`` and announce nothing.

    So is one whose body, id or time was changed after signing, or without a signature.
    """
    receiver, other = await Receiver.made(bench), await Receiver.made(bench)
    headers, body = message(receiver.secret, {"n": 1}, id_=bench.unique("evt"))
    foreign, _ = message(other.secret, {"n": 1}, id_=bench.unique("evt"))
    later = str(int(headers["webhook-timestamp"]) + 1)
    forged: dict[str, tuple[dict[str, str], bytes]] = {
        "another's secret": (foreign, body),
        "another body": (headers, b'{"n": 2}'),
        "another id": ({**headers, "webhook-id": "evt-other"}, body),
        "another time": ({**headers, "webhook-timestamp": later}, body),
        "no signature": ({name: value for name, value in headers.items() if name != "webhook-signature"}, body),
        "no headers": ({}, body),
    }
    for what, request in forged.items():
        try:
            await bench.refused("unauthenticated", "receive", receiver.request(*request))
        except AssertionError as error:
            require(False, f"with {what}: {error}")  # noqa: FBT003  (always fails)
        require_events(bench)
        require(await bench.host.send(receiver.path, *request) == UNAUTHORIZED, f"the path takes {what}")
    require(len((await receiver.receive({"n": 1}))["messages"]) == 1, "after that nothing is received")


@case("INT-88", capability="incoming_webhooks")
async def what_was_signed_long_ago_is_refused(bench: Bench) -> None:
    """A message that was signed an hour ago, or will be in an hour, MUST be ``unauthenticated``."""
    receiver = await Receiver.made(bench)
    for at in (time.time() - OLD_SECONDS, time.time() + OLD_SECONDS):
        headers, body = message(receiver.secret, {"n": 1}, id_=bench.unique("evt"), at=at)
        await bench.refused("unauthenticated", "receive", receiver.request(headers, body))


@case("INT-89", capability="incoming_webhooks")
async def receivers_have_names_of_their_own(bench: Bench) -> None:
    """A second receiver of a name MUST be ``already_exists``; all are listed once, page by page, never with a secret."""
    receivers = [await Receiver.made(bench) for _ in range(3)]
    await bench.refused("already_exists", "create_receiver", {"name": receivers[0].shown["name"]})
    found, cursor = [], None
    for _ in range(10):
        page = await bench.call("list_receivers", {"limit": 1, **({"cursor": cursor} if cursor else {})})
        found += page["receivers"]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    require(found == [one.shown for one in receivers], f"listed are {found}")
    require(not any(one.secret in str(found) for one in receivers), "a secret is listed")


@case("INT-90", capability="incoming_webhooks")
async def a_disabled_receiver_answers_to_nobody(bench: Bench) -> None:
    """A disabled receiver MUST answer ``not_found`` (404), and work again when it is enabled."""
    receiver = await Receiver.made(bench)
    await receiver.update(enabled=False)
    require(receiver.shown["enabled"] is False, f"it is {receiver.shown}")
    require(await receiver.send({"n": 1}) == NOT_FOUND, "a disabled path answers")
    await receiver.update(enabled=True)
    require(await receiver.send({"n": 1}) == NO_CONTENT, "an enabled path does not answer")


@case("INT-91", capability="incoming_webhooks")
async def a_new_path_ends_the_old_one(bench: Bench) -> None:
    """With ``new_path`` the old path MUST stop working at once, and the new one work."""
    receiver = await Receiver.made(bench)
    old = receiver.path
    await receiver.update(new_path=True)
    require(receiver.path != old, "the path is the same")
    headers, body = message(receiver.secret, {"n": 1}, id_=bench.unique("evt"))
    require(await bench.host.send(old, headers, body) == NOT_FOUND, "the old path still answers")
    require(await bench.host.send(receiver.path, headers, body) == NO_CONTENT, "the new path does not answer")


@case("INT-92", capability="incoming_webhooks")
async def both_secrets_are_accepted_during_a_rotation(bench: Bench) -> None:
    """After a new secret the previous one MUST be accepted until the grace time is over, then the new one alone."""
    receiver, other = await Receiver.made(bench), await Receiver.made(bench)
    old, new, newest = receiver.secret, other.secret, (await Receiver.made(bench)).secret
    await receiver.update(secret=new, grace_seconds=3600)
    for secret in (old, new):
        require(await receiver.send({"n": 1}, secret=secret) == NO_CONTENT, "a secret in its time is refused")
    await receiver.update(secret=newest, grace_seconds=0)
    require(await receiver.send({"n": 1}, secret=newest) == NO_CONTENT, "the newest secret is refused")
    for secret in (old, new):
        require(await receiver.send({"n": 1}, secret=secret) == UNAUTHORIZED, "a secret is taken after its time")


@case("INT-93", capability="incoming_webhooks")
async def a_deleted_receiver_is_forgotten(bench: Bench) -> None:
    """``delete_receiver`` MUST answer whether there was one; its path is ``not_found``, and its name free."""
    receiver = await Receiver.made(bench)
    for expected in (True, False):
        await bench.equal("delete_receiver", {"id": receiver.id}, {"deleted": expected})
    require(await receiver.send({"n": 1}) == NOT_FOUND, "the path still answers")
    await bench.refused("not_found", "update_receiver", {"id": receiver.id, "enabled": True})
    await Receiver.made(bench, name=receiver.shown["name"])


@case("INT-94", capability="incoming_webhooks")
async def tenants_share_no_receivers(bench: Bench) -> None:
    """No tenant MUST see, change or close the receivers of another."""
    receiver = await Receiver.made(bench)
    listed = (await bench.call("list_receivers", tenant=BETA))["receivers"]
    require(listed == [], f"another tenant lists {listed}")
    await bench.refused("not_found", "update_receiver", {"id": receiver.id, "enabled": False}, tenant=BETA)
    await bench.call("delete_receiver", {"id": receiver.id}, tenant=BETA)
    headers, body = message(receiver.secret, {"n": 1}, id_=bench.unique("evt"))
    await bench.refused("not_found", "receive", receiver.request(headers, body), tenant=BETA)
    require(await receiver.send({"n": 1}) == NO_CONTENT, "another tenant closed it")


@case("INT-95", capability="received_replay")
async def what_came_is_listed_newest_first(bench: Bench) -> None:
    """``list_received`` MUST list every request newest first, repetitions and refusals too, and why it was refused."""
    receiver, other = await Receiver.made(bench), await Receiver.made(bench)
    first, second = bench.unique("evt"), bench.unique("evt")
    await receiver.send({"n": 1}, id_=first)
    await receiver.send({"n": 2}, id_=second)
    await receiver.send({"n": 2}, id_=second)
    await receiver.send({"n": 3}, secret=other.secret)
    found = await receiver.received()
    statuses = [one["status"] for one in found]
    require(statuses == ["refused", "repeated", "published", "published"], f"listed are {statuses}")
    require([one["id"] for one in found[1:]] == [second, second, first], f"listed are {found}")
    require(found[0].get("reason"), "it does not say why it was refused")
    require([one["id"] for one in await receiver.received(status="published")] == [second, first], "the filter fails")
    paged = await bench.call("list_received", {"receiver": receiver.id, "limit": 3})
    rest = await bench.call("list_received", {"receiver": receiver.id, "cursor": paged["next_cursor"]})
    require(paged["received"] + rest["received"] == found, "page by page others are listed")
    require(await other.received() == [], "what another received is listed")


@case("INT-96", capability="received_replay")
async def what_came_is_announced_again(bench: Bench) -> None:
    """``replay_received`` MUST announce the messages of a period again, in their order, each with its own id.

    Repetitions and refused requests are no messages.
    """
    receiver, other = await Receiver.made(bench), await Receiver.made(bench)
    ids = [bench.unique("evt") for _ in range(3)]
    for number, id_ in enumerate(ids):
        await receiver.receive({"n": number}, id_=id_)
    await receiver.receive({"n": 0}, id_=ids[0])
    await receiver.send({"n": 9}, secret=other.secret)
    await other.receive({"n": 8})
    params = {"receiver": receiver.id, "received_from": "2020-01-01T00:00:00Z"}
    await bench.equal("replay_received", params, {"published": 3})
    announced = [
        (data["message"]["id"], data["message"]["payload"]) for data in require_events(bench, *["received"] * 3)
    ]
    require(announced == [(id_, {"n": number}) for number, id_ in enumerate(ids)], f"announced {announced}")
    await bench.equal("replay_received", {**params, "received_until": "2020-01-02T00:00:00Z"}, {"published": 0})


@case("INT-97", capability="received_replay")
async def only_ones_own_is_announced_again(bench: Bench) -> None:
    """``replay_received`` of a receiver that there is not, or of another tenant, MUST be ``not_found``."""
    receiver = await Receiver.made(bench)
    await receiver.receive({"n": 1})
    params = {"receiver": receiver.id, "received_from": "2020-01-01T00:00:00Z"}
    await bench.refused("not_found", "replay_received", {**params, "receiver": bench.unique("rcv")})
    await bench.refused("not_found", "replay_received", params, tenant=BETA)
    listed = (await bench.call("list_received", tenant=BETA))["received"]
    require(listed == [], f"another tenant lists {listed}")
    await bench.equal("replay_received", params, {"published": 1})
