"""The objects that a prompt names, as phrases: "a red circle and a blue square" -> "a red circle", "a blue square".

English, by the word tables of `lexicon`; a phrase is opened by an article or a number and ends at the next stop word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from router.prompts.lexicon import ARTICLES, CONJUNCTIONS, MEDIA, NEGATIONS, NUMBERS, SPATIAL, STOPS, VAGUE_NUMBERS

_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[,;.:]")
_OPENERS = ARTICLES | {"the"}
_ENDS = STOPS | SPATIAL | CONJUNCTIONS | NEGATIONS | {".", ":"}
MOST_WORDS = 6
MOST_DIGITS = 9  # of a number that is counted; a longer one is an unknown number


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
    return token in _OPENERS or token in NUMBERS or token in VAGUE_NUMBERS or _whole(token) is not None


def _count(token: str) -> int:
    if token in VAGUE_NUMBERS:
        return 0
    number = _whole(token)
    return NUMBERS.get(token, 1) if number is None else number


def _whole(token: str) -> int | None:
    """The number that a token writes in digits of any script, or as a single character such as "²"; None if it is none.
    0 for one of more than `MOST_DIGITS`."""
    digits = unicodedata.normalize("NFKC", token) if len(token) == 1 else token
    if not digits.isdecimal():  # what is a digit to `isdigit` need not be one to `int`
        return None
    return int(digits) if len(digits) <= MOST_DIGITS else 0
