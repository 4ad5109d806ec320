"""Sessions that the identity provider ends: asked by samlify, answered so that samlify believes it, and by forgers."""

from __future__ import annotations

import asyncio
import base64
import datetime
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import msgspec
import pytest
from tests.gateway.saml.person import BASE, Person
from tests.support.contract_client import contract_client

from erp.main import running

pytest.importorskip("onelogin.saml2", reason="needs the extra saml")
pytestmark = pytest.mark.anyio

SLO = "https://idp.example.com/slo"


@pytest.fixture
async def member(person: Person) -> Person:
    """A person who is signed in, at a provider that ends sessions."""
    _, admin = await person.layer.control.api_keys.create("acme", role="admin")
    found = await person.layer.control.saml.find("acme", "office")
    assert found is not None
    async with contract_client(person.layer.application(), admin) as client:
        facts = msgspec.to_builtins(found.settings) | {"slo_url": SLO}
        assert (await client.put("/saml-providers/office", json=facts)).status_code == 200
    assert (await person.sign_in()).status_code == 303
    return person


async def metadata(person: Person) -> str:
    return (await person.browser.get(f"{BASE}/metadata")).text


async def asked(person: Person, name_id: str = "ada", session_index: str = "", **more: Any) -> str:
    """Return the path to which the provider sends the browser."""
    url = await asyncio.to_thread(person.provider.logout, await metadata(person), name_id, session_index, **more)
    parts = urlsplit(url)
    assert parts.path == f"{BASE}/logout"
    return f"{parts.path}?{parts.query}"


async def sent(person: Person, path: str) -> httpx2.Response:
    """Come from the provider, with another browser: what counts is whom the provider names."""
    async with contract_client(person.layer.application()) as browser:
        return await browser.get(path)


async def is_signed_in(person: Person) -> bool:
    return (await person.browser.get("/me")).status_code == 200


async def test_a_session_ends_when_the_provider_says_so_and_the_provider_is_told(member: Person) -> None:
    path = await asked(member, session_index="s1", relayState="state of the provider")

    answer = await sent(member, path)

    assert answer.status_code == 303, answer.text
    back = answer.headers["location"]
    assert back.startswith(f"{SLO}?SAMLResponse=")
    found = await asyncio.to_thread(member.provider.answered, back, await metadata(member))
    assert found["relayState"] == "state of the provider"
    assert found["inResponseTo"] in _inflated(path)
    assert not await is_signed_in(member)
    await member.layer.control.journal.close()
    (entry, *_), _ = await member.layer.control.audit.search("acme", target="saml.office")
    assert (entry.action, entry.outcome, entry.actor) == ("sessions.end", "ok", "user:saml.office:ada")


def _inflated(path: str) -> str:
    request = dict(parse_qsl(urlsplit(path).query))["SAMLRequest"]
    return zlib.decompress(base64.b64decode(request), -15).decode()


async def test_only_the_sessions_that_are_named_end(member: Person) -> None:
    second = Person(member.layer, member.provider)
    bob = Person(member.layer, member.provider)
    assert (await second.sign_in(SessionIndex="s2")).status_code == 303
    assert (await bob.sign_in(NameID="bob")).status_code == 303
    people = (member, second, bob)

    assert (await sent(member, await asked(member, session_index="s2"))).status_code == 303
    assert [await is_signed_in(one) for one in people] == [True, False, True]
    assert (await sent(member, await asked(member, name_id="nobody"))).status_code == 303
    assert [await is_signed_in(one) for one in people] == [True, False, True]
    assert (await sent(member, await asked(member))).status_code == 303
    assert [await is_signed_in(one) for one in people] == [False, False, True]
    await second.browser.aclose()
    await bob.browser.aclose()


async def test_a_person_who_is_named_by_an_attribute_is_signed_out_by_the_name_id(member: Person) -> None:
    found = await member.layer.control.saml.find("acme", "office")
    assert found is not None
    settings = msgspec.structs.replace(found.settings, subject_attribute="groups")
    await member.layer.control.saml.put("acme", "office", settings)
    assert (await member.sign_in(NameID="opaque-1")).status_code == 303
    assert (await member.browser.get("/me")).json()["id"] == "user:saml.office:buyers"

    assert (await sent(member, await asked(member, name_id="opaque-1"))).status_code == 303

    assert not await is_signed_in(member)


