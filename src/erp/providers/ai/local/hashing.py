"""Lexical vectors without any model: words and pieces of words, hashed into 384 numbers.

Texts are near when they share spellings, in any language; meaning is unknown to it. It needs nothing but Python
and is the same on every machine.
"""

from __future__ import annotations

import math
import re
import threading
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

from erp.vendor_clients.minilm.encoder import Encoded, EncodingStoppedError

_WORD = re.compile(r"\w+")
_PIECES = (3, 4, 5)
_PIECE_WEIGHT = 0.7
_FULL_WEIGHT_LENGTH = 6
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]")

Features = dict[int, float]


class HashingEmbedder:
    """The visible fallback ``hashing-384``."""

    name = "hashing-384"
    dimensions = 384
    sharpness = 6.0
    """Factor from cosine to the exponent of softmax; found on texts of orders and complaints."""

    def count(self, text: str) -> int:
        """Return the number of words."""
        return len(words_of(text))

    def encode(self, texts: Sequence[str], stop: threading.Event | None = None) -> list[Encoded]:
        """Return one vector of length one for each text, in order; nothing is ever cut."""
        encoded = []
        for text in texts:
            if stop is not None and stop.is_set():
                raise EncodingStoppedError
            words = words_of(text)
            features = features_of(words)
            vector = [features.get(place, 0.0) for place in range(self.dimensions)]
            encoded.append(Encoded(vector, len(words), truncated=False))
        return encoded


def words_of(text: str) -> list[str]:
    """Split into words that compare without case, accents' encoding and width."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def features_of(words: Sequence[str]) -> Features:
    """Return place -> weight, of length one. A text without a word has a place of its own."""
    features: Counter[int] = Counter()
    for word, times in Counter(words).items():
        weight = (1.0 + math.log(times)) * min(len(word), _FULL_WEIGHT_LENGTH) / _FULL_WEIGHT_LENGTH
        for piece, share in _pieces(word):
            code = zlib.crc32(piece.encode("utf-8", "surrogatepass"))
            sign = 1.0 if code & 1 else -1.0
            features[(code >> 1) % HashingEmbedder.dimensions] += sign * weight * share  # type: ignore[assignment]
    length = math.sqrt(sum(value * value for value in features.values()))
    if length == 0.0:
        return {0: 1.0}
    return {place: value / length for place, value in features.items()}


def likeness(one: Features, other: Features) -> float:
    """Return the cosine."""
    if len(one) > len(other):
        one, other = other, one
    return sum(value * other.get(place, 0.0) for place, value in one.items())


def _pieces(word: str) -> Iterator[tuple[str, float]]:
    """Yield the word and its pieces with their share; scripts without spaces live on pairs of characters."""
    yield word, 1.0
    if _CJK.search(word):
        yield from ((word[start : start + 2], 1.0) for start in range(len(word) - 1))
        return
    bordered = f"<{word}>"
    pieces = [bordered[start : start + size] for size in _PIECES for start in range(len(bordered) - size + 1)]
    share = _PIECE_WEIGHT / math.sqrt(len(pieces)) if pieces else 0.0
    yield from ((f"~{piece}", share) for piece in pieces)
