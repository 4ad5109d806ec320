"""Finds personal data in free text.

Recognised by form and check digits: e-mail addresses, IBANs, card numbers, IP addresses, phone numbers (with + or behind
a word that announces one), and numbers that states give people: US SSN, UK NINO and Spanish NIE by their form, German
Steuer-ID, Polish PESEL, Spanish DNI and Dutch BSN behind a word that announces them (one number in eleven passes their
check). Every pattern is bounded, so that the time is linear in the length of the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from erp.security.privacy.check_digits import (
    is_card,
    is_de_steuer_id,
    is_es_dni,
    is_iban,
    is_nl_bsn,
    is_pl_pesel,
    is_uk_nino,
    is_us_ssn,
)

_GAP = r"[ \u00a0\u202f.-]"
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){0,8}[^\W\d_][\w-]{0,62}")
_IBAN = re.compile(rf"(?<![^\W_])[A-Za-z]{{2}}\d{{2}}(?:{_GAP}?[A-Za-z0-9]){{11,30}}")
_CARD = re.compile(rf"(?<!\d)[2-6](?:{_GAP}?\d){{13,18}}")
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:.]{2,45}(?!\w)")
_NUMBER = r"\(?\d(?:[ \u00a0\u202f.()/-]{0,3}\d)"
_PHONE = re.compile(rf"(?:(?<!\w)\+[ ]?|(?<![\w.,-])00(?=[1-9])){_NUMBER}{{6,16}}")
_ANNOUNCED = re.compile(
    r"(?i:\b(?:tel|telephone|telefon|téléphone|phone|fon|fone|mobile?|cell|handy|fax|call|ring|dial|whatsapp|sms))\b"
    rf"[^\d\n]{{0,20}}?({_NUMBER}{{5,16}})"
)
_SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_NINO = re.compile(r"(?<![\w-])[A-Za-z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-Da-d](?![\w-])")
_NIE = re.compile(r"(?<![\w-])[XYZxyz]-?\d{7}-?[A-Za-z](?![\w-])")
_DIGITS = re.compile(r"(?<![\w.-])\d(?:[ .-]?\d){7,10}(?:[ -]?[A-Za-z])?(?![\w-])")
_DIGIT = re.compile(r"\d")
"""What all personal data has but names and addresses of e-mail; IPv6 (RFC 4291) has colons at least."""
_AHEAD = 48
"""So many characters before a number are searched for the word that announces it."""
_WORDS = {
    "de_steuer_id": re.compile(r"(?i)\b(?:steuer-?id\w*|idnr|tin|steueridentifikationsnummer|tax[ -]id)\b"),
    "pl_pesel": re.compile(r"(?i)\bpesel\b"),
    "nl_bsn": re.compile(r"(?i)\b(?:bsn|sofi\w*|burgerservicenummer)\b"),
    "es_dni": re.compile(r"(?i)\b(?:dni|nif)\b"),
    "us_ssn": re.compile(r"(?i)\b(?:ssn|social security)\b"),
}
NATIONAL: dict[str, Callable[[str], bool]] = {
    "de_steuer_id": is_de_steuer_id,
    "pl_pesel": is_pl_pesel,
    "nl_bsn": is_nl_bsn,
    "es_dni": is_es_dni,
    "us_ssn": is_us_ssn,
    "uk_nino": is_uk_nino,
}
"""Kind of national number -> its check."""
_MIN_NAME = 3
_TAKEN = "\x00"


class Hit(NamedTuple):
    """Where personal data stands in a text, and of what kind it is."""

    start: int
    end: int
    kind: str


def hits(text: str, *, names: Iterable[str] = ()) -> list[Hit]:
    """Return what personal data ``text`` holds, in order, without overlap.

    Args:
        text: any text.
        names: words that are names wherever they stand, whole or in parts.
    """
    found: list[Hit] = []
    has_numbers = ":" in text or _DIGIT.search(text) is not None
    for kind, spans in _RECOGNISERS if has_numbers else _RECOGNISERS[:1]:
        new = [Hit(start, end, kind) for start, end in spans(text)]
        text = _without(text, new)
        found += new
    found += _national(text, found) if has_numbers else []
    found += _names(text, found, names)
    return sorted(found)


def _without(text: str, taken: list[Hit]) -> str:
    """Blank out what is found already, so that nothing is found twice."""
    if not taken:
        return text
    parts: list[str] = []
    done = 0
    for start, end, _ in taken:
        parts += (text[done:start], _TAKEN * (end - start))
        done = end
    return "".join((*parts, text[done:]))


def _matching(pattern: re.Pattern[str], needle: str = "") -> Callable[[str], Iterator[tuple[int, int]]]:
    def spans(text: str) -> Iterator[tuple[int, int]]:
        if needle in text:
            yield from (match.span() for match in pattern.finditer(text))

    return spans


def _checked(pattern: re.Pattern[str], is_one: Callable[[str], bool]) -> Callable[[str], Iterator[tuple[int, int]]]:
    """Find what matches and passes the check, also where the match ran on into what follows it."""

    def spans(text: str) -> Iterator[tuple[int, int]]:
        place = 0
        while found := pattern.search(text, place):
            end = next((end for end in _ends(text, found) if is_one(text[found.start() : end])), None)
            place = found.start() + 1 if end is None else end
            if end is not None:
                yield found.start(), end

    return spans


def _ends(text: str, found: re.Match[str]) -> Iterator[int]:
    """Where the match could end without cutting a word: the farthest first."""
    for end in range(found.end(), found.start(), -1):
        if text[end - 1].isalnum() and not text[end : end + 1].isalnum():
            yield end


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    """IP addresses (RFC 791, RFC 4291), without the punctuation behind them."""
    found = []
    if ":" in text:
        for match in _IPV6.finditer(text):
            candidates = (match[0], match[0].rstrip("."), match[0].rstrip(".:"))
            address = next((one for one in candidates if one.strip(":") and is_address(one)), "")
            if address:
                found.append((match.start(), match.start() + len(address)))
    text = _without(text, [Hit(*span, "ip") for span in found])
    found += [match.span() for match in _IPV4.finditer(text) if is_address(match[0])]
    return iter(sorted(found))


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_phone(text: str) -> bool:
    """Whether the plan of some country knows numbers like ``text``, which begins with + or 00."""
    import phonenumbers

    digits = "+" + "".join(filter(str.isdecimal, text)).removeprefix("00")
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(digits.replace("+490", "+49", 1), None))
    except phonenumbers.NumberParseException:
        return False


def _phones(text: str) -> Iterator[tuple[int, int]]:
    found = [match.span() for match in _PHONE.finditer(text) if is_phone(match[0])]
    text = _without(text, [Hit(*span, "phone") for span in found])
    found += [match.span(1) for match in _ANNOUNCED.finditer(text)]
    return iter(sorted(found))


_RECOGNISERS: tuple[tuple[str, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    ("email", _matching(_EMAIL, "@")),
    ("iban", _checked(_IBAN, is_iban)),
    ("card", _checked(_CARD, is_card)),
    ("ip", _addresses),
    ("phone", _phones),
)
"""In the order in which they have a say about the same characters; all but the first need a digit or a colon."""


def _national(text: str, taken: list[Hit]) -> list[Hit]:
    found = [
        Hit(*match.span(), kind)
        for kind, pattern in (("us_ssn", _SSN), ("uk_nino", _NINO), ("es_dni", _NIE))
        for match in pattern.finditer(text)
        if NATIONAL[kind](match[0])
    ]
    for match in _DIGITS.finditer(_without(text, sorted(found))):
        before = text[max(match.start() - _AHEAD, 0) : match.start()].rpartition("\n")[2]
        kind = next((kind for kind, word in _WORDS.items() if NATIONAL[kind](match[0]) and word.search(before)), None)
        if kind is not None:
            found.append(Hit(*match.span(), kind))
    return _apart(found, taken)


def _names(text: str, taken: list[Hit], names: Iterable[str]) -> list[Hit]:
    parts = {part for name in names for part in (name.strip(), *name.split()) if len(part) >= _MIN_NAME}
    if not parts:
        return []
    longest_first = sorted(parts, key=lambda part: (-len(part), part))
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
    return _apart([Hit(*match.span(), "name") for match in pattern.finditer(text)], taken)


def _apart(found: list[Hit], taken: list[Hit]) -> list[Hit]:
    """Return those that do not touch what is taken."""
    if not found or not taken:
        return found
    starts = {place for hit in taken for place in range(hit.start, hit.end)}
    return [hit for hit in found if starts.isdisjoint(range(hit.start, hit.end))]
