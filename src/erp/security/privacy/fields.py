"""What the name of a field says about its value."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-zà-ÿ]+|\d+")
_KINDS: Mapping[str, frozenset[str]] = {
    "email": frozenset({"email", "mail"}),
    "phone": frozenset({"phone", "tel", "telephone", "telefon", "mobile", "mobil", "handy", "fax", "cell"}),
    "name": frozenset(
        {"firstname", "lastname", "surname", "forename", "fullname", "vorname", "nachname", "apellido", "nazwisko"}
    ),
    "address": frozenset({"street", "strasse", "straße", "calle", "ulica", "address1", "address2"}),
    "birth_date": frozenset({"birthdate", "birthday", "dob", "geburtsdatum"}),
    "iban": frozenset({"iban"}),
    "card": frozenset({"pan", "creditcard", "cardnumber"}),
    "ip": frozenset({"ip", "ipaddress"}),
    "us_ssn": frozenset({"ssn"}),
    "uk_nino": frozenset({"nino"}),
    "de_steuer_id": frozenset({"idnr", "steuerid"}),
    "pl_pesel": frozenset({"pesel"}),
    "es_dni": frozenset({"dni", "nie", "nif"}),
    "nl_bsn": frozenset({"bsn"}),
}
_OF_WORD = {word: kind for kind, words in _KINDS.items() for word in words}
_PAIRS = {
    ("e", "mail"): "email",
    ("first", "name"): "name",
    ("last", "name"): "name",
    ("given", "name"): "name",
    ("family", "name"): "name",
    ("middle", "name"): "name",
    ("full", "name"): "name",
    ("birth", "date"): "birth_date",
    ("of", "birth"): "birth_date",
    ("address", "line"): "address",
    ("postal", "address"): "address",
    ("home", "address"): "address",
    ("card", "number"): "card",
    ("steuer", "id"): "de_steuer_id",
}
_PERSONS = frozenset(
    {
        "customer",
        "contact",
        "person",
        "employee",
        "user",
        "patient",
        "buyer",
        "driver",
        "recipient",
        "holder",
        "owner",
        "kunde",
        "mitarbeiter",
        "ansprechpartner",
    }
)
_NO_DATA = frozenset({"id", "type", "count", "hash", "verified", "enabled", "template", "status", "key"})
"""Last words of fields that only speak about such data: ``email_verified``."""


def kind_of(name: str, parent: str = "") -> str:
    """Return the kind of personal data that a field called ``name`` holds; empty: its name does not say.

    Args:
        name: in any spelling: ``e_mail``, ``firstName``, ``IBAN``.
        parent: the field around it; what is called ``name`` is a person's in ``customer`` and a thing's in ``product``.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or (words[-1] in _NO_DATA and tuple(words[-2:]) not in _PAIRS and len(words) > 1):
        return ""
    for pair in itertools.pairwise(words):
        if pair in _PAIRS:
            return _PAIRS[pair]
    found = next((_OF_WORD[word] for word in words if word in _OF_WORD), "")
    if found:
        return found
    if words[-1] == "name" and (_PERSONS.intersection(words) or (len(words) == 1 and _is_person(parent))):
        return "name"
    return ""


def _is_person(parent: str) -> bool:
    return not _PERSONS.isdisjoint(word.lower().removesuffix("s") for word in _WORDS.findall(parent))
