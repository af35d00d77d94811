"""How near a prompt is to what a predictor was trained on, by cosine to a small set of reference embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
