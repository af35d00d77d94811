"""The language of a prompt: py3langid's probabilities, and what is known of prompts beforehand.

Three words are little for a library that learned from articles, so its probabilities are weighted by two things: most
prompts are English, and prompts are full of small words and colours, which tell neighbouring languages apart.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache, lru_cache
from typing import Any

MAX_TEXT = 1_000  # characters that are looked at
ENGLISH_PRIOR = 4.0  # how much likelier English is beforehand than any other language
WORD_WEIGHT = 4.0  # of each word below that the prompt holds
MOST_WORDS = 4
LEAST_SHARE = 0.3  # of all languages' weight that the first must have

_WORDS = {
    "en": "a an the and of in on with at to is are by from under above behind without no red blue green yellow black "
    "white",
    "de": "ein eine einen einem einer der die das den dem und mit auf im in über unter neben ist vor hinter von ohne "
    "rot rote roter rotes roten blau blaue blauer grün grüne grüner gelb gelbe gelber schwarz schwarze weiß weiße",
    "fr": "un une le la les des du de et avec dans sur sous est au aux devant derrière sans rouge bleu bleue vert "
    "verte jaune noir noire blanc blanche",
    "es": "un una el la los las del de y con en sobre bajo es junto por encima sin rojo roja azul verde amarillo "
    "amarilla negro negra blanco blanca",
    "it": "un una uno il la lo gli della dello di e con in nel nella sopra sotto accanto senza rosso rossa blu verde "
    "giallo gialla nero nera bianco bianca",
    "pt": "um uma o os as do da de e com em no na sobre sob ao lado sem vermelho vermelha azul verde amarelo amarela "
    "preto preta branco branca",
    "nl": "een het de en in met op onder naast is van achter boven zonder rode rood blauwe blauw groene gele zwarte "
    "zwart witte",
}
LANGUAGES = ("und", *_WORDS, "ja", "ko", "zh", "ru", "ar", "he", "el", "hi", "th")
"""What `language_of` may answer; `und` is undetermined."""

_KNOWN = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_LOADING = threading.Lock()


@lru_cache(maxsize=1024)
def language_of(prompt: str) -> str:
    """One of `LANGUAGES`; `und` for a text without letters or without a likeliest language.

    The first call loads the library's model, which takes about a second, unless `warm_up` did; later ones take tens of
    microseconds.
    """
    text = unicodedata.normalize("NFKC", prompt[:MAX_TEXT])
    words = re.findall(r"[^\W\d_]+", text.casefold())
    if max(map(len, words), default=0) < 2 and "".join(words).isascii():
        return "und"
    with _LOADING:
        identifier = _identifier()
    weights = {language: share * _prior(language, words) for language, share in identifier.rank(text)}
    best = max(weights, key=lambda language: weights[language])
    return best if weights[best] > LEAST_SHARE * sum(weights.values()) else "und"


def _prior(language: str, words: list[str]) -> float:
    known = sum(word in _KNOWN.get(language, ()) for word in words)
    return (ENGLISH_PRIOR if language == "en" else 1.0) * WORD_WEIGHT ** min(MOST_WORDS, known)


def warm_up() -> threading.Thread:
    """Loads the library's model beside whatever goes on, so that no request waits for it; the thread that does."""

    def load() -> None:
        with _LOADING:
            _identifier()

    thread = threading.Thread(target=load, name="prompt-language", daemon=True)
    thread.start()
    return thread


@cache
def _identifier() -> Any:
    # Imported here: a policy that asks for no language does not pay for the model.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([language for language in LANGUAGES if language != "und"])
    return identifier
