"""Lexical facts of a prompt, and the skills it asks for. English words; other scripts are counted, not understood.

`lexical_features` counts, `skill_signals` turns counts into 0..1. Both are pure, look at the first 4,000 characters,
and take well under a millisecond for a usual prompt.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping

from router.prompts.lexicon import (
    ARTICLES,
    COLOURS,
    COMPARISONS,
    CONJUNCTIONS,
    MATERIALS,
    MEDIA,
    NEGATIONS,
    NUMBERS,
    PEOPLE,
    SIZES,
    SPATIAL,
    SPATIAL_PHRASES,
    STOPS,
    STYLES,
    UNIVERSALS,
    VAGUE_NUMBERS,
    WRITING,
)

MAX_CHARACTERS = 4_000

_QUOTED = re.compile(r"\"[^\"\n]{1,200}\"|“[^”\n]{1,200}”|«[^»\n]{1,200}»|(?<!\w)['‘][^'’\n]{1,80}['’](?!\w)")
_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[,;]")
_PHRASES = re.compile("|".join(rf"\b{phrase}\b" for phrase in SPATIAL_PHRASES))
_WHOLE = re.compile(r"\d{1,3}")

FEATURES = (
    "characters", "words", "mean_word_length", "long_words", "unique_share", "sentences", "commas", "quoted_spans",
    "quoted_words", "writing_words", "numbers", "count_total", "vague_numbers", "colours", "distinct_colours",
    "materials", "sizes", "spatial_words", "spatial_phrases", "negations", "conjunctions", "objects", "universals",
    "comparisons", "people", "style_words", "digits", "uppercase_share", "non_ascii_share", "non_latin_share",
    "symbols",
)  # fmt: skip
"""Names and order of the features; a trained artefact records them and is refused if they differ."""

SIGNALS = (
    "text_rendering", "counting", "attribute_binding", "spatial_relation", "negation", "several_objects", "complexity",
)  # fmt: skip


def lexical_features(prompt: str) -> dict[str, float]:
    """The counts and shares named in `FEATURES`; zero for a prompt without words. Never raises on any text."""
    text = unicodedata.normalize("NFKC", prompt[:MAX_CHARACTERS])[:MAX_CHARACTERS]
    folded = text.casefold().replace("’", "'")
    tokens = _TOKEN.findall(folded)
    words = [token for token in tokens if token not in (",", ";")]
    quoted = _QUOTED.findall(text)
    numbers = _numbers(words)
    return {
        "characters": float(len(text)),
        "words": float(len(words)),
        "mean_word_length": sum(map(len, words)) / max(1, len(words)),
        "long_words": float(sum(len(word) > 8 for word in words)),
        "unique_share": len(set(words)) / max(1, len(words)),
        "sentences": float(max(1, len(re.findall(r"[.!?。！？]+(?:\s|$)", text)))),
        "commas": float(text.count(",")),
        "quoted_spans": float(len(quoted)),
        "quoted_words": float(sum(len(span.split()) for span in quoted)),
        "writing_words": _count(words, WRITING),
        "numbers": float(len(numbers)),
        "count_total": float(min(100, sum(numbers))),
        "vague_numbers": _count(words, VAGUE_NUMBERS),
        "colours": _count(words, COLOURS),
        "distinct_colours": float(len(COLOURS.intersection(words))),
        "materials": _count(words, MATERIALS),
        "sizes": _count(words, SIZES),
        "spatial_words": _count(words, SPATIAL),
        "spatial_phrases": float(len(_PHRASES.findall(folded))),
        "negations": _count(words, NEGATIONS),
        "conjunctions": _count(words, CONJUNCTIONS),
        "objects": float(_objects(tokens)),
        "universals": _count(words, UNIVERSALS),
        "comparisons": _count(words, COMPARISONS),
        "people": _count(words, PEOPLE),
        "style_words": _count(words, STYLES),
        "digits": float(sum(char.isdigit() for char in text)),
        **_shares(text),
    }


def skill_signals(features: Mapping[str, float]) -> dict[str, float]:
    """The skills of `SIGNALS` in 0..1, from `lexical_features`. Rules, not trained; each line below is its definition.

    `complexity` is 1 - exp(-load), where load adds up what has to be got right at once: half a point for each further
    object, relation and counted group, a quarter for each attribute, more for negated and written things, and a little
    for sheer length.
    """
    f = features
    attributes = f["colours"] + f["materials"] + f["sizes"]
    relations = max(f["spatial_phrases"], f["spatial_words"] / 2)
    signals = {
        "text_rendering": min(1.0, 0.7 * min(1.0, f["quoted_spans"]) + 0.35 * min(2.0, f["writing_words"])),
        "counting": _soft(1.2 * f["numbers"] + 0.15 * max(0.0, f["count_total"] - 2) + 0.4 * f["vague_numbers"]),
        "attribute_binding": _soft(0.8 * max(0.0, attributes - 1)) * (1.0 if f["objects"] > 1 else 0.5),
        "spatial_relation": _soft(0.9 * f["spatial_phrases"] + 0.7 * f["spatial_words"]),
        "negation": _soft(1.5 * f["negations"]),
        "several_objects": _soft(0.8 * (max(f["objects"], f["count_total"]) - 1)),
    }
    load = (
        0.5 * max(0.0, f["objects"] - 1)
        + 0.25 * attributes
        + 0.5 * relations
        + 0.5 * f["numbers"]
        + 0.6 * f["negations"]
        + 0.8 * min(1.0, f["quoted_spans"])
        + 0.2 * (f["universals"] + f["comparisons"])
        + f["words"] / 80
    )
    return {**signals, "complexity": _soft(load / 2)}


def _soft(load: float) -> float:
    """0 for none, 0.63 for one, towards 1 for many."""
    return 1.0 - math.exp(-max(0.0, load))


def _count(words: Iterable[str], table: frozenset[str]) -> float:
    return float(sum(map(table.__contains__, words)))


def _numbers(words: list[str]) -> list[int]:
    """Counts that are spoken of: number words and whole numbers from 2 to 100 ("8k", "3d" and years are none)."""
    found = [NUMBERS[word] for word in words if word in NUMBERS]
    return found + [int(word) for word in words if _WHOLE.fullmatch(word) and 2 <= int(word) <= 100]


def _objects(tokens: list[str]) -> int:
    """A lower bound of the things to be shown: phrases that an article or a number opens, or "and" continues.

    Phrases about the medium or a place ("a picture of", "on a black background", "the left") do not count.
    """
    if not tokens:
        return 0
    count, opened = 0, False
    for k, token in enumerate(tokens):
        continues = token in ("and", "&") and k + 1 < len(tokens) and not _opens(tokens[k + 1])
        if not _opens(token) and not continues:
            continue
        head: list[str] = []
        for word in tokens[k + 1 : k + 5]:
            if word in STOPS or _opens(word):
                break
            head.append(word)
        if not head or MEDIA.intersection(head):
            continue
        # "dog and cat": what stands before the first "and" was opened by nothing, and counts too.
        count += 2 if continues and not opened else 1
        opened = True
    return max(1, count)


def _opens(token: str) -> bool:
    return token in ARTICLES or token in NUMBERS or bool(_WHOLE.fullmatch(token))


def _shares(text: str) -> dict[str, float]:
    total = max(1, len(text))
    if text.isascii():  # the common case, at the speed of C
        letters = sum(map(str.isupper, text))
        return {"uppercase_share": letters / total, "non_ascii_share": 0.0, "non_latin_share": 0.0, "symbols": 0.0}
    beyond = [char for char in text if char > "\x7f"]
    latin = sum(char.isalpha() and char < "\u0250" for char in beyond)
    foreign = sum(char.isalpha() for char in beyond) - latin
    return {
        "uppercase_share": sum(map(str.isupper, text)) / total,
        "non_ascii_share": len(beyond) / total,
        "non_latin_share": foreign / total,
        "symbols": float(sum(unicodedata.category(char) in ("So", "Sk") for char in beyond)),
    }
