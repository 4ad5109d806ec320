"""Check digits of numbers that name a person, an account or a card. Every function takes any text and never raises."""

from __future__ import annotations

import datetime
import re

_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_PESEL_WEIGHTS = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
_PESEL_CENTURIES = {0: 1900, 20: 2000, 40: 2100, 60: 2200, 80: 1800}
_FEWEST_OF_CARD = 14
"""Cards of 13 digits are no longer given out, and every tenth EAN of a German article would pass for one."""
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
"""By country, as in the IBAN registry of SWIFT."""
_NOT_NINO = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})
_NINO = re.compile(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", re.ASCII)
_SSN = re.compile(r"(?!000|666|9)\d{3}(?!00)\d{2}(?!0000)\d{4}", re.ASCII)
_DNI = re.compile(r"\d{8}[A-Z]", re.ASCII)
_NIE = re.compile(r"[XYZ]\d{7}[A-Z]", re.ASCII)
_DIGITS = {length: re.compile(rf"\d{{{length}}}", re.ASCII) for length in (9, 11)}


def bare(text: str) -> str:
    """Return letters and digits alone, in upper case."""
    return "".join(filter(str.isalnum, text)).upper()


def is_iban(text: str) -> bool:
    """Whether ``text`` is an IBAN (ISO 13616; ISO 7064 mod 97-10), with any separators and in any case."""
    code = bare(text)
    if not code.isascii() or _IBAN_LENGTHS.get(code[:2]) != len(code):
        return False
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether the digits of ``text`` are a card number (ISO/IEC 7812-1 annex B, Luhn)."""
    digits = [int(character) for character in text if character.isdecimal()]
    if len(digits) < _FEWEST_OF_CARD:
        return False
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def is_us_ssn(text: str) -> bool:
    """Whether ``text`` can be a social security number of the USA (it has no check digit; SSA, 20 CFR 422.103)."""
    return _SSN.fullmatch(bare(text)) is not None


def is_uk_nino(text: str) -> bool:
    """Whether ``text`` can be a national insurance number (HMRC, NIM39110: which prefixes are given out)."""
    code = bare(text)
    return _NINO.fullmatch(code) is not None and code[:2] not in _NOT_NINO


def is_de_steuer_id(text: str) -> bool:
    """Whether ``text`` is a German tax identification number (section 139b AO; ISO 7064 mod 11,10)."""
    code = bare(text)
    if not _DIGITS[11].fullmatch(code) or code[0] == "0":
        return False
    counts = sorted((code[:10].count(digit) for digit in set(code[:10])), reverse=True)
    if counts[0] not in {2, 3} or counts[1:2] != [1]:  # exactly one digit stands there twice or three times
        return False
    product = 10
    for digit in map(int, code[:10]):
        product = ((digit + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(code[10])


def is_pl_pesel(text: str) -> bool:
    """Whether ``text`` is a Polish PESEL: a date of birth that exists, and the check digit."""
    code = bare(text)
    if not _DIGITS[11].fullmatch(code):
        return False
    month = int(code[2:4])
    try:
        datetime.date(_PESEL_CENTURIES[month // 20 * 20] + int(code[:2]), month % 20, int(code[4:6]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_PESEL_WEIGHTS, code, strict=False))
    return -total % 10 == int(code[10])


def is_es_dni(text: str) -> bool:
    """Whether ``text`` is a Spanish DNI, or the NIE of a foreigner (Orden INT/2058/2008): mod 23."""
    code = bare(text)
    if _NIE.fullmatch(code):
        code = str("XYZ".index(code[0])) + code[1:]
    return _DNI.fullmatch(code) is not None and _DNI_LETTERS[int(code[:8]) % 23] == code[8]


def is_nl_bsn(text: str) -> bool:
    """Whether ``text`` is a Dutch citizen service number (the test of eleven, last digit negative)."""
    code = bare(text)
    if not _DIGITS[9].fullmatch(code) or code == "0" * 9:
        return False
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    return sum(weight * int(digit) for weight, digit in zip(weights, code, strict=True)) % 11 == 0
