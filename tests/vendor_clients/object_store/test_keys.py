"""Names of keys: reversible, below their root, and prefixes stay prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erp.vendor_clients.object_store.keys import KeySpace

KEYS = st.text(st.one_of(st.sampled_from("/.%E\\\x00\n2"), st.characters(exclude_categories=["Cs"])), min_size=1)
SPACE = KeySpace.of("erp", "acme", "default", longest_bytes=1024)


@given(KEYS)
def test_a_name_stays_below_its_root_and_has_no_segment_that_leads_elsewhere(key: str) -> None:
    name = SPACE.name(key)

    assert name.startswith("erp/acme/default/")
    assert len(name.encode()) <= 1024
    assert not {"", ".", ".."} & set(name.split("/"))
    assert not any(character < " " or character == "\\" for character in name)


@given(KEYS)
def test_a_name_leads_back_to_its_key(key: str) -> None:
    name = SPACE.name(key)

    assert SPACE.is_long(name) or SPACE.key(name) == key


@given(st.integers(1, 1024), st.sampled_from(["x", "%", "\ufffe", "🔑", ".", "/", "\x80"]))
def test_it_is_known_without_the_name_whether_it_is_long_enough(length: int, character: str) -> None:
    assert SPACE.needs_more(character * length) == SPACE.is_long(SPACE.name(character * length))


@given(KEYS, KEYS)
def test_two_keys_never_have_the_same_name(one: str, other: str) -> None:
    assert (SPACE.name(one) == SPACE.name(other)) == (one == other)


@given(KEYS, KEYS)
def test_the_name_of_a_prefix_begins_the_names_of_its_keys_and_of_no_others(key: str, prefix: str) -> None:
    begins, is_cut = SPACE.prefix(prefix)

    assert not key.startswith(prefix) or SPACE.name(key).startswith(begins)
    assert is_cut or SPACE.is_long(SPACE.name(key)) or SPACE.name(key).startswith(begins) == key.startswith(prefix)


@given(KEYS, st.integers(0, 20))
def test_every_beginning_of_a_key_begins_its_name(key: str, length: int) -> None:
    assert SPACE.name(key).startswith(SPACE.prefix(key[:length])[0])


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("invoices/2026/Rechnung 1.pdf", "invoices/2026/Rechnung 1.pdf"),
        ("..", "%2E.%E"),
        ("a//b", "a/%E/b"),
        ("/a/", "%E/a/%E"),
        (".hidden/a.", "%2Ehidden/a.%E"),
        ("100%", "100%25"),
        ("a\nb", "a%0Ab"),
    ],
)
def test_names_are_what_the_documentation_says(key: str, name: str) -> None:
    assert SPACE.name(key) == f"erp/acme/default/{name}"


def test_slashes_in_the_names_of_tenants_do_not_make_them_alike() -> None:
    roots = {KeySpace.of("erp", *names, longest_bytes=1024).root for names in (("a/b", "c"), ("a", "b/c"), ("..", "c"))}

    assert roots == {"erp/a%2Fb/c/", "erp/a/b%2Fc/", "erp/%2E.%E/c/"}
