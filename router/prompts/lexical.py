"""Lexical facts of a prompt, and the skills it asks for. English words; other scripts are counted, not understood.

`lexical_features` counts, `skill_signals` turns counts into 0..1. Both are pure, look at the first 4,000 characters,
and take well under a millisecond for a usual prompt.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from itertools import filterfalse

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
_SENTENCES = re.compile(r"[.!?。！？]+(?:\s|$)")
_DIGIT = re.compile(r"\d")
_MARKS = frozenset(",;")
_WHOLE = frozenset(f"{k:0{width}}" for width in (1, 2, 3) for k in range(10**width))
_NUMBERS = {word: int(word) for word in _WHOLE if 2 <= int(word) <= 100} | NUMBERS
"""Counts that are spoken of: number words and whole numbers from 2 to 100 ("8k", "3d" and years are none)."""
_OPENING = frozenset({*ARTICLES, *NUMBERS, *_WHOLE})
LONG = 9  # letters of a long word

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
    if not folded.isascii():  # digits of any script are digits
        folded = _DIGIT.sub(lambda digit: str(int(digit.group())), folded)
    tokens = _TOKEN.findall(folded)
    # Every prompt passes here, so counting runs through built-in functions over whole lists.
    words = list(filterfalse(_MARKS.__contains__, tokens))
    lengths, count = list(map(len, words)), max(1, len(words))
    quoted = _QUOTED.findall(text)
    numbers = list(filter(None, map(_NUMBERS.get, words)))
    return {
        "characters": float(len(text)),
        "words": float(len(words)),
        "mean_word_length": sum(lengths) / count,
        "long_words": float(sum(map(LONG.__le__, lengths))),
        "unique_share": len(set(words)) / count,
        "sentences": float(max(1, len(_SENTENCES.findall(text)))),
        "commas": float(text.count(",")),
        "quoted_spans": float(len(quoted)),
        "quoted_words": float(sum(map(len, map(str.split, quoted)))),
        "writing_words": float(sum(map(WRITING.__contains__, words))),
        "numbers": float(len(numbers)),
        "count_total": float(min(100, sum(numbers))),
        "vague_numbers": float(sum(map(VAGUE_NUMBERS.__contains__, words))),
        "colours": float(sum(map(COLOURS.__contains__, words))),
        "distinct_colours": float(len(COLOURS.intersection(words))),
        "materials": float(sum(map(MATERIALS.__contains__, words))),
        "sizes": float(sum(map(SIZES.__contains__, words))),
        "spatial_words": float(sum(map(SPATIAL.__contains__, words))),
        "spatial_phrases": float(len(_PHRASES.findall(folded))),
        "negations": float(sum(map(NEGATIONS.__contains__, words))),
        "conjunctions": float(sum(map(CONJUNCTIONS.__contains__, words))),
        "objects": float(_objects(tokens)),
        "universals": float(sum(map(UNIVERSALS.__contains__, words))),
        "comparisons": float(sum(map(COMPARISONS.__contains__, words))),
        "people": float(sum(map(PEOPLE.__contains__, words))),
        "style_words": float(sum(map(STYLES.__contains__, words))),
        "digits": float(sum(map(str.isdigit, text))),
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
    # 1 - exp(-load): 0 for nothing that is asked for, 0.63 for one thing, towards 1 for many.
    counting = 1.2 * f["numbers"] + 0.15 * max(0.0, f["count_total"] - 2) + 0.4 * f["vague_numbers"]
    binding = 1.0 - math.exp(-0.8 * max(0.0, attributes - 1))
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
    return {
        "text_rendering": min(1.0, 0.7 * min(1.0, f["quoted_spans"]) + 0.35 * min(2.0, f["writing_words"])),
        "counting": 1.0 - math.exp(-max(0.0, counting)),
        "attribute_binding": binding * (1.0 if f["objects"] > 1 else 0.5),
        "spatial_relation": 1.0 - math.exp(-max(0.0, 0.9 * f["spatial_phrases"] + 0.7 * f["spatial_words"])),
        "negation": 1.0 - math.exp(-max(0.0, 1.5 * f["negations"])),
        "several_objects": 1.0 - math.exp(-max(0.0, 0.8 * (max(f["objects"], f["count_total"]) - 1))),
        "complexity": 1.0 - math.exp(-max(0.0, load / 2)),
    }


def _objects(tokens: list[str]) -> int:
    """A lower bound of the things to be shown: phrases that an article or a number opens, or "and" continues.

    Phrases about the medium or a place ("a picture of", "on a black background", "the left") do not count.
    """
    if not tokens:
        return 0
    count, opened = 0, False
    opens = list(map(_OPENING.__contains__, tokens))
    for k, token in enumerate(tokens):
        continues = token in ("and", "&") and k + 1 < len(tokens) and not opens[k + 1]
        if not opens[k] and not continues:
            continue
        head: list[str] = []
        for place in range(k + 1, min(k + 5, len(tokens))):
            if opens[place] or tokens[place] in STOPS:
                break
            head.append(tokens[place])
        if not head or MEDIA.intersection(head):
            continue
        # "dog and cat": what stands before the first "and" was opened by nothing, and counts too.
        count += 2 if continues and not opened else 1
        opened = True
    return max(1, count)


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
