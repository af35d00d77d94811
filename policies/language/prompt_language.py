"""The language of a prompt, by script and by frequent small words. Good enough for a rule, not for linguistics."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_TEXT = 1_000  # characters that are looked at

_SCRIPTS = {  # first word of a letter's Unicode name -> language; scripts of several languages name the commonest
    "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CJK": "zh", "CYRILLIC": "ru", "ARABIC": "ar", "HEBREW": "he",
    "GREEK": "el", "DEVANAGARI": "hi", "THAI": "th",
}  # fmt: skip
_WORDS = {
    "en": "a an the and of in on with at to is are by from under above behind",
    "de": "ein eine einen einem einer der die das den dem und mit auf im über unter neben ist vor hinter von",
    "fr": "un une le la les des du et avec dans sur sous est au aux devant derrière",
    "es": "un una el los las del y con en sobre bajo es junto por encima",
    "it": "un una uno il lo gli della dello e con nel nella sopra sotto accanto di",
    "pt": "um uma o os as do da e com em no na sobre sob ao lado",
    "nl": "een het de en met op onder naast is van achter boven",
}
LANGUAGES = ("und", *_WORDS, *dict.fromkeys(_SCRIPTS.values()))
"""What `language_of` may answer; `und` is undetermined."""

_STOPS = {language: frozenset(words.split()) for language, words in _WORDS.items()}


@lru_cache(maxsize=1024)
def language_of(prompt: str) -> str:
    """The script's language if most letters are not Latin; else the one with most of its small words in the prompt.

    Latin text without any small word counts as English if it is ASCII (most prompts are a few English nouns), else as
    `und`. Ties go to English, then to the order above.
    """
    text = unicodedata.normalize("NFKC", prompt[:MAX_TEXT]).casefold()
    letters = [ch for ch in text if ch.isalpha()]
    found: dict[str, int] = {}
    for ch in letters:
        language = _SCRIPTS.get(unicodedata.name(ch, "").partition(" ")[0], "") if ch > "\u024f" else ""
        found[language] = found.get(language, 0) + 1
    foreign = {language: count for language, count in found.items() if language}
    if sum(foreign.values()) * 2 > len(letters):
        return "ja" if "ja" in foreign else max(foreign, key=lambda language: foreign[language])
    words = re.findall(r"[^\W\d_]+", text)
    counts = {language: sum(word in stops for word in words) for language, stops in _STOPS.items()}
    best = max(counts, key=lambda language: counts[language])
    if counts[best]:
        return best
    return "en" if letters and text.isascii() else "und"
