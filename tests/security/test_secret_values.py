"""Values that secrets get by themselves."""

from __future__ import annotations

import base64
import re

import pytest

from erp.security.secret_values import password, random_text


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ({}, r"[A-Za-z0-9_-]{43}"),
        ({"format": "hex", "bytes": 16}, r"[0-9a-f]{32}"),
        ({"format": "whsec", "bytes": 24}, r"whsec_[A-Za-z0-9+/]{32}"),
        ({"bytes": 64}, r"[A-Za-z0-9_-]{86}"),
    ],
)
def test_random_bytes_are_as_many_and_in_the_form_asked_for(source: dict[str, object], pattern: str) -> None:
    made = {random_text(source) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(pattern, one) for one in made)


def test_a_signing_secret_is_one_of_standard_webhooks() -> None:
    made = random_text({"format": "whsec"})
    assert len(base64.b64decode(made.removeprefix("whsec_"), validate=True)) == 32


def test_a_password_has_characters_of_every_class_and_no_others() -> None:
    made = {password({"length": 12, "symbols": "!"}) for _ in range(200)}
    assert len(made) == 200
    for one in made:
        assert re.fullmatch(r"[A-Za-z0-9!]{12}", one)
        assert all(re.search(kind, one) for kind in ("[a-z]", "[A-Z]", "[0-9]", "!"))
    assert all(re.fullmatch(r"[A-Za-z0-9]{12}", password({"length": 12, "symbols": ""})) for _ in range(50))
    assert len(password({})) == 32
