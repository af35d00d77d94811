"""Ridge on the words and pieces of words of a prompt: what an embedding blurs ("without", "left of", rare nouns).

N-grams of one and two words, and of two to five characters within a word, each kind as a tf-idf vector of unit length.
An n-gram is known by its CRC-32, so an artefact holds numbers and none of the prompts that it was trained on.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.quality.blocks import Block

Array = NDArray[np.float64]
MAX_CHARACTERS = 1_000  # of a prompt; what follows rarely changes what it is about
MAX_GRAMS = 20_000  # of a kind: those of the most prompts
USUAL_LENGTH = 24  # of a word, in characters
MIN_PROMPTS = 3  # an n-gram of fewer prompts teaches nothing
PENALTY = 2.0  # times the kernel's penalty in the same direction: both kernels are 1 at distance 0
KINDS = ("words", "pieces")

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[^\w\s]")


@dataclass(frozen=True)
class GramRidge:
    """For each of `KINDS`, rows of n-grams with their CRC-32 in ascending order: keys (g,), idf (g,), slope (g, c)."""

    keys: tuple[NDArray[np.uint32], ...]
    idf: tuple[Array, ...]
    slope: tuple[Array, ...]

    def predict(self, prompts: Sequence[str]) -> Array:
        """What the n-grams add to the columns' means, shape (n, c)."""
        return np.stack([self._one(prompt) for prompt in prompts])

    def _one(self, prompt: str) -> Array:
        total = np.zeros(self.slope[0].shape[1])
        for kind, keys, idf, slope in zip(grams_of(prompt), self.keys, self.idf, self.slope, strict=True):
            places, values = _vector(kind, keys, idf)
            total += values @ slope[places]
        return total


def grams_of(prompt: str) -> tuple[Counter[int], Counter[int]]:
    """How often each n-gram occurs, by its CRC-32: words, and pieces of words."""
    text = unicodedata.normalize("NFKC", prompt[:MAX_CHARACTERS])[:MAX_CHARACTERS].casefold()
    found = _WORD.findall(text)
    words = [word.encode("utf-8", "replace") for word in found]
    pairs = [b" ".join(pair) for pair in pairwise(words)]
    pieces = (_usual_pieces(word) if len(word) <= USUAL_LENGTH else _pieces(word) for word in found)
    return Counter(map(zlib.crc32, words + pairs)), Counter(chain.from_iterable(pieces))


def _pieces(word: str) -> tuple[int, ...]:
    padded = f" {word} "
    pieces = (padded[start : start + size] for size in range(2, 6) for start in range(max(1, len(padded) - size + 1)))
    return tuple(zlib.crc32(piece.encode("utf-8", "replace")) for piece in pieces)


_usual_pieces = functools.lru_cache(maxsize=2048)(_pieces)
"""Prompts are made of the same words again and again; some 2 MB of them."""


def _vector(counts: Counter[int], keys: NDArray[np.uint32], idf: Array) -> tuple[NDArray[np.int64], Array]:
    """Places among `keys` and values of a prompt's known n-grams, 1/sqrt(2) long so that both kinds make length one."""
    found = np.fromiter(counts, np.uint32, len(counts))
    often = np.fromiter(counts.values(), np.float64, len(counts))
    places = np.searchsorted(keys, found)
    known = np.take(keys, places, mode="clip") == found if len(keys) else np.zeros(len(found), bool)
    places, values = places[known], (1 + np.log(often[known])) * idf[places[known]]
    return places, values / max(np.sqrt(2 * (values**2).sum()), 1e-12)


def fit_grams(prompts: Sequence[str], blocks: Sequence[Block], columns: int, penalties: Sequence[Array]) -> GramRidge:
    """Fit the blocks' targets, each direction with `PENALTY` times the penalty that the kernel has in it."""
    from scipy.sparse import csr_matrix, diags_array, hstack
    from scipy.sparse.linalg import lsqr

    counted = [grams_of(prompt) for prompt in prompts]
    keys, idf, parts = [], [], []
    for kind in range(len(KINDS)):
        known, weight = _vocabulary([counts[kind] for counts in counted])
        rows = [_vector(counts[kind], known, weight) for counts in counted]
        ends = np.cumsum([0, *(len(places) for places, _ in rows)])
        flat: list[Any] = [np.concatenate([row[k] for row in rows]) for k in (1, 0)]
        parts.append(csr_matrix((flat[0], flat[1], ends), shape=(len(prompts), len(known))))
        keys.append(known)
        idf.append(weight)
    inputs = hstack(parts, format="csr")
    slope = np.zeros((inputs.shape[1], columns))
    for block, penalty in zip(blocks, penalties, strict=True) if len(slope) else ():
        root = np.sqrt(block.weights)
        rated = diags_array(root) @ inputs[np.flatnonzero(block.rows)]
        found = [
            lsqr(rated, root * target, damp=float(np.sqrt(PENALTY * p)), atol=1e-5, btol=1e-5, iter_lim=200)[0]
            for target, p in zip(block.targets.T, penalty, strict=True)
        ]
        slope[:, block.columns] = np.stack(found, axis=1) @ block.directions.T
    return GramRidge(tuple(keys), tuple(idf), tuple(np.split(slope, [len(keys[0])])))


def _vocabulary(counted: Sequence[Counter[int]]) -> tuple[NDArray[np.uint32], Array]:
    """The n-grams of enough prompts, ascending, and their smoothed inverse document frequency."""
    prompts_with = Counter(gram for counts in counted for gram in counts)
    common = [(gram, n) for gram, n in prompts_with.most_common(MAX_GRAMS) if n >= MIN_PROMPTS]
    common.sort()
    frequency = np.array([n for _, n in common], dtype=np.float64)
    return np.array([gram for gram, _ in common], dtype=np.uint32), np.log((1 + len(counted)) / (1 + frequency)) + 1
