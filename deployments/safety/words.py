"""Lists of words and phrases against prompts, in time linear in the prompt.

Both are compared as Unicode's compatible forms (NFKC) without case and without what cannot be seen: `ｆｕｌｌ` is
`Full`, and a zero-width space inside a word is not there. An entry of words is found as these words in a row, whatever
punctuation stands between them. One that begins or ends in a symbol (`c++`), or has one (`🔞`), is found as it is
written, and so are scripts that put no spaces between words; an end that is a letter is still the end of a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Fillers and variation selectors, which are no format characters by their category."""

Span = tuple[int, int]
Phrase = tuple[str, ...]


def found_in(text: str, words: Sequence[str], unless: Sequence[str] = ()) -> tuple[str, ...]:
    """Those of `words` that the text has outside of the phrases of `unless`, as they are written in the list."""
    plain = _plain(text)
    covered = bytearray(len(plain))
    for _, spans in _hits(plain, _list(tuple(unless))):
        start, end = spans[0][0], spans[-1][1]
        covered[start:end] = b"\1" * (end - start)
    found = {
        entry
        for entry, spans in _hits(plain, _list(tuple(words)))
        if any(0 in covered[start:end] for start, end in spans)
    }
    return tuple(word for word in words if _plain(word) in found)


def _plain(text: str) -> str:
    composed = unicodedata.normalize("NFKC", text)
    seen = "".join(
        char for char in _UNSEEN.sub("", composed) if char.isspace() or unicodedata.category(char) not in ("Cf", "Cc")
    )
    return " ".join(unicodedata.normalize("NFKC", seen).casefold().split())


@dataclass(frozen=True)
class _List:
    """Entries in plain form. phrases: by their first word, with the entry;   literal: found as they are written"""

    phrases: dict[str, tuple[tuple[Phrase, str], ...]]
    literal: tuple[str, ...]


@lru_cache(maxsize=256)
def _list(entries: tuple[str, ...]) -> _List:
    phrases: dict[str, list[tuple[Phrase, str]]] = {}
    literal: list[str] = []
    for plain in dict.fromkeys(map(_plain, entries)):
        if _literal(plain):
            literal.append(plain)
        elif phrase := tuple(_WORD.findall(plain)):
            phrases.setdefault(phrase[0], []).append((phrase, plain))
    return _List({first: tuple(all_) for first, all_ in phrases.items()}, tuple(literal))


def _literal(plain: str) -> bool:
    """Whether words alone would not say what an entry says."""
    if not plain:
        return False
    ends = not (_WORD.match(plain[0]) and _WORD.match(plain[-1]))
    return ends or bool(_UNSPACED.search(plain)) or any(unicodedata.category(char)[0] == "S" for char in plain)


def _hits(plain: str, entries: _List) -> Iterator[tuple[str, tuple[Span, ...]]]:
    """(entry, where its words stand) of every entry in a plain text."""
    tokens = [(match.group(), match.span()) for match in _WORD.finditer(plain)] if entries.phrases else []
    for number, (token, _) in enumerate(tokens):
        for phrase, entry in entries.phrases.get(token, ()):
            part = tokens[number : number + len(phrase)]
            if tuple(word for word, _ in part) == phrase:
                yield entry, tuple(span for _, span in part)
    for entry in entries.literal:
        start = plain.find(entry)
        while start >= 0:
            end = start + len(entry)
            if not (_joined(plain, start) or _joined(plain, end)):
                yield entry, ((start, end),)
            start = plain.find(entry, start + 1)


def _joined(plain: str, at: int) -> bool:
    """Whether the characters before and at a place are of one word of a script with spaces."""
    return 0 < at < len(plain) and all(
        _WORD.match(char) and not _UNSPACED.match(char) for char in plain[at - 1 : at + 1]
    )
