"""Signing in by SAML: with an identity provider made with samlify, and against everything a forger may send it."""

from __future__ import annotations

import asyncio
import datetime
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.saml.person import BASE, START, Person
from tests.support.contract_client import contract_client
from tests.support.saml_peer import IdentityProvider

from erp.main import Layer, running

pytest.importorskip("onelogin.saml2", reason="needs the extra saml")
pytestmark = pytest.mark.anyio

READ = {"params": {"key": "k"}}


@pytest.mark.slow
async def test_a_person_signs_in_and_has_a_session_with_the_role_of_the_group(person: Person) -> None:
    done = await person.sign_in()
    assert (done.status_code, done.headers["location"]) == (303, START)
    me = (await person.browser.get("/me")).json()
    assert (me["id"], me["tenant"], me["roles"], me["kind"]) == ("user:saml.office:ada", "acme", ["developer"], "user")
    changed = await person.browser.post("/providers/cache/memory/get", json=READ)
    assert changed.status_code == 403, "without the token of a page of ours nothing is changed"


async def test_a_request_tells_the_identity_provider_where_to_answer(person: Person) -> None:
    request, metadata = await person.begin()
    assert request.startswith("https://idp.example.com/sso?SAMLRequest=")
    assert 'Location="http://layer.test/auth/saml/acme/office/acs"' in metadata
    assert 'WantAssertionsSigned="true"' in metadata


async def test_a_group_that_is_not_mapped_gives_no_role_and_no_session(person: Person) -> None:
    refused = await person.sign_in(Group="admin")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert await person.is_nobody()


def _unsigned(xml: str) -> str:
    return re.sub(r"<ds:Signature.*?</ds:Signature>", "", xml, flags=re.DOTALL)


def _assertion(xml: str) -> str:
    found = re.search(r"<saml:Assertion.*</saml:Assertion>", xml, re.DOTALL)
    assert found is not None
    return found[0]


def _forged(xml: str) -> str:
    """The assertion about another person, unsigned, with an id of its own."""
    forged = _unsigned(_assertion(xml)).replace(">ada<", ">root<").replace(">buyers<", ">chiefs<")
    return re.sub(r' ID="[^"]*"', ' ID="_forged"', forged, count=1)


def _beside(xml: str) -> str:
    return xml.replace("<saml:Assertion", _forged(xml) + "<saml:Assertion", 1)


def _after(xml: str) -> str:
    return xml.replace("</samlp:Response>", _forged(xml) + "</samlp:Response>")


def _around(xml: str) -> str:
    genuine = _assertion(xml)
    return xml.replace(genuine, _forged(xml).replace("</saml:Assertion>", genuine + "</saml:Assertion>"))


def _extension(xml: str) -> str:
    genuine = _assertion(xml)
    hidden = f"<samlp:Extensions>{genuine}</samlp:Extensions>"
    return xml.replace(genuine, _forged(xml)).replace("<samlp:Status>", f"{hidden}<samlp:Status>", 1)


def _same_id(xml: str) -> str:
    genuine = _assertion(xml)
    id_ = re.search(r' ID="([^"]*)"', genuine)
    assert id_ is not None
    forged = _forged(xml).replace("_forged", id_[1])
    return xml.replace(genuine, forged + genuine)


def _entity(xml: str) -> str:
    return '<!DOCTYPE r [<!ENTITY who "root">]>' + xml.replace(">ada<", ">&who;<")


def _external(xml: str) -> str:
    return '<!DOCTYPE r [<!ENTITY who SYSTEM "file:///etc/hostname">]>' + xml.replace(">ada<", ">&who;<")


ATTACKS: dict[str, Callable[[str], str]] = {
    "unsigned": _unsigned,
    "another-person": lambda xml: xml.replace(">ada<", ">root<"),
    "another-group": lambda xml: xml.replace(">buyers<", ">chiefs<"),
    "comment-in-signed-name": lambda xml: xml.replace(">ada<", ">root<!-- -->ada<"),
    "wrapped-before": _beside,
    "wrapped-after": _after,
    "wrapped-around": _around,
    "wrapped-in-an-extension": _extension,
    "wrapped-with-the-same-id": _same_id,
    "doctype": lambda xml: "<!DOCTYPE r []>" + xml,
    "entity": _entity,
    "external-entity": _external,
    "no-xml": lambda _: "nonsense",
    "empty": lambda _: "",
    "nested-deeply": lambda _: "<a>" * 20_000,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
async def test_a_forged_response_signs_nobody_in(person: Person, attack: Callable[[str], str]) -> None:
    genuine = await person.answered()
    forged = attack(genuine)
    assert forged != genuine
    refused = await person.post(forged)
    assert refused.status_code in {400, 403}, refused.headers.get("location")
    assert await person.is_nobody()
    assert (await person.follow(await person.post(genuine))).status_code == 303, "the genuine one is still good"


async def test_a_comment_that_cuts_a_name_does_not_make_another_person(person: Person) -> None:
    """The canonical form has no comments, so that a comment in a signed name leaves the signature valid."""
    genuine = await person.answered(NameID="root.evil")
    done = await person.follow(await person.post(genuine.replace(">root.evil<", ">root<!-- -->.evil<")))
    if done.status_code == 303:
        assert (await person.browser.get("/me")).json()["id"] == "user:saml.office:root.evil"
    else:
        assert await person.is_nobody()


def _past() -> dict[str, str]:
    ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return {"NotOnOrAfter": ago.isoformat().replace("+00:00", "Z")[:19] + "Z"}


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"Audience": "https://other.example.com/metadata"}, id="audience"),
        pytest.param({"Destination": "https://other.example.com/acs"}, id="destination"),
        pytest.param({"Recipient": "https://other.example.com/acs"}, id="recipient"),
        pytest.param({"Issuer": "https://other.example.com/idp"}, id="issuer"),
        pytest.param({"InResponseTo": "_another_request"}, id="request"),
        pytest.param({"StatusCode": "urn:oasis:names:tc:SAML:2.0:status:Responder"}, id="status"),
        pytest.param(_past(), id="expired"),
        pytest.param({"NameID": ""}, id="nobody"),
        pytest.param({"NameID": "a" * 300}, id="endless-name"),
    ],
)
async def test_a_signed_response_with_something_wrong_in_it_signs_nobody_in(
    person: Person, facts: dict[str, str]
) -> None:
    refused = await person.sign_in(**facts)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert await person.is_nobody()


