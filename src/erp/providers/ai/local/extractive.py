"""Summaries made of the text's own sentences: nothing is written, so nothing can be invented."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from erp.providers.ai.local.hashing import Features, features_of, likeness, words_of

MODEL_NAME: Final = "extractive-1"

_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]+|\n\s*\n\s*|\n\s*(?=[-*\u2022])")
_ABBREVIATION = re.compile(
    r"\b(?:[^\W\d_]|no|nr|vs|mr|mrs|ms|dr|st|art|bzw|ca|etc|ggf|inkl|usw|approx|incl|ltd|inc|corp|str|qty)\.\s*$",
    re.IGNORECASE,
)
_LOOK_BACK = 12
_LEAD_BONUS = 0.03
_REPETITION_PENALTY = 0.5
_CANDIDATES = 200


@dataclass(frozen=True, slots=True)
class Sentence:
    """A passage of the text and where it stands (Unicode code points)."""

    start: int
    end: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Passages in the order of the text."""

    text: str
    quotes: list[tuple[int, int]]
    tokens: int
    was_cut: bool
    """True when not even one sentence fitted and it was cut at a word."""


def summarize(text: str, *, max_sentences: int | None, max_words: int | None) -> Summary:
    """Choose the sentences that stand for most of the text without repeating each other."""
    sentences = split_sentences(text)
    wanted = len(sentences) if max_sentences is None else max_sentences
    chosen = _fitting(_ranked(sentences, wanted), wanted, max_words)
    if not chosen and sentences:
        return _cut_sentence(text, sentences[0], max_words or 1)
    chosen.sort(key=lambda sentence: sentence.start)
    return Summary(
        text=" ".join(text[sentence.start : sentence.end] for sentence in chosen),
        quotes=[(sentence.start, sentence.end) for sentence in chosen],
        tokens=sum(len(sentence.words) for sentence in chosen),
        was_cut=False,
    )


def split_sentences(text: str) -> list[Sentence]:
    """Split at full stops, empty lines and list marks, not after short abbreviations; passages without a word are left out."""
    ends = [match.end() for match in _END.finditer(text) if not _is_abbreviation(text, match.end())]
    sentences = []
    for start, end in pairwise([0, *ends, len(text)]):
        passage = text[start:end]
        words = tuple(words_of(passage))
        if words:
            begin = start + len(passage) - len(passage.lstrip())
            sentences.append(Sentence(begin, begin + len(passage.strip()), words))
    return sentences


def _is_abbreviation(text: str, end: int) -> bool:
    return _ABBREVIATION.search(text, max(0, end - _LOOK_BACK), end) is not None


def _ranked(sentences: list[Sentence], wanted: int) -> list[Sentence]:
    """Order by nearness to the whole text, less what is already chosen."""
    whole = features_of([word for sentence in sentences for word in sentence.words])
    features = [features_of(sentence.words) for sentence in sentences]
    scores = {index: likeness(feature, whole) + _LEAD_BONUS / (1 + index) for index, feature in enumerate(features)}
    order = sorted(scores, key=lambda index: (-scores[index], index))
    depth = min(wanted, _CANDIDATES)
    candidates, rest = order[: max(depth * 3, 30)][:_CANDIDATES], order
    chosen = _without_repetition(candidates, scores, features, depth)
    taken = set(chosen)
    return [sentences[index] for index in chosen + [index for index in rest if index not in taken]]


def _without_repetition(
    candidates: list[int], scores: dict[int, float], features: list[Features], depth: int
) -> list[int]:
    chosen: list[int] = []
    repeated = dict.fromkeys(candidates, 0.0)
    while repeated and len(chosen) < depth:
        best = max(repeated, key=lambda index: (scores[index] - _REPETITION_PENALTY * repeated[index], -index))
        del repeated[best]
        chosen.append(best)
        for index, nearest in repeated.items():
            repeated[index] = max(nearest, likeness(features[index], features[best]))
    return chosen


def _fitting(ranked: list[Sentence], wanted: int, max_words: int | None) -> list[Sentence]:
    chosen: list[Sentence] = []
    left = max_words
    for sentence in ranked:
        if len(chosen) == wanted:
            break
        if left is None or len(sentence.words) <= left:
            chosen.append(sentence)
            left = None if left is None else left - len(sentence.words)
    return chosen


def _cut_sentence(text: str, sentence: Sentence, max_words: int) -> Summary:
    matches = list(re.finditer(r"\w+", text[sentence.start : sentence.end]))[:max_words]
    end = sentence.start + matches[-1].end()
    return Summary(text[sentence.start : end], [(sentence.start, end)], len(matches), was_cut=True)
