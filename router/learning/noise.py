"""How noisy ratings are, where pictures or raters are kept apart; and an oracle that is not paid for the noise.

A rating is of a cell (prompt and recipe), of one of its pictures (`seed`), by one person (`rater`). The intraclass
correlation (one-way, for groups of any sizes: Searle, Casella and McCulloch 1992, ch. 3) says how far one picture of a
cell tells of another, or one person's rating of a picture of another's: 1, if there is no noise.

An oracle that chooses by the scores it is judged by gains whatever is chance in them. Here it chooses by one half of
each cell's pictures (or, without several, of its raters) and is judged by the other half.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.learning.evaluation import apgr, curve
from router.learning.intervals import resampled
from router.learning.tables.rating import Rating

Array = NDArray[np.float64]
FEWEST = 20  # groups with several, or prompts, below which nothing is said


@dataclass(frozen=True)
class Noise:
    """pictures, raters: intraclass correlations, None where ratings do not tell;   cells, rated: from how many
    cells and pictures they come"""

    pictures: float | None
    raters: float | None
    cells: int
    rated: int


def noise_of(ratings: Iterable[Rating]) -> Noise:
    """Of ratings that name seeds or raters."""
    rows = list(ratings)
    by_picture: dict[tuple[str, str, str], list[float]] = {}
    for one in rows:
        if one.rater:
            by_picture.setdefault((one.prompt, one.recipe, one.seed), []).append(one.score)
    by_cell = {cell: list(pictures.values()) for cell, pictures in _pictures(rows).items()}
    several = [some for some in by_cell.values() if len(some) > 1]
    shared = [some for some in by_picture.values() if len(some) > 1]
    return Noise(correlation(list(by_cell.values())), correlation(list(by_picture.values())), len(several), len(shared))


def correlation(groups: Sequence[Sequence[float]]) -> float | None:
    """The intraclass correlation of scores in groups; None with fewer than `FEWEST` groups of several."""
    if sum(len(group) > 1 for group in groups) < FEWEST:
        return None
    sizes = np.array([len(group) for group in groups], np.float64)
    means = np.array([np.mean(group) for group in groups])
    total, count = sizes.sum(), len(groups)
    grand = float((sizes * means).sum() / total)
    between = float((sizes * (means - grand) ** 2).sum()) / (count - 1)
    within = sum(float(((np.array(g) - m) ** 2).sum()) for g, m in zip(groups, means, strict=True)) / (total - count)
    usual = (total - float((sizes**2).sum()) / total) / (count - 1)
    own = (between - within) / usual
    return float(np.clip(own / max(own + within, 1e-12), 0.0, 1.0))


def halves(ratings: Iterable[Rating]) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean scores of both halves of each cell (prompt, recipe) that can be parted: by pictures, else by raters."""
    rows = list(ratings)
    parts: dict[tuple[str, str], Mapping[Hashable, float]] = dict(_pictures(rows))
    raters: dict[tuple[str, str], dict[Hashable, list[float]]] = {}
    for one in rows:
        if one.rater:
            raters.setdefault((one.prompt, one.recipe), {}).setdefault(one.rater, []).append(one.score)
    for cell, said in raters.items():
        if len(parts.get(cell, ())) < 2:
            parts[cell] = {rater: float(np.mean(scores)) for rater, scores in said.items()}
    found = {}
    for cell, several in parts.items():
        if len(several) > 1:
            scores = [several[key] for key in sorted(several, key=str)]
            found[cell] = float(np.mean(scores[::2])), float(np.mean(scores[1::2]))
    return found


def oracle_apart(ratings: Iterable[Rating], cheap: str, strong: str) -> dict[str, Any] | None:
    """APGR with its interval of the oracle that is judged by the other half, both ways round; None where fewer than
    `FEWEST` prompts have both models in halves."""
    rows = list(ratings)
    groups = {one.prompt: one.group or one.prompt for one in rows}
    parted = halves(rows)
    prompts = [p for p in groups if (p, cheap) in parted and (p, strong) in parted]
    if len(prompts) < FEWEST:
        return None
    gain = np.array([np.subtract(parted[p, strong], parted[p, cheap]) for p in prompts])  # (n, 2)
    split = np.zeros(len(prompts), np.int64)

    def value(at: NDArray[np.int64]) -> float:
        return float(np.mean([apgr(curve(gain[at, one], gain[at, 1 - one], split[at])) for one in (0, 1)]))

    every = np.arange(len(prompts))
    return {"prompts": len(prompts), "apgr": value(every), "apgr_95": resampled(
        np.array([groups[p] for p in prompts]), value)}  # fmt: skip


def _pictures(rows: Sequence[Rating]) -> dict[tuple[str, str], dict[Hashable, float]]:
    """The mean score of each picture, by cell, of ratings that name the seed."""
    found: dict[tuple[str, str], dict[Hashable, list[float]]] = {}
    for one in rows:
        if one.seed:
            found.setdefault((one.prompt, one.recipe), {}).setdefault(one.seed, []).append(one.score)
    return {cell: {seed: float(np.mean(s)) for seed, s in some.items()} for cell, some in found.items()}
