"""A provider of models that says exactly what it was given: ``provider.py`` of ``ai/recorder``, which tests drop in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from erp.contracts.models.ai import (
    Answer,
    ChatRequest,
    ChatResult,
    Embedding,
    EmbedRequest,
    EmbedResult,
    ListModelsRequest,
    ListModelsResult,
    StreamChatRequest,
    StreamChatResult,
    Usage,
)
from erp.runtime.spi import CallContext, Config, ErrorTable, Health, OpenContext


class Recorder:
    """Writes each request to a file, and answers with the words it was given."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._file = Path(config["file"])

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def health(self) -> Health:
        """It is always there."""
        return Health(status="ok")

    def _record(self, request: msgspec.Struct) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(msgspec.to_builtins(request)) + "\n")

    async def list_models(self, request: ListModelsRequest, context: CallContext) -> ListModelsResult:
        """There are none."""
        return ListModelsResult(items=[])

    async def embed(self, request: EmbedRequest, context: CallContext) -> EmbedResult:
        """Every text has the same vector."""
        self._record(request)
        vectors = [Embedding(vector=[1.0]) for _ in request.texts]
        return EmbedResult(model="recorder", dimensions=1, embeddings=vectors, usage=usage())

    async def chat(self, request: ChatRequest, context: CallContext) -> ChatResult:
        """Answer with the last message, as text, as arguments of a tool and as data."""
        self._record(request)
        made = answer(str(request.messages[-1].text))
        return msgspec.convert(msgspec.to_builtins(made), ChatResult)

    async def stream_chat(self, request: StreamChatRequest, context: CallContext) -> AsyncIterator[StreamChatResult]:
        """Answer with the last message three characters at a time, then as arguments of a tool."""
        self._record(request)
        text = str(request.messages[-1].text)
        yield StreamChatResult(type="start", model="recorder")
        for start in range(0, len(text), 3):
            yield StreamChatResult(type="text", index=0, text=text[start : start + 3])
        arguments = json.dumps({"to": text})
        for start in range(0, len(arguments), 7):
            yield StreamChatResult(type="tool_arguments", index=1, text=arguments[start : start + 7])
        yield StreamChatResult(type="end", answer=answer(text))


def usage() -> Usage:
    """What nothing costs."""
    return Usage(input_tokens=1, output_tokens=1)


def answer(text: str) -> Any:
    """An answer that says ``text`` in every place an answer has."""
    parts = [
        {"type": "text", "text": text},
        {"type": "tool_call", "id": "call_1", "name": "send", "arguments": {"to": text}, "state": text},
    ]
    return Answer(model="recorder", text=text, parts=parts, data={"said": text}, finish_reason="stop", usage=usage())
