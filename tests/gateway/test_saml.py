"""Signing in by SAML: with an identity provider made with samlify, and against everything a forger may send it."""

from __future__ import annotations

import asyncio
import base64
import datetime
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.support.contract_client import contract_client
from tests.support.saml_peer import Encryption, IdentityProvider, identity_provider

from erp.main import Layer, Settings, running
from erp.security.saml_keys import _made

pytest.importorskip("onelogin.saml2", reason="needs the extra saml")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="needs node and npm (for samlify)"),
]

BASE = "/auth/saml/acme/office"
READ = {"params": {"key": "k"}}
START = "/me?from=saml"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    with identity_provider(tmp_path_factory.mktemp("samlify"), tmp_path_factory.mktemp("idp")) as made:
        yield made


class Person:
    """Somebody with a browser who signs in at ``acme``."""

    def __init__(self, layer: Layer, provider: IdentityProvider) -> None:
        self.layer = layer
        self.provider = provider
        self.browser = contract_client(layer.application())

    async def begin(self, start: str = START) -> tuple[str, str]:
        """Go to the identity provider; return the request and the metadata of the layer."""
        metadata = await self.browser.get(f"{BASE}/metadata")
        begun = await self.browser.get(f"{BASE}/login", params={"return_to": start})
        assert (metadata.status_code, begun.status_code) == (200, 303), begun.text
        return begun.headers["location"], metadata.text

    async def answered(self, encryption: Encryption | None = None, **facts: str) -> str:
        """Begin, and return what the identity provider answers."""
        request, metadata = await self.begin()
        return await asyncio.to_thread(self.provider.answer, request, metadata, encryption, **facts)

    async def post(self, xml: str) -> httpx2.Response:
        """Send a response as another site makes the browser send it: without cookies."""
        form = {"SAMLResponse": base64.b64encode(xml.encode()).decode()}
        async with contract_client(self.layer.application()) as without_cookies:
            return await without_cookies.post(f"{BASE}/acs", data=form)

    async def sign_in(self, **facts: str) -> httpx2.Response:
        """Sign in; return the last answer."""
        accepted = await self.post(await self.answered(**facts))
        return await self.follow(accepted)

    async def follow(self, accepted: httpx2.Response) -> httpx2.Response:
        return await self.browser.get(accepted.headers["location"]) if accepted.status_code == 303 else accepted

    async def is_nobody(self) -> bool:
        """Whether nobody is signed in: no session was made, and the browser has none."""
        found, _ = await self.layer.people.browser.sessions.list("acme", subject=None, cursor=None, limit=10)
        return found == [] and (await self.browser.get("/me")).status_code == 401


@pytest.fixture
async def layer(tmp_path: Path, provider: IdentityProvider) -> AsyncIterator[Layer]:
    settings = Settings(data_dir=tmp_path / "data", database_url=None, log_level="error")
    async with running(settings) as made:
        made.listens_at("http://layer.test")
        await made.control.tenants.create("acme")
        _, admin = await made.control.api_keys.create("acme", role="admin")
        async with contract_client(made.application(), admin) as client:
            facts = {
                "entity_id": "https://idp.example.com/metadata",
                "sso_url": "https://idp.example.com/sso",
                "certificates": [provider.certificate.read_text()],
                "roles_attribute": "groups",
                "role_map": {"buyers": "developer", "chiefs": "admin"},
            }
            assert (await client.put("/saml-providers/office", json=facts)).status_code == 200
        yield made


@pytest.fixture
async def person(layer: Layer, provider: IdentityProvider) -> AsyncIterator[Person]:
    made = Person(layer, provider)
    yield made
    await made.browser.aclose()


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


async def encrypting(person: Person, encryption: str) -> None:
    """Say that assertions may or must be encrypted."""
    found = await person.layer.control.saml.find("acme", "office")
    assert found is not None
    _, admin = await person.layer.control.api_keys.create("acme", role="admin")
    facts = msgspec.to_builtins(found.settings) | {"encryption": encryption}
    async with contract_client(person.layer.application(), admin) as client:
        answer = await client.put("/saml-providers/office", json=facts)
        assert (answer.status_code, answer.json().get("encryption", "none")) == (200, encryption), answer.text


AES = "http://www.w3.org/2009/xmlenc11#aes{}-gcm"
GENUINE = Encryption()


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("encryption", ["accepted", "required"])
async def test_an_encrypted_assertion_signs_in(person: Person, encryption: str, bits: int) -> None:
    await encrypting(person, encryption)
    xml = await person.answered(Encryption(data=AES.format(bits)))
    assert "EncryptedAssertion" in xml
    assert ">ada<" not in xml
    done = await person.follow(await person.post(xml))
    assert (done.status_code, done.headers["location"]) == (303, START)
    me = (await person.browser.get("/me")).json()
    assert (me["id"], me["roles"]) == ("user:saml.office:ada", ["developer"])
    assert (await person.post(xml)).status_code == 403, "it is good once"


async def test_a_key_that_another_process_has_made_meanwhile_decrypts_too(person: Person) -> None:
    await encrypting(person, "required")
    xml = await person.answered(GENUINE)
    newer = msgspec.json.encode(_made("acme")).decode()
    assert await person.layer.vault.put("acme", "identity/saml-key", newer) == 2
    assert (await person.follow(await person.post(xml))).status_code == 303
    assert (await person.follow(await person.post(await person.answered(GENUINE)))).status_code == 303


