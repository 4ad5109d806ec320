"""Where personal data ends: at the end of a sentence, before the next word, in other alphabets."""

from __future__ import annotations

import time

import pytest

from erp.security.privacy.redaction import redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ada.byron+po@mail.example.com.", "Write to [email]."),
        ("<jürgen@müller.example>", "<[email]>"),
        ("root@localhost", "[email]"),
        (f"{'a' * 70}@example.com", f"{'a' * 6}[email]"),
        ("Pay DE89370400440532013000 please", "Pay [iban] please"),
        ("DE89 3704 0044 0532 0130 00 please", "[iban] please"),
        ("BE68 5390 0754 7034 from us", "[iban] from us"),
        ("ES91 2100 0418 4502 0005 1332 thanks", "[iban] thanks"),
        ("gb82-west-1234-5698-7654-32.", "[iban]."),
        ("NO9386011117947 and BE68539007547034", "[iban] and [iban]"),
        ("Card 4111 1111 1111 1111.", "Card [card]."),
        ("4111-1111-1111-1111 2 pieces", "[card] 2 pieces"),
        ("2 4111111111111111", "2 [card]"),
        ("3782 822463 10005 or 6011000000000004", "[card] or [card]"),
        ("From 10.0.0.1.", "From [ip]."),
        ("From 10.0.0.1:8080", "From [ip]:8080"),
        ("2001:db8::8a2e:370:7334, ::1; fe80::1.", "[ip], [ip]; [ip]."),
        ("via ::ffff:192.0.2.128 now", "via [ip] now"),
        ("+49 (0)170 123-45 67", "[phone]"),
        ("+1 (415) 555-2671, thanks", "[phone], thanks"),
        ("0049 170 1234567", "[phone]"),
        ("Call 030 1234567 now", "Call [phone] now"),
        ("Tel.: (030) 123 45 67", "Tel.: [phone]"),
        ("phone number is 5551234", "phone number is [phone]"),
    ],
)
def test_personal_data_is_replaced_by_its_kind(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20 boxes @ 19.90 EUR",
        "10@19.90",
        "PO-2026-0001, 4500012345, 100000 pieces",
        "DE89370400440532013001",
        "4111 1111 1111 1112",
        "EAN 5901234123457",
        "EAN 4006381333931 and 4222222222222",
        "Version 1.2.3 of 2026-11-23, at 12:30:45",
        "256.1.1.1 std::vector ratio 1:2 :: x",
        "1 + 2 = 3",
        "99999999999999999999999999999999999",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redacted(text) == text


def test_names_go_whole_and_in_parts_but_not_inside_words() -> None:
    text = "ada byron, Ms Byron, Byronic, (Ada) Acme Inc. and Al"
    assert (
        redacted(text, names=["Ada Byron", "Acme Inc.", "Al"]) == "[name], Ms [name], Byronic, ([name]) [name] and Al"
    )


def test_names_are_no_patterns() -> None:
    assert redacted("a.c abc (x", names=["a.c", "(x", ".*"]) == "[name] abc (x"


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1 ",
        "a@",
        "1.",
        "DE89",
        "DE89 ",
        "4 ",
        "+1",
        "::",
        "a:",
        "(",
        "tel ",
        "00",
        "@",
        "ab.",
        "2.2.",
        "call 1",
    ],
)
def test_time_is_linear_in_the_length(piece: str) -> None:
    short, long = (piece * (size // len(piece)) for size in (20_000, 80_000))
    redacted(short)
    took = []
    for text in (short, long):
        started = time.process_time()
        redacted(text)
        took.append(time.process_time() - started)
    assert took[1] < 8 * took[0] + 0.05
    assert took[1] < 4.0
