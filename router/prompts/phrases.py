"""The objects that a prompt names, as phrases: "a red circle and a blue square" -> "a red circle", "a blue square".

English, by the word tables of `lexicon`; a phrase is opened by an article or a number and ends at the next stop word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from router.prompts.lexicon import ARTICLES, CONJUNCTIONS, MEDIA, NEGATIONS, NUMBERS, SPATIAL, STOPS, VAGUE_NUMBERS

_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[,;.:]")
_OPENERS = ARTICLES | {"the"}
_ENDS = STOPS | SPATIAL | CONJUNCTIONS | NEGATIONS | {".", ":"}
MOST_WORDS = 6


@dataclass(frozen=True)
class Phrase:
    """One object or group of a prompt. count: how many of it; 0: an unknown number ("many birds")."""

    text: str
    count: int = 1


def object_phrases(prompt: str) -> tuple[Phrase, ...]:
    """The phrases in the order of the prompt, without those about the medium or a place; empty if none is found."""
    tokens = _TOKEN.findall(prompt[:4_000].casefold())
    found = []
    for place, token in enumerate(tokens):
        if not _opens(token) or (place and tokens[place - 1] in NEGATIONS):
            continue
        words = _until_end(tokens[place + 1 : place + 1 + MOST_WORDS])
        if words and not MEDIA.intersection(words) and not _opens(words[0]):
            found.append(Phrase(" ".join((token, *words)), _count(token)))
    return tuple(found)


def _until_end(tokens: Sequence[str]) -> list[str]:
    words: list[str] = []
    for token in tokens:
        if token in _ENDS or (words and _opens(token)):
            break
        words.append(token)
    return words


def _opens(token: str) -> bool:
    return token in _OPENERS or token in NUMBERS or token in VAGUE_NUMBERS or token.isdigit()


def _count(token: str) -> int:
    if token in VAGUE_NUMBERS:
        return 0
    return int(token) if token.isdigit() else NUMBERS.get(token, 1)