@pytest.mark.slow
async def test_a_session_is_over_in_other_processes_within_a_second(member: Person) -> None:
    async with running(member.layer.settings) as other:
        other.listens_at("http://layer.test")
        async with contract_client(other.application()) as elsewhere:
            elsewhere.cookies.update(dict(member.browser.cookies))
            assert (await elsewhere.get("/me")).status_code == 200
            assert (await sent(member, await asked(member))).status_code == 303
            await asyncio.sleep(1.0)  # what is promised
            assert (await elsewhere.get("/me")).status_code == 401


def _changed(path: str, **values: str | None) -> str:
    parts = urlsplit(path)
    given: dict[str, str | None] = {**dict(parse_qsl(parts.query)), **values}
    return f"{parts.path}?{urlencode({name: value for name, value in given.items() if value is not None})}"


def _about_bob(path: str) -> str:
    changed = zlib.compress(_inflated(path).replace(">ada<", ">bob<").encode(), wbits=-15)
    return _changed(path, SAMLRequest=base64.b64encode(changed).decode())


def _bomb(path: str) -> str:
    return _changed(path, SAMLRequest=base64.b64encode(zlib.compress(b"<a>" * 1_000_000, wbits=-15)).decode())


FORGED: dict[str, tuple[str, Callable[[str], str]]] = {
    "unsigned": ("It needs SAMLRequest", lambda path: _changed(path, Signature=None)),
    "about-somebody-else": ("Signature validation failed", _about_bob),
    "other-relay-state": ("Signature validation failed", lambda path: _changed(path, RelayState="another")),
    "weak-algorithm": (
        "rsa-sha1 is not allowed",
        lambda path: _changed(path, SigAlg="http://www.w3.org/2000/09/xmldsig#rsa-sha1"),
    ),
    "unknown-algorithm": ("is not allowed", lambda path: _changed(path, SigAlg="urn:unknown")),
    "twice": ("each once", lambda path: f"{path}&{urlsplit(path).query.split('&')[0]}"),
    "bomb": ("longer than", _bomb),
    "nothing": ("ValueError", lambda path: path.split("?")[0]),
    "no-xml": ("Error", lambda path: _changed(path, SAMLRequest="AAAA")),
}


async def _is_refused(person: Person, path: str, reason: str) -> None:
    refused = await sent(person, path)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    await person.layer.control.journal.close()
    (entry, *_), _ = await person.layer.control.audit.search("acme", target="saml.office")
    assert (entry.action, entry.outcome, entry.actor) == ("sessions.end", "permission_denied", "nobody")
    assert reason in entry.reason
    assert await is_signed_in(person)


@pytest.mark.parametrize(("reason", "forge"), FORGED.values(), ids=FORGED.keys())
async def test_a_forged_request_ends_nothing(member: Person, reason: str, forge: Callable[[str], str]) -> None:
    genuine = await asked(member, relayState="state")
    await _is_refused(member, forge(genuine), reason)
    assert (await sent(member, genuine)).status_code == 303, "the genuine one is still good"
    assert not await is_signed_in(member)


def _ago(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)).isoformat()[:19] + "Z"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        pytest.param({"Destination": "http://layer.test/auth/saml/globex/office/logout"}, "another place", id="place"),
        pytest.param({"IssueInstant": _ago(3600)}, "too old", id="old"),
        pytest.param({"IssueInstant": _ago(-3600)}, "too old", id="early"),
        pytest.param({"Issuer": "https://other.example.com/idp"}, "invalid_logout_request", id="issuer"),
        pytest.param({"ID": ""}, "It has no id", id="id"),
    ],
)
async def test_a_signed_request_with_something_wrong_in_it_ends_nothing(
    member: Person, facts: dict[str, str], reason: str
) -> None:
    await _is_refused(member, await asked(member, facts=facts), reason)


async def test_an_unsigned_request_of_the_provider_ends_nothing(member: Person) -> None:
    await _is_refused(member, await asked(member, unsigned=True), "It needs SAMLRequest")


async def test_a_request_is_good_once(member: Person) -> None:
    path = await asked(member)
    assert (await sent(member, path)).status_code == 303
    assert (await member.sign_in()).status_code == 303
    await _is_refused(member, path, "used before")


async def test_without_an_address_for_answers_there_is_no_single_logout(member: Person) -> None:
    path = await asked(member)
    found = await member.layer.control.saml.find("acme", "office")
    assert found is not None
    await member.layer.control.saml.put("acme", "office", msgspec.structs.replace(found.settings, slo_url=None))
    refused = await sent(member, path)
    assert (refused.status_code, refused.json()["code"]) == (412, "failed_precondition")
    assert "SingleLogoutService" not in await metadata(member)
