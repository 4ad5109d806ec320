"""Sorting texts by labels nobody trained: a text belongs to the label whose description lies nearest."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice

from erp.contracts.models.ai import Classification, ClassifyRequest, Label, LabelScore
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError
from erp.vendor_clients.minilm.encoder import Encoded

Vector = Sequence[float]


class Centres(list[list[float]]):
    """One direction for each label, in the order of the request."""


class KnownLabels:
    """The directions of the sets of labels that were asked for last; a set is the same in call after call."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._found: OrderedDict[tuple[object, ...], tuple[Centres, int]] = OrderedDict()
        self._lock = threading.Lock()

    def centres(
        self, model: str, labels: Sequence[Label], encode: Callable[[list[str]], Sequence[Encoded]]
    ) -> tuple[Centres, int]:
        """Return the directions of ``labels`` and the tokens read for them, working them out where they are new."""
        meant = [label_texts(label) for label in labels]
        key = (model, *map(tuple, meant))
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
                return found
        encoded = encode([text for group in meant for text in group])
        found = centres(encoded, [len(group) for group in meant]), sum(one.tokens for one in encoded)
        with self._lock:
            self._found[key] = found
            if len(self._found) > self._most:
                self._found.popitem(last=False)
        return found


def require_unique(labels: Sequence[Label]) -> None:
    """Refuse two labels of one name."""
    names = [label.name for label in labels]
    errors = [
        FieldError(f"/params/labels/{index}/name", f"{name!r} is named twice.")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if errors:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Names of labels have to be unique.", errors=errors)


def label_texts(label: Label) -> list[str]:
    """Return what stands for a label: its name in words with its description, and its examples."""
    readable = " ".join(label.name.replace("_", " ").replace("-", " ").split()) or label.name
    described = readable if label.description is UNSET else f"{readable}: {label.description}"
    return [described, *([] if label.examples is UNSET else label.examples)]


def centres(encoded: Sequence[Encoded], sizes: Sequence[int]) -> Centres:
    """Return the direction between the vectors of each group of ``sizes``."""
    vectors = iter(encoded)
    return Centres(_centre([one.vector for one in islice(vectors, size)]) for size in sizes)


def classify(text: Encoded, centres: Centres, request: ClassifyRequest, sharpness: float) -> Classification:
    """Score all labels for one text, best first."""
    nearness = [sum(a * b for a, b in zip(text.vector, centre, strict=True)) for centre in centres]
    scores = _independent(nearness) if request.multi_label else _exclusive(nearness, sharpness)
    named = zip((label.name for label in request.labels), scores, strict=True)
    ranked = sorted((LabelScore(label=name, score=score) for name, score in named), key=lambda one: -one.score)
    best = ranked[0]
    label = best.label if best.score >= request.minimum_score else None
    return Classification(label=label, scores=ranked, truncated=text.truncated)


def _centre(vectors: Sequence[Vector]) -> list[float]:
    total = [sum(column) for column in zip(*vectors, strict=True)]
    length = math.sqrt(sum(value * value for value in total))
    return [value / length for value in total] if length > 0.0 else total


def _exclusive(nearness: Sequence[float], sharpness: float) -> list[float]:
    """Softmax: the scores add up to one."""
    highest = max(nearness)
    powers = [math.exp((value - highest) * sharpness) for value in nearness]
    total = sum(powers)
    return [power / total for power in powers]


def _independent(nearness: Sequence[float]) -> list[float]:
    """Each cosine between zero and one; not calibrated."""
    return [min(max(value, 0.0), 1.0) for value in nearness]
