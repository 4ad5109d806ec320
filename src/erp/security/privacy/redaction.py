"""Takes personal data out of free text before it reaches logs, events or models."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from erp.security.privacy.recognisers import Hit, hits


def redacted(text: str, *, names: Iterable[str] = ()) -> str:
    """Return ``text`` with personal data replaced by what kind it was, for example ``[email]``.

    Errs on the side of taking too much: the words of ``names`` go wherever they stand.
    """
    return replaced(text, hits(text, names=names), lambda kind, _: f"[{kind}]")


def replaced(text: str, found: Iterable[Hit], replacement: Callable[[str, str], str]) -> str:
    """Return ``text`` with every hit replaced by ``replacement(kind, value)``."""
    parts: list[str] = []
    done = 0
    for start, end, kind in found:
        parts += (text[done:start], replacement(kind, text[start:end]))
        done = end
    return "".join((*parts, text[done:]))
