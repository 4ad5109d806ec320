"""Takes personal data out of free text before it reaches logs, events or models.

Recognised: e-mail addresses, IBANs (ISO 13616, check by ISO 7064 mod 97-10), card numbers (ISO/IEC 7812,
Luhn), IP addresses, phone numbers (with + or behind a word that announces one) and names the caller knows.
Every pattern is bounded, so that the time is linear in the length of the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator

_GAP = r"[ \u00a0\u202f.-]"
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){0,8}[^\W\d_][\w-]{0,62}")
_IBAN = re.compile(rf"(?<![^\W_])[A-Za-z]{{2}}\d{{2}}(?:{_GAP}?[A-Za-z0-9]){{11,30}}")
_CARD = re.compile(rf"(?<!\d)[2-6](?:{_GAP}?\d){{12,18}}")
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:.]{2,45}(?!\w)")
_NUMBER = r"\(?\d(?:[ \u00a0\u202f.()/-]{0,3}\d)"
_PHONE = re.compile(rf"(?:(?<!\w)\+[ ]?|(?<![\w.,])00(?=[1-9])){_NUMBER}{{6,16}}")
_ANNOUNCED = re.compile(
    r"(?i:\b(?:tel|telephone|telefon|téléphone|phone|fon|fone|mobile?|cell|handy|fax|call|ring|dial|whatsapp|sms))\b"
    rf"[^\d\n]{{0,20}}?({_NUMBER}{{5,16}})"
)
_MIN_NAME = 3
_MIN_IBAN, _MAX_IBAN = 15, 34
_OLD_CARD = 13


def redacted(text: str, *, names: Iterable[str] = ()) -> str:
    """Return ``text`` with personal data replaced by what kind it was, for example ``[email]``.

    Errs on the side of taking too much: the words of ``names`` go wherever they stand.
    """
    text = _EMAIL.sub("[email]", text)
    text = _without(text, _IBAN, _is_iban, "[iban]")
    text = _without(text, _CARD, _is_card, "[card]")
    text = _IPV6.sub(_address_replaced, text)
    text = _IPV4.sub(lambda match: "[ip]" if _is_address(match[0]) else match[0], text)
    text = _PHONE.sub("[phone]", text)
    text = _ANNOUNCED.sub(lambda match: match[0][: match.start(1) - match.start()] + "[phone]", text)
    return _without_names(text, names)


def _without(text: str, pattern: re.Pattern[str], is_one: Callable[[str], bool], mark: str) -> str:
    """Replace what matches and passes the check, also where the match ran on into what follows it."""
    parts: list[str] = []
    done = place = 0
    while found := pattern.search(text, place):
        end = next((end for end in _ends(text, found) if is_one(text[found.start() : end])), None)
        place = found.start() + 1 if end is None else end
        if end is not None:
            parts += (text[done : found.start()], mark)
            done = end
    return "".join((*parts, text[done:]))


def _ends(text: str, found: re.Match[str]) -> Iterator[int]:
    """Where the match could end without cutting a word: the farthest first."""
    for end in range(found.end(), found.start(), -1):
        if text[end - 1].isalnum() and not text[end : end + 1].isalnum():
            yield end


def _without_names(text: str, names: Iterable[str]) -> str:
    parts = {part for name in names for part in (name.strip(), *name.split()) if len(part) >= _MIN_NAME}
    if not parts:
        return text
    longest_first = sorted(parts, key=lambda part: (-len(part), part))
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
    return pattern.sub("[name]", text)


def _is_iban(text: str) -> bool:
    code = "".join(character for character in text if character.isalnum())
    if not _MIN_IBAN <= len(code) <= _MAX_IBAN:
        return False
    digits = "".join(str(int(character, 36)) for character in code[4:] + code[:4])
    return int(digits) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    if len(digits) < _OLD_CARD or (len(digits) == _OLD_CARD and digits[0] != 4):  # noqa: PLR2004  (an EAN, not an old Visa)
        return False
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _address_replaced(match: re.Match[str]) -> str:
    candidates = (match[0], match[0].rstrip("."), match[0].rstrip(".:"))
    found = next((text for text in candidates if text.strip(":") and _is_address(text)), "")
    return f"[ip]{match[0][len(found) :]}" if found else match[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
