"""Takes personal data out of free text before it reaches logs, events or models.

Recognised: e-mail addresses, IBANs (ISO 13616 check), card numbers (Luhn, ISO/IEC 7812), IP addresses,
phone numbers (with + or a word that announces one) and names given by the caller. Every pattern is bounded,
so that the time is linear in the length of the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_IBAN = re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f:]{3,39}(?![\w:])")
_PHONE = re.compile(
    r"(?:\+|\b00)[1-9]\d{0,3}(?:[ /().-]{0,2}\d){5,13}"
    r"|(?<=\b)(?:phone|tel|telephone|call|mobile|cell|fax)\b[.:]{0,2}[ ]{0,3}(?:me |us )?(?:at |on )?\(?\d(?:[ /().-]{0,2}\d){5,14}",
    re.IGNORECASE,
)
_MIN_NAME = 3


def redacted(text: str, *, names: Iterable[str] = ()) -> str:
    """Return ``text`` with personal data replaced by what kind it was, for example ``[email]``."""
    text = _EMAIL.sub("[email]", text)
    text = _IBAN.sub(lambda match: "[iban]" if _is_iban(match[0]) else match[0], text)
    text = _CARD.sub(lambda match: "[card]" if _is_card(match[0]) else match[0], text)
    text = _IPV4.sub(lambda match: "[ip]" if _is_address(match[0]) else match[0], text)
    text = _IPV6.sub(lambda match: "[ip]" if match[0].count(":") > 1 and _is_address(match[0]) else match[0], text)
    text = _PHONE.sub("[phone]", text)
    return _without_names(text, names)


def _without_names(text: str, names: Iterable[str]) -> str:
    parts = {part for name in names for part in (name, *name.split()) if len(part) >= _MIN_NAME}
    if not parts:
        return text
    longest_first = sorted(parts, key=len, reverse=True)
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)
    return pattern.sub("[name]", text)


def _is_iban(text: str) -> bool:
    code = text.replace(" ", "").upper()
    if not 15 <= len(code) <= 34:  # noqa: PLR2004  (ISO 13616)
        return False
    digits = "".join(str(int(character, 36)) for character in code[4:] + code[:4])
    return int(digits) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