async def test_a_response_is_good_once_in_all_processes(
    person: Person, layer: Layer, provider: IdentityProvider
) -> None:
    xml = await person.answered()
    assert (await person.follow(await person.post(xml))).status_code == 303
    async with running(layer.settings) as other:
        other.listens_at("http://layer.test")
        thief = Person(other, provider)
        await thief.begin()
        replayed = await thief.post(xml)
        assert (replayed.status_code, replayed.json()["code"]) == (403, "permission_denied")
        assert (await thief.browser.get("/me")).status_code == 401
        await thief.browser.aclose()


async def test_another_browser_cannot_use_the_ticket_of_a_sign_in(
    person: Person, layer: Layer, provider: IdentityProvider
) -> None:
    accepted = await person.post(await person.answered())
    victim = Person(layer, provider)
    await victim.begin()
    for browser in (victim.browser, contract_client(layer.application())):
        refused = await browser.get(accepted.headers["location"])
        assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
        await browser.aclose()
    assert await person.is_nobody()


async def test_a_ticket_makes_one_session(person: Person) -> None:
    accepted = await person.post(await person.answered())
    cookies = dict(person.browser.cookies)
    assert (await person.follow(accepted)).status_code == 303
    async with contract_client(person.layer.application()) as again:
        again.cookies.update(cookies)
        assert (await again.get(accepted.headers["location"])).status_code == 403


async def test_a_session_ends_when_its_provider_is_trusted_no_more(person: Person, layer: Layer) -> None:
    await person.sign_in()
    assert (await person.browser.get("/me")).status_code == 200
    await layer.control.saml.delete("acme", "office")
    assert (await person.browser.get("/me")).status_code == 401


async def test_a_response_of_another_tenants_provider_is_refused(person: Person, layer: Layer, tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other"]
    files = ["-keyout", str(tmp_path / "other.key"), "-out", str(tmp_path / "other.crt")]
    await asyncio.to_thread(subprocess.run, [*make, *files], check=True, capture_output=True)
    xml = await person.answered()
    found = await layer.control.saml.find("acme", "office")
    assert found is not None
    changed = {**{name: getattr(found.settings, name) for name in found.settings.__struct_fields__}}
    changed["certificates"] = [(tmp_path / "other.crt").read_text()]
    await layer.control.saml.put("acme", "office", type(found.settings)(**changed))
    assert (await person.post(xml)).status_code == 403
    assert await person.is_nobody()


async def test_a_form_that_is_too_large_or_has_no_response_is_refused(layer: Layer) -> None:
    async with contract_client(layer.application()) as browser:
        assert (await browser.post(f"{BASE}/acs", data={"SAMLResponse": "A" * 300_000})).status_code == 413
        assert (await browser.post(f"{BASE}/acs", data={"RelayState": "x"})).status_code == 400
        assert (await browser.post("/auth/saml/acme/none/acs", data={"SAMLResponse": "x"})).status_code == 404
        leads_elsewhere = await browser.get(f"{BASE}/login", params={"return_to": "//evil.example.com"})
        assert leads_elsewhere.status_code == 400


async def test_sign_ins_and_refusals_are_audited(person: Person, layer: Layer) -> None:
    await person.sign_in()
    await person.post(_unsigned(await person.answered()))
    await layer.control.journal.close()
    found, _ = await layer.control.audit.search("acme", target="saml.office")
    assert [(one["outcome"], one["actor"]) for one in _entries(found)] == [
        ("permission_denied", "nobody"),
        ("ok", "user:saml.office:ada"),
    ]


def _entries(found: Any) -> list[dict[str, Any]]:
    return [{"outcome": one.outcome, "actor": one.actor} for one in found]
