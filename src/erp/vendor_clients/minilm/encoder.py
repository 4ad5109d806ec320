"""Texts to vectors. One loaded model serves the whole process (200 MB), whoever asks for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from erp.vendor_clients.minilm import graph, release
from erp.vendor_clients.minilm.installed import ModelDamagedError, folder_in, verify

_MAX_THREADS = 2
_BATCH_TOKENS = 2_048
"""Padding included. Bounds the memory of one run; larger batches are no faster on a processor."""

_loaded: WeakValueDictionary[Path, Encoder] = WeakValueDictionary()
_loading = threading.Lock()


class EncodingStoppedError(Exception):
    """The caller no longer wants the vectors."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the model saw it."""

    vector: list[float]
    """Of length one."""
    tokens: int
    """Read by the model, its two marks included."""
    truncated: bool


class Encoder:
    """The loaded model. Safe to use from several threads; they take turns batch by batch."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _open_tokenizer(folder / release.TOKENIZER)
        self._session = _open_session(folder / release.GRAPH)
        self._turn = threading.Lock()

    def count(self, text: str) -> int:
        """Return how many tokens ``text`` has, the two marks included, however long it is."""
        return len(self._tokenizer.encode(text).ids)

    def encode(self, texts: Sequence[str], stop: threading.Event | None = None) -> list[Encoded]:
        """Return one vector for each text, in order; only the first 256 tokens of a text are read.

        Neighbours in a batch change a vector by less than one part in a million.

        Raises:
            EncodingStoppedError: ``stop`` was set before the end.
        """
        rows = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        vectors: dict[int, list[float]] = {}
        for batch in _batches(order, rows):
            if stop is not None and stop.is_set():
                raise EncodingStoppedError
            vectors.update(zip(batch, self._run([_cut(rows[index]) for index in batch]), strict=True))
        return [
            Encoded(vectors[index], min(len(row), release.MAX_TOKENS), len(row) > release.MAX_TOKENS)
            for index, row in enumerate(rows)
        ]

    def _run(self, rows: list[list[int]]) -> list[list[float]]:
        import numpy as np

        width = max(len(row) for row in rows)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        with self._turn:
            (vectors,) = self._session.run([graph.OUTPUT], dict(zip(graph.INPUTS, (ids, mask), strict=True)))
        found: list[list[float]] = vectors.tolist()
        return found


def shared_encoder(models_dir: Path) -> Encoder:
    """Return the process's one loaded model of ``models_dir``, loading it first (1 s) when nobody holds it.

    Raises:
        ModelDamagedError: The files are not the installed ones or cannot be loaded.
    """
    folder = folder_in(models_dir).resolve()
    with _loading:
        encoder = _loaded.get(folder)
        if encoder is None:
            verify(models_dir)
            encoder = _load(folder)
            _loaded[folder] = encoder
        return encoder


def _load(folder: Path) -> Encoder:
    try:
        return Encoder(folder)
    except ImportError:
        raise
    except Exception as error:  # the libraries raise plain and private exceptions
        raise ModelDamagedError(f"{release.MODEL_NAME} cannot be loaded: {error}") from error


def _open_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    # The file asks for padding to and cutting at 128 tokens, a leftover of its training.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _open_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _cut(row: list[int]) -> list[int]:
    return row if len(row) <= release.MAX_TOKENS else [*row[: release.MAX_TOKENS - 1], row[-1]]


def _batches(order: list[int], rows: list[list[int]]) -> list[list[int]]:
    """Group indexes of rows, shortest first, so that a padded group stays below the limit of tokens."""
    groups: list[list[int]] = []
    for index in order:
        width = min(len(rows[index]), release.MAX_TOKENS)
        if not groups or (len(groups[-1]) + 1) * width > _BATCH_TOKENS:
            groups.append([])
        groups[-1].append(index)
    return groups
