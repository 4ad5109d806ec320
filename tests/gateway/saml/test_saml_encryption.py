"""Assertions that are encrypted for the tenant: by samlify, weakly, and as a forger would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import msgspec
import pytest
from tests.gateway.saml.person import BASE, START, Person
from tests.support.contract_client import contract_client
from tests.support.saml_peer import Encryption

from erp.security.saml_keys import made_for

pytest.importorskip("onelogin.saml2", reason="needs the extra saml")
pytestmark = pytest.mark.anyio


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
    newer = msgspec.json.encode(made_for("acme")).decode()
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
