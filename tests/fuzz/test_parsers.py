"""What reads credentials, cursors, links and envelopes: no input makes it fail in another way than it says, or pass."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings
from tests.conftest import MemoryVault

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, key_text
from erp.errors import ProviderError
from erp.security.envelope import seal, unseal
from erp.security.keyring import Keyring
from erp.security.links import SealedLinks
from erp.security.tokens import GATEWAY, Tokens, looks_like_token

pytestmark = pytest.mark.timeout(120)

bounded = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TEXT = st.text(st.characters(codec=None), max_size=200)
BASE64ISH = st.text("ABCDwxyz0189-_.=+/", max_size=200)


def changed(text: str) -> st.SearchStrategy[str]:
    """``text`` with one character, a piece or its end changed; never the text itself."""
    places = st.integers(0, len(text) - 1)
    swapped = st.builds(lambda at, new: text[:at] + new + text[at + 1 :], places, st.characters(codec=None))
    cut = st.builds(lambda at: text[:at], places)
    grown = st.builds(lambda more: text + more, st.text("=\n A0-_", min_size=1, max_size=3))
    return st.one_of(swapped, cut, grown).filter(lambda found: found != text)


KEY = key_text.mint().text


@bounded
@given(st.one_of(TEXT, BASE64ISH, changed(KEY)))
def test_nothing_but_a_key_is_a_key(text: str) -> None:
    found = key_text.key_id(text)
    assert found is None or (len(text) == len(KEY) and text.isascii() and found == text[10:21])


@bounded
@given(st.one_of(TEXT, BASE64ISH))
@example("\ud800")
@example(base64.urlsafe_b64encode(b"[" * 100_000).decode())
@example(base64.urlsafe_b64encode(b'{"a":' * 50_000).decode())
def test_a_cursor_is_read_or_refused(text: str) -> None:
    for kind in (tuple[int, str], tuple[str, str], int, str):
        try:
            found: object = cursors.read(text, kind)
        except ProviderError as error:
            found = error.code
        assert found is ErrorCode.INVALID_ARGUMENT or isinstance(found, tuple | int | str)


@bounded
@given(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=50)))
def test_a_cursor_comes_back_as_it_was_written(place: tuple[int, str]) -> None:
    assert cursors.read(cursors.written(place), tuple[int, str]) == place


LINKS = SealedLinks(b"pepper", "https://erp.example")
LINK = LINKS.of("acme", "storage", "filesystem", "default").make("objects", {"key": "a", "method": "GET"})
TOKEN = LINK.rpartition("/")[2]


@bounded
@given(st.one_of(TEXT, BASE64ISH, changed(TOKEN)))
def test_no_changed_link_opens(text: str) -> None:
    with pytest.raises(ProviderError) as refused:
        LINKS.open("objects", text)
    assert refused.value.code is ErrorCode.NOT_FOUND


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring.open(tmp_path_factory.mktemp("keys"))


@bounded
@given(data=st.data())
def test_no_changed_envelope_opens(keyring: Keyring, data: st.DataObject) -> None:
    key_id, envelope = asyncio.run(seal(keyring, b"value", tenant="acme", path="a/b", version=1))
    at = data.draw(st.integers(0, len(envelope) - 1))
    bit = data.draw(st.integers(1, 255))
    wrong = data.draw(
        st.sampled_from(
            (
                envelope[:at] + bytes([envelope[at] ^ bit]) + envelope[at + 1 :],
                envelope[:at],
                envelope + bytes([bit]),
                data.draw(st.binary(max_size=100)),
            )
        )
    )
    with pytest.raises(ProviderError) as refused:
        asyncio.run(unseal(keyring, key_id, wrong, tenant="acme", path="a/b", version=1))
    assert refused.value.code is ErrorCode.INTERNAL


@bounded
@given(st.tuples(*[st.text("ab/#1", max_size=4)] * 2, st.integers(0, 12)))
def test_an_envelope_opens_nowhere_but_in_its_place(keyring: Keyring, place: tuple[str, str, int]) -> None:
    key_id, envelope = asyncio.run(seal(keyring, b"value", tenant="a", path="b/1", version=1))
    tenant, path, version = place
    if place == ("a", "b/1", 1):
        assert asyncio.run(unseal(keyring, key_id, envelope, tenant=tenant, path=path, version=version)) == b"value"
        return
    with pytest.raises(ProviderError):
        asyncio.run(unseal(keyring, key_id, envelope, tenant=tenant, path=path, version=version))


class Issued:
    """A token and its maker, on a loop of their own: hypothesis calls plain functions."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tokens = Tokens(MemoryVault())
        facts: dict[str, Any] = {"subject": "key_1", "client_id": "key_1", "roles": ["viewer"], "scopes": []}
        self.text = self.run(self.tokens.issue("acme", audience=GATEWAY, seconds=900, **facts))[0]

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)


@pytest.fixture(scope="module")
def issued() -> Any:
    made = Issued()
    assert made.run(made.tokens.check(made.text)).tenant == "acme"
    yield made
    made.loop.close()


@bounded
@given(data=st.data())
def test_no_changed_token_is_good(issued: Issued, data: st.DataObject) -> None:
    text = data.draw(st.one_of(changed(issued.text), TEXT, BASE64ISH))
    looks_like_token(text)
    assert issued.run(issued.tokens.check(text)) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@bounded
@given(header=st.dictionaries(st.sampled_from(("alg", "typ", "kid", "crit", "jwk", "b64", "zip")), JSON), claims=JSON)
@example(header={"alg": "none", "typ": "at+jwt", "kid": "acme.1"}, claims={"tenant": "acme"})
@example(header={"alg": "Ed25519", "typ": "at+jwt", "kid": "acme.999999999"}, claims={})
def test_no_token_with_a_made_up_head_is_good(issued: Issued, header: Any, claims: Any) -> None:
    import msgspec

    parts = [base64.urlsafe_b64encode(msgspec.json.encode(part)).decode().rstrip("=") for part in (header, claims)]
    signature = issued.text.rpartition(".")[2]
    assert issued.run(issued.tokens.check(".".join([*parts, signature]))) is None
