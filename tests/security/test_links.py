from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest

from erp.errors import ProviderError
from erp.security.links import SealedLinks

PEPPER = b"p" * 32
DUE = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def links(now: float = 0.0, pepper: bytes = PEPPER) -> SealedLinks:
    return SealedLinks(pepper, "https://erp.example", clock=lambda: now)


def token(made: SealedLinks, **claims: str) -> str:
    url = made.of("acme", "storage", "filesystem", "archive").make("objects", claims, expires_at=DUE)
    head, _, found = url.rpartition("/")
    assert head == "https://erp.example/objects"
    return found


def test_what_a_link_says_is_what_it_was_made_with() -> None:
    link = links().open("objects", token(links(), method="GET", key="ä/ö"))
    assert (link.tenant, link.domain, link.provider, link.connection) == ("acme", "storage", "filesystem", "archive")
    assert (link.claims, link.expires_at) == ({"method": "GET", "key": "ä/ö"}, DUE.timestamp())


def test_a_link_says_nothing_to_who_has_no_key_and_no_two_are_alike() -> None:
    first, second = (token(links(), method="GET", key="salaries.csv") for _ in range(2))
    assert first != second
    assert len(first) == len(second)


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text[:-1],
        lambda text: ("B" if text[0] == "A" else "A") + text[1:],
        lambda text: text + "A",
        lambda _: "",
        lambda _: "é",
    ],
)
def test_a_link_that_was_changed_is_no_link(changed: Callable[[str], str]) -> None:
    with pytest.raises(ProviderError) as refused:
        links().open("objects", changed(token(links())))
    assert refused.value.code == "not_found"


def test_a_link_of_another_installation_is_no_link() -> None:
    with pytest.raises(ProviderError) as refused:
        links().open("objects", token(links(pepper=b"q" * 32)))
    assert refused.value.code == "not_found"


def test_a_link_for_objects_receives_no_webhooks() -> None:
    with pytest.raises(ProviderError) as refused:
        links().open("webhooks", token(links()))
    assert refused.value.code == "not_found"


def test_a_link_ends_at_its_time_and_not_before() -> None:
    made = token(links())
    assert links(DUE.timestamp() - 0.001).open("objects", made).tenant == "acme"
    with pytest.raises(ProviderError) as refused:
        links(DUE.timestamp()).open("objects", made)
    assert refused.value.code == "permission_denied"


def test_a_link_without_an_end_stays_good() -> None:
    url = links().of("acme", "integration", "webhook", "default").make("webhooks", {"receiver": "r1"})
    assert links(1e12).open("webhooks", url.rsplit("/", 1)[1]).claims == {"receiver": "r1"}