async def _reason(person: Person, xml: str) -> str:
    """Post what is refused; return why, which the audit trail alone says."""
    refused = await person.post(xml)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert refused.json()["detail"] == "The answer of the identity provider is not valid. Begin again."
    assert await person.is_nobody()
    await person.layer.control.journal.close()
    found, _ = await person.layer.control.audit.search("acme", target="saml.office")
    return str(found[0].reason)


async def test_what_is_encrypted_in_a_weak_way_is_not_decrypted(person: Person) -> None:
    await encrypting(person, "accepted")
    weak = "http://www.w3.org/2001/04/xmlenc#aes256-cbc"
    reason = await _reason(person, await person.answered(Encryption(data=weak)))
    assert reason.endswith(f"{weak} is not allowed: encrypt with AES-GCM, and the key with RSA-OAEP.")
    genuine = await person.answered(GENUINE)
    for name in ("http://www.w3.org/2001/04/xmlenc#rsa-1_5", "http://www.w3.org/2001/04/xmlenc#kw-aes256"):
        assert f"{name} is not allowed" in await _reason(person, genuine.replace(GENUINE.key, name))
    assert (await person.follow(await person.post(genuine))).status_code == 303


async def test_an_assertion_that_has_to_be_encrypted_is_refused_when_it_is_not(person: Person) -> None:
    await encrypting(person, "required")
    assert "has to be" in await _reason(person, await person.answered())


async def test_an_encrypted_assertion_is_refused_where_encryption_is_not_set_up(person: Person) -> None:
    await encrypting(person, "accepted")
    xml = await person.answered(GENUINE)
    await encrypting(person, "none")
    assert "encryption is not set up for this provider" in await _reason(person, xml)
    assert "KeyDescriptor" not in (await person.browser.get(f"{BASE}/metadata")).text


def _reference(xml: str) -> str:
    """Have the ciphertext read from a file of the server."""
    return re.sub(
        r"<(\w+:)?CipherValue>[^<]*</(\w+:)?CipherValue>(?=\s*</(\w+:)?CipherData>\s*</(\w+:)?EncryptedData>)",
        r'<\1CipherReference URI="file:///etc/hostname"/>',
        xml,
    )


def _retrieved(xml: str) -> str:
    found = '<dsig:RetrievalMethod xmlns:dsig="http://www.w3.org/2000/09/xmldsig#" URI="http://127.0.0.1:1/key"/>'
    return re.sub(r"(<(\w+:)?KeyInfo[^>]*>)", rf"\1{found}", xml, count=1)


def _changed(xml: str) -> str:
    """Flip a bit of the ciphertext."""
    *_, last = re.finditer(r"<(?:\w+:)?CipherValue>([A-Za-z0-9+/=\s]+)<", xml)
    place = last.start(1) + 40
    return f"{xml[:place]}{'A' if xml[place] != 'A' else 'B'}{xml[place + 1 :]}"


def _encrypted(xml: str) -> str:
    found = re.search(r"<saml:EncryptedAssertion.*</saml:EncryptedAssertion>", xml, re.DOTALL)
    assert found is not None
    return found[0]


def _hidden(xml: str) -> str:
    return xml.replace(_encrypted(xml), f"<samlp:Extensions>{_encrypted(xml)}</samlp:Extensions>")


ATTACKS_ON_ENCRYPTION: dict[str, tuple[str, Callable[[str], str]]] = {
    "reference-to-a-file": ("CipherReference is not allowed", _reference),
    "reference-to-a-host": ("has to be in the response", _retrieved),
    "changed-ciphertext": ("failed to decrypt", _changed),
    "twice": ("as a whole, and nothing else", lambda xml: xml.replace(_encrypted(xml), _encrypted(xml) * 2)),
    "in-an-extension": ("as a whole, and nothing else", _hidden),
    "no-algorithm": (
        "name one algorithm",
        lambda xml: re.sub(r"<(\w+:)?EncryptionMethod[^>]*(/>|>.*?</(\w+:)?EncryptionMethod>)", "", xml),
    ),
}


@pytest.mark.parametrize(("reason", "attack"), ATTACKS_ON_ENCRYPTION.values(), ids=ATTACKS_ON_ENCRYPTION.keys())
async def test_an_encrypted_response_that_was_tampered_with_signs_nobody_in(
    person: Person, reason: str, attack: Callable[[str], str]
) -> None:
    await encrypting(person, "accepted")
    genuine = await person.answered(GENUINE)
    forged = attack(genuine)
    assert forged != genuine
    assert reason in await _reason(person, forged)
    assert (await person.follow(await person.post(genuine))).status_code == 303, "the genuine one is still good"


async def test_an_encrypted_assertion_that_nobody_has_signed_is_refused(person: Person) -> None:
    """Everybody can encrypt for the layer: its certificate is public."""
    await encrypting(person, "required")
    request, metadata = await person.begin()
    stranger = person.provider.stranger()
    try:
        xml = await asyncio.to_thread(stranger.answer, request, metadata, GENUINE)
    finally:
        stranger.close()
    assert "ignature" in await _reason(person, xml)
