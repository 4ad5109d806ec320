"""Treats personal data on its way to others: texts for models, payloads of webhooks.

What is looked at is what the contract marks. Tokens that this call has made, and no others, are turned back in its answer:
whoever puts a token of somewhere else into a prompt does not learn what it stands for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from erp.security.privacy.marks import marks_of
from erp.security.privacy.scanning import changed_where_marked, treated_where_marked

if TYPE_CHECKING:
    from erp.runtime.action import Action
    from erp.runtime.context import CallContext
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.plan import Method
    from erp.security.privacy.guard import PrivacyGuard
    from erp.security.privacy.settings import Use
    from erp.security.privacy.treatment import Treatment, Treatments

LONG_BYTES = 16 * 1024
"""A longer request is looked through in a thread: the event loop would stand still for more than five milliseconds."""


def use_of(manifest: ProviderManifest, action: Action) -> Use | None:
    """Return what the requests of an action are for where they carry texts to others; None: they do not."""
    if manifest.domain == "ai":
        return "prompts" if _marks(action) else None
    return "webhooks" if "outgoing_webhooks" in manifest.capabilities and action.name == "trigger" else None


@cache
def _marks(action: Action) -> Mapping[str, str]:
    return marks_of(action.contract["params"], {})


@cache
def _marks_of_answer(action: Action) -> Mapping[str, str]:
    return marks_of(action.contract["result"], {})


class OutgoingTexts:
    """Wraps the methods of providers that carry texts to others. Implements ``plan.Outgoing``."""

    def __init__(self, guard: PrivacyGuard, treatments: Treatments) -> None:
        self._guard = guard
        self._treatments = treatments

    def __call__(self, method: Method, manifest: ProviderManifest, connection: str, action: Action) -> Method:
        """Return ``method`` as the pipeline shall run it."""
        use = use_of(manifest, action)
        if use is None:
            return method
        is_own = manifest.domain == "ai" and manifest.embedded

        async def prepared(request: Any, tenant: str) -> tuple[Any, Tokens]:
            settings = await self._guard.settings(tenant)
            treatment = settings.treatment_at(use, manifest.ref, connection, is_own=is_own)
            return await self._treated(request, tenant, treatment, _marks(action))

        async def run(request: Any, context: CallContext) -> Any:
            request, tokens = await prepared(request, context.tenant)
            result = await method(request, context)
            return tokens.restored(result, _marks_of_answer(action)) if tokens else result

        async def stream(request: Any, context: CallContext) -> AsyncGenerator[Any]:
            request, tokens = await prepared(request, context.tenant)
            source = cast("AsyncGenerator[Any]", method(request, context))
            whole = _restored(source, tokens, _marks_of_answer(action)) if tokens else source
            async with aclosing(whole) as items:
                async for item in items:
                    yield item

        return cast("Method", stream) if action.streaming else run

    async def _treated(
        self, request: Any, tenant: str, treatment: Treatment, marks: Mapping[str, str]
    ) -> tuple[Any, Tokens]:
        tokens = Tokens()
        if treatment == "none":
            return request, tokens
        replacement = self._treatments.of(tenant, treatment)
        if treatment == "tokenise":
            replacement = tokens.noting(replacement)
        if len(msgspec.json.encode(request)) > LONG_BYTES:
            return await asyncio.to_thread(treated_where_marked, request, replacement, marks), tokens
        return treated_where_marked(request, replacement, marks), tokens


class Tokens(dict[str, str]):
    """The tokens that one call has made, and what they stand for."""

    def noting(self, replacement: Callable[[str, str], str]) -> Callable[[str, str], str]:
        """Return ``replacement``, remembering what it makes."""

        def noted(kind: str, value: str) -> str:
            token = replacement(kind, value)
            self[token] = value
            return token

        return noted

    def text(self, text: str, *, is_json: bool = False) -> str:
        """Return ``text`` with the tokens turned back; ``is_json``: it is a piece of a JSON text."""
        for token, value in self.items():
            if token in text:
                text = text.replace(token, json.dumps(value, ensure_ascii=False)[1:-1] if is_json else value)
        return text

    def restored(self, answer: Any, marks: Mapping[str, str]) -> Any:
        """Return an answer with the tokens turned back where its contract marks texts; what is opaque stays as it came."""
        return changed_where_marked(answer, marks, lambda value, _: self._within(value))

    def _within(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(key): self._within(item) for key, item in value.items()}
            case list():
                return [self._within(item) for item in value]
            case _:
                return value

    def begun(self, text: str) -> int:
        """Return how many characters at the end of ``text`` may be the beginning of a token."""
        longest = max(map(len, self), default=1) - 1
        for start in range(max(len(text) - longest, 0), len(text)):
            tail = text[start:]
            if any(token.startswith(tail) for token in self):
                return len(tail)
        return 0


async def _restored(source: AsyncGenerator[Any], tokens: Tokens, marks: Mapping[str, str]) -> AsyncGenerator[Any]:
    """Yield the items of a streamed answer with the tokens turned back, also those that pieces cut in two."""
    held: Any = None  # an item whose text may be the beginning of a token
    async with aclosing(source) as items:
        async for item in items:
            if held is not None and not _continues(held, item):
                yield _with_text(held, held.text, tokens)
                held = None
            if not _is_piece(item):
                yield tokens.restored(item, marks)
                continue
            text = item.text if held is None else held.text + item.text
            kept = tokens.begun(text)
            if kept < len(text):
                yield _with_text(item, text[: len(text) - kept], tokens)
            held = msgspec.structs.replace(item, text=text[len(text) - kept :]) if kept else None
    if held is not None:
        yield _with_text(held, held.text, tokens)


def _is_piece(item: Any) -> bool:
    return isinstance(getattr(item, "text", None), str)


def _continues(held: Any, item: Any) -> bool:
    return _is_piece(item) and (item.type, item.index) == (held.type, held.index)


def _with_text(item: Any, text: str, tokens: Tokens) -> Any:
    return msgspec.structs.replace(item, text=tokens.text(text, is_json=item.type == "tool_arguments"))
