"""Lists of words and phrases against prompts, in time linear in the prompt.

Words are compared as Unicode's compatible forms (NFKC) without case: `ｆｕｌｌ` is `Full`. Scripts that put no spaces
between words are searched as they stand.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")

Phrase = tuple[str, ...]


def found_in(text: str, words: Sequence[str], unless: Sequence[str] = ()) -> tuple[str, ...]:
    """Those of `words` that the text has outside of the phrases of `unless`, as they are written in the list."""
    plain = _plain(text)
    tokens = _WORD.findall(plain)
    covered = [False] * len(tokens)
    for start, phrase in _hits(tokens, _index(tuple(unless))):
        covered[start : start + len(phrase)] = [True] * len(phrase)
    names = _names(tuple(words))
    found = {
        names[phrase]
        for start, phrase in _hits(tokens, _index(tuple(words)))
        if not all(covered[start : start + len(phrase)])
    }
    spared = plain
    for spelt in _unspaced(tuple(unless)):
        spared = spared.replace(spelt, " ")
    found |= {word for word in words if (plain_word := _plain(word)) in _unspaced((word,)) and plain_word in spared}
    return tuple(word for word in words if word in found)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@lru_cache(maxsize=256)
def _unspaced(words: tuple[str, ...]) -> tuple[str, ...]:
    """Those of scripts without spaces."""
    return tuple(plain for plain in map(_plain, words) if _UNSPACED.search(plain))


@lru_cache(maxsize=256)
def _names(words: tuple[str, ...]) -> dict[Phrase, str]:
    return {tuple(_WORD.findall(_plain(word))): word for word in reversed(words)}


@lru_cache(maxsize=256)
def _index(words: tuple[str, ...]) -> dict[str, tuple[Phrase, ...]]:
    """Phrases by their first word."""
    made: dict[str, list[Phrase]] = {}
    for phrase in _names(words):
        if phrase:
            made.setdefault(phrase[0], []).append(phrase)
    return {first: tuple(phrases) for first, phrases in made.items()}


def _hits(tokens: Sequence[str], index: dict[str, tuple[Phrase, ...]]) -> list[tuple[int, Phrase]]:
    """(where it begins, phrase) of every phrase among the tokens."""
    return [
        (start, phrase)
        for start, token in enumerate(tokens)
        for phrase in index.get(token, ())
        if tuple(tokens[start : start + len(phrase)]) == phrase
    ]
