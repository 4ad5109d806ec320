"""What of XML Encryption (xmlenc-core1) a response may use before anything of it is decrypted.

Algorithms without integrity (AES-CBC) and RSA with PKCS #1 v1.5 padding let whoever may send many forged responses read a
genuine one (https://www.w3.org/TR/xmlenc-core1/, section 6.1). And the library follows references to files and hosts: an
encrypted element may have none. So what is not known to be harmless is refused.
"""

from __future__ import annotations

from typing import Any

DATA_ALGORITHMS = frozenset(f"http://www.w3.org/2009/xmlenc11#aes{bits}-gcm" for bits in (128, 192, 256))
KEY_ALGORITHMS = frozenset(
    {"http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p", "http://www.w3.org/2009/xmlenc11#rsa-oaep"}
)
_SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
_ENCRYPTION = "http://www.w3.org/2001/04/xmlenc#"
_ENCRYPTION_11 = "http://www.w3.org/2009/xmlenc11#"
_SIGNATURE = "http://www.w3.org/2000/09/xmldsig#"
_ALLOWED = {
    f"{{{_SAML}}}EncryptedAssertion",
    *(
        f"{{{_ENCRYPTION}}}{name}"
        for name in (
            *("EncryptedData", "EncryptedKey", "EncryptionMethod", "CipherData", "CipherValue"),
            *("CarriedKeyName", "ReferenceList", "DataReference", "OAEPparams"),
        )
    ),
    f"{{{_ENCRYPTION_11}}}MGF",
    *(
        f"{{{_SIGNATURE}}}{name}"
        for name in (
            *("KeyInfo", "KeyName", "DigestMethod", "RetrievalMethod", "X509Data", "X509Certificate"),
            *("X509IssuerSerial", "X509IssuerName", "X509SerialNumber", "X509SubjectName", "X509SKI"),
        )
    ),
}

_ENCRYPTED = frozenset({f"{{{_ENCRYPTION}}}EncryptedData", f"{{{_ENCRYPTION}}}EncryptedKey"})


class NotAllowedError(Exception):
    """The response is encrypted in a way that is not believed; the text says which."""


def is_encrypted(response: Any) -> bool:
    """Whether a response (an element of lxml) has an encrypted assertion that may be decrypted.

    Raises:
        NotAllowedError: there is one that may not be.
    """
    found = list(response.iter(f"{{{_SAML}}}EncryptedAssertion"))
    others = [one for one in response.iter(f"{{{_ENCRYPTION}}}*") if not any(_is_in(one, root) for root in found)]
    if not found and not others:
        return False
    if others or len(found) != 1 or found[0].getparent() is not response:
        raise NotAllowedError("Encrypt the assertion as a whole, and nothing else.")
    for element in found[0].iter():
        _check(element)
    return True


def _is_in(element: Any, root: Any) -> bool:
    return any(one is root for one in element.iterancestors())


def _check(element: Any) -> None:
    if element.tag not in _ALLOWED:
        raise NotAllowedError(f"{str(element.tag)[:100]} is not allowed in an encrypted assertion.")
    if element.tag in _ENCRYPTED and len(element.findall(f"{{{_ENCRYPTION}}}EncryptionMethod")) != 1:
        raise NotAllowedError("An encrypted assertion and its key each have to name one algorithm.")
    if element.tag == f"{{{_SIGNATURE}}}RetrievalMethod" and not element.get("URI", "").startswith("#"):
        raise NotAllowedError("The key of an encrypted assertion has to be in the response.")
    if element.tag == f"{{{_ENCRYPTION}}}EncryptionMethod":
        is_key = element.getparent().tag == f"{{{_ENCRYPTION}}}EncryptedKey"
        if element.get("Algorithm") not in (KEY_ALGORITHMS if is_key else DATA_ALGORITHMS):
            name = str(element.get("Algorithm"))[:100]
            raise NotAllowedError(f"{name} is not allowed: encrypt with AES-GCM, and the key with RSA-OAEP.")
