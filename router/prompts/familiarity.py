"""How familiar a prompt is: by cosine to a small set of reference embeddings, and, where what the models' captions say
is little enough to be listed, by whether they ever said it. Embeddings alone do not tell: "a white circle" is very near
to "a red circle", and a model that never saw one draws something else.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from router.prompts.lexicon import ARTICLES, COLOURS, MATERIALS, NUMBERS, SIZES, STOPS
from router.types import Catalogue

UNSAID = 0.4
"""What is left of the familiarity for each thing that no caption said: one alone puts a prompt out of range (< 0.5)."""

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[.,;:!?]")
_ATTRIBUTES = frozenset({*NUMBERS, *SIZES, *COLOURS, *MATERIALS})
_EMPTY = STOPS | ARTICLES

ANCHORS = 256
NEIGHBOURS = 3
NEAR_QUANTILE = 0.05


@dataclass(frozen=True)
class Domain:
    """references (a, d), unit rows; near: similarity that 95 % of held-out training prompts reach."""

    references: NDArray[np.float32] = field(repr=False)
    near: float

    def familiarity(self, embedding: NDArray[np.float32]) -> float:
        """1.0 from `near` upwards, falling linearly to 0.0 at half of it."""
        top = np.sort(self.references @ embedding)[-NEIGHBOURS:]
        return min(1.0, max(0.0, 2 * float(top.mean()) / max(self.near, 1e-6) - 1))


def fit_domain(embeddings: NDArray[np.float32], groups: tuple[str, ...], seed: int) -> Domain:
    """Choose references at random, one per group first, and measure how near the other groups' prompts are to them."""
    order = np.random.default_rng(seed).permutation(len(groups))
    first = {groups[k]: int(k) for k in order[::-1]}
    chosen = np.array(sorted(first.values(), key=lambda k: int(np.flatnonzero(order == k)[0]))[:ANCHORS])
    references = embeddings[chosen]
    cosine = embeddings @ references.T
    codes = np.unique(groups, return_inverse=True)[1]
    cosine[codes[:, None] == codes[chosen][None]] = -1.0  # a prompt is not held out from its own group
    near = np.sort(cosine, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    return Domain(np.ascontiguousarray(references, dtype=np.float32), float(np.quantile(near, NEAR_QUANTILE)))


def sayings(text: str) -> set[str]:
    """What a text says: its words, and each number, size, colour or material with the word after it ("red circle")."""
    words = _WORD.findall(text.casefold())
    said = {
        f"{one} {next_}"
        for one, next_ in pairwise(words)
        if one in _ATTRIBUTES and next_ not in _EMPTY and next_.isalnum()
    }
    return said | {word for word in words if word[0].isalnum()}


def unsaid(prompt: str, words: Collection[str]) -> tuple[str, ...]:
    """What the prompt says and `words` do not have, in its order: words, and pairs of words that are known alone."""
    strange: list[str] = []
    for one in sorted(sayings(prompt), key=lambda one: (prompt.casefold().find(one), one)):
        parts = one.split()
        known = one in words or (len(parts) == 1 and one in _EMPTY)
        if not known and (len(parts) == 1 or all(part in words for part in parts)):
            strange.append(one)
    return tuple(strange)


def vocabulary_of(catalogue: Catalogue | None) -> frozenset[str]:
    """What any model of an installation may draw; empty if one that makes pictures does not list what it knows."""
    if catalogue is None:
        return frozenset()
    bases = [card for model in catalogue.ids() if (card := catalogue[model]).role == "base"]
    if not all(card.words for card in bases):
        return frozenset()
    return frozenset().union(*(card.words for card in bases))
