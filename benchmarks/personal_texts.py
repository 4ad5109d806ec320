"""Labelled texts with made-up personal data, and rows without any; the same for the same seed.

Every value is computed here (check digits too) by ways of its own, not by those of the recognisers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

SEED = 20261128


class Labelled(NamedTuple):
    """A text, and the personal data in it: (kind, value), in order."""

    text: str
    labels: list[tuple[str, str]]


def texts(count: int, seed: int = SEED) -> list[Labelled]:
    """Return ``count`` sentences with one or two pieces of personal data each."""
    source = random.Random(seed)  # noqa: S311  (made-up data)
    made = []
    for _ in range(count):
        kinds = source.sample(sorted(MAKERS), source.choice([1, 1, 2]))
        parts, labels = [], []
        for kind in kinds:
            announced, value = MAKERS[kind](source)
            parts.append(f"{source.choice(_BEFORE)} {announced}{value}{source.choice(_BEHIND)}")
            labels.append((kind, value))
        made.append(Labelled(" ".join(parts), labels))
    return made


def plain_rows(count: int, seed: int = SEED) -> list[dict[str, object]]:
    """Return rows of an ERP that hold no personal data: dates, SKUs, amounts, EANs, batches, positions."""
    source = random.Random(seed)  # noqa: S311  (made-up data)
    return [_plain_row(source, number) for number in range(count)]


def log_lines(size: int, seed: int = SEED) -> str:
    """Return at least ``size`` characters of log-like text; one line in twenty holds personal data."""
    sentences = texts(200, seed)
    source = random.Random(seed)  # noqa: S311  (made-up data)
    lines, length = [], 0
    while length < size:
        note = (
            sentences[source.randrange(200)].text if source.random() < 0.05 else f"order {source.randrange(10**6)} kept"
        )
        line = (
            f'{{"level":"info","timestamp":"2026-11-{source.randint(1, 28):02}T10:{source.randint(0, 59):02}:00.'
            f'{source.randrange(10**6):06}+00:00","request_id":"req_{source.randrange(16**16):016x}","target":"cache/memory.set",'
            f'"code":"ok","duration_ms":{source.random() * 9:.3f},"note":"{note}"}}'
        )
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)


_BEFORE = [
    "Please note",
    "As agreed,",
    "For order 4711 of 2026-11-23:",
    "Zur Info:",
    "Total 1,234.50 EUR;",
    "The contact gave",
]
_BEHIND = ["", ".", ", thanks", "; 12 pieces", " (new)", " please"]
_FIRST, _LAST = (
    ["ada", "jürgen", "zofia", "miguel", "femke", "o.brien"],
    ["byron", "meyer", "nowak", "garcia", "jansen"],
)


def _digits(source: random.Random, count: int) -> str:
    return "".join(source.choice("0123456789") for _ in range(count))


def _email(source: random.Random) -> tuple[str, str]:
    name = f"{source.choice(_FIRST)}{source.choice('._-+')}{source.choice(_LAST)}{source.randrange(100)}"
    return "", f"{name}@{source.choice(['mail', 'post'])}.{source.choice(['example.com', 'example.co.uk', 'example'])}"


def _iban(source: random.Random) -> tuple[str, str]:
    country, length = source.choice([("DE", 18), ("NL", 14), ("ES", 20), ("PL", 24), ("GB", 18), ("NO", 11)])
    account = ("WEST" if country in {"GB", "NL"} else "") + _digits(source, length - 4 * (country in {"GB", "NL"}))
    number = int("".join(str(int(one, 36)) for one in f"{account}{country}00"))
    code = f"{country}{98 - number % 97:02}{account}"
    spaced = " ".join(code[at : at + 4] for at in range(0, len(code), 4))
    return source.choice(["", "IBAN "]), source.choice([code, code.lower(), spaced])


def _card(source: random.Random) -> tuple[str, str]:
    body = source.choice(["4", "51", "55", "2221", "6011"])
    body += _digits(source, 15 - len(body))
    check = next(str(digit) for digit in range(10) if _luhn(f"{body}{digit}") == 0)
    code = body + check
    gap = source.choice(["", " ", "-"])
    return source.choice(["", "card "]), gap.join(code[at : at + 4] for at in range(0, 16, 4))


def _luhn(code: str) -> int:
    return (
        sum(
            int(one) if at % 2 else (2 * int(one)) // 10 + 2 * int(one) % 10
            for at, one in enumerate(code, len(code) % 2)
        )
        % 10
    )


def _ip(source: random.Random) -> tuple[str, str]:
    four = ".".join(str(source.randint(1, 254)) for _ in range(4))
    six = "2001:db8:" + ":".join(f"{source.randrange(1, 16**4):x}" for _ in range(6))
    return "from ", source.choice([four, six, f"2001:db8::{source.randrange(1, 16**4):x}"])


def _phone(source: random.Random) -> tuple[str, str]:
    number = _digits(source, 7)
    return source.choice(
        [
            ("", f"+49 170 {number}"),
            ("", f"+48 22 {number[:3]} {number[3:5]} {number[5:]}"),
            ("", f"+1 (415) {source.randint(200, 999)}-{number[:4]}"),
            ("Tel. ", f"030 {number}"),
            ("phone: ", f"(030) {number[:3]}-{number[3:]}"),
            ("mobile ", f"0170/{number}"),
        ]
    )


def _us_ssn(source: random.Random) -> tuple[str, str]:
    return source.choice(
        ["", "SSN "]
    ), f"{source.randint(1, 665):03}-{source.randint(1, 99):02}-{source.randint(1, 9999):04}"


def _uk_nino(source: random.Random) -> tuple[str, str]:
    number = _digits(source, 6)
    first = source.choice(["AB", "CE", "JG", "PW"])
    code = source.choice([f"{first}{number}", f"{first} {number[:2]} {number[2:4]} {number[4:]} "])
    return "NI ", f"{code}{source.choice('ABCD')}"


def _de_steuer_id(source: random.Random) -> tuple[str, str]:
    while True:
        digits = source.sample("0123456789", 9)
        digits.insert(source.randrange(1, 9), source.choice(digits))
        if digits[0] != "0":
            break
    carry = 10
    for digit in map(int, digits):
        total = (digit + carry) % 10
        carry = (2 * (total or 10)) % 11
    check = 11 - carry
    code = "".join(digits) + str(0 if check == 10 else check)
    spaced = f"{code[:2]} {code[2:5]} {code[5:8]} {code[8:]}"
    return source.choice(["Steuer-ID ", "IdNr. ", "tax id: "]), source.choice([code, spaced])


def _pl_pesel(source: random.Random) -> tuple[str, str]:
    body = (
        f"{source.randrange(100):02}{source.choice([1, 12, 21, 32]):02}{source.randint(1, 28):02}{_digits(source, 4)}"
    )
    weighted = sum(int(one) * weight for one, weight in zip(body, [1, 3, 7, 9] * 3, strict=False))
    return "PESEL ", f"{body}{(10 - weighted % 10) % 10}"


def _es_dni(source: random.Random) -> tuple[str, str]:
    letters, number = "TRWAGMYFPDXBNJZSQVHLCKE", source.randrange(10**7)
    dni = f"{number:08}"
    return source.choice(
        [("DNI ", f"{dni}{letters[number % 23]}"), ("", f"X{number:07}{letters[number % 23]}")],
    )


def _nl_bsn(source: random.Random) -> tuple[str, str]:
    while True:
        code = str(source.randint(10**8, 10**9 - 1))
        if (sum((9 - at) * int(one) for at, one in enumerate(code[:8])) - int(code[8])) % 11 == 0:
            return "BSN ", code


MAKERS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "email": _email,
    "iban": _iban,
    "card": _card,
    "ip": _ip,
    "phone": _phone,
    "us_ssn": _us_ssn,
    "uk_nino": _uk_nino,
    "de_steuer_id": _de_steuer_id,
    "pl_pesel": _pl_pesel,
    "es_dni": _es_dni,
    "nl_bsn": _nl_bsn,
}


def _plain_row(source: random.Random, number: int) -> dict[str, object]:
    amount = f"{source.randrange(10**7)}.{source.randrange(100):02}"
    return {
        "order_id": f"ord_{source.randrange(16**12):012x}",
        "number": 4_500_000_000 + number,
        "date": f"20{source.randint(20, 29)}-{source.randint(1, 12):02}-{source.randint(1, 28):02}",
        "time": f"2026-11-{source.randint(1, 28):02}T{source.randint(0, 23):02}:{source.randint(0, 59):02}:00Z",
        "sku": f"SKU-{_digits(source, 3)}-{_digits(source, 4)}-{_digits(source, 2)}",
        "material": f"{source.randrange(10**8):08}",
        "product": {"name": source.choice(["Steel coil", "Bearing 6204-2RS", "Gasket DN50"]), "revision": "1.2.3"},
        "ean": _ean(source),
        "batch": f"20261123{_digits(source, 4)}",
        "amount": amount,
        "note": f"{source.randint(1, 500)} pieces of {_digits(source, 8)}, {amount} EUR, net 30 days, room {source.randint(1, 20)}.{source.randint(1, 20)}",
        "quantity": source.randint(1, 10**6),
        "position": {"x": source.random() * 180, "y": source.random() * 90},
        "email_verified": True,
        "name_template": "invoice",
    }


def _ean(source: random.Random) -> str:
    body = source.choice(["40", "59", "87"]) + _digits(source, 10)
    return body + str(-sum(int(one) * (3 if at % 2 else 1) for at, one in enumerate(body)) % 10)
