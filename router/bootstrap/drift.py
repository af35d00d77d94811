"""Whether what was predicted is still what is found: a calibration test that may be looked at whenever one likes.

    x(t) = found(t) - predicted(t)                  of one recipe, or of one recipe on prompts that ask for one skill

As long as predictions are right on average, to within a margin, whoever bets that x is above the margin (or below)
makes no money; the capital ever exceeds 1 / level with at most the probability `level` (Ville; the bets are those of
`router.learning.intervals`). What drifts has been right for long before, and a bettor who began at the start would need
as long to notice. So the capital is parted among bettors who begin every `EVERY` pictures, in shares that were fixed
beforehand: the sum is as honest as each of them, and forgets (as in Shin, Ramdas and Rinaldo 2022,
https://arxiv.org/abs/2203.03532).

All recipes and skills that are looked at share one level: with it, *nothing* is told of predictions that stay right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.learning.intervals import STAKES, resampled_mean
from router.prompts.lexical import SIGNALS, skill_signals

Array = NDArray[np.float64]
LEVEL, MARGIN = 0.05, 0.03
EVERY = 40  # pictures between the starts of two bettors
ASKED = 0.5  # of a skill's signal, from which on a prompt asks for it
WINDOWS = 6


@dataclass(frozen=True)
class Observed:
    """A first picture of a recipe that was chosen before anybody saw it. recipe: its key;   features: of the prompt;
    predicted, found: quality, 0..1"""

    recipe: str
    features: Mapping[str, float] = field(repr=False)
    predicted: float
    found: float
    at_s: float = 0.0


@dataclass(frozen=True)
class Cell:
    """What was predicted and found of a recipe, in order of time. skill: "" for all prompts;   pictures: how many
    off: mean of found less predicted since `since`, with an interval of 95 % that is not valid at every look
    told: number of the picture, from 1, at which the test told of drift; None if it did not
    since, at_s: from where on the bets went that told it (else: of the last window), and when it was told
    windows: (pictures, predicted, found) of equal parts, oldest first"""

    recipe: str
    skill: str
    pictures: int
    off: tuple[float, float, float]
    told: int | None
    since: int
    at_s: float | None
    windows: tuple[tuple[int, float, float], ...] = field(repr=False)


def watch(
    observed: Sequence[Observed], recipes: Sequence[str], level: float = LEVEL, margin: float = MARGIN
) -> list[Cell]:
    """Every recipe, and every skill that its prompts asked for; what drifted first. recipes: keys of all that may be
    seen, whether they were or not, since the level is theirs together."""
    found = []
    for recipe in recipes:
        mine = [one for one in observed if one.recipe == recipe]
        asked = [skills_of(one.features) for one in mine]
        for skill in ("", *SIGNALS):
            rows = [one for one, skills in zip(mine, asked, strict=True) if not skill or skill in skills]
            if rows:
                # Half of the level is for recipes as a whole, half for their skills.
                share = level / 2 / len(recipes) / (len(SIGNALS) if skill else 1)
                found.append(_cell(recipe, skill, rows, share, margin))
    return sorted(found, key=lambda cell: (cell.told is None, -abs(cell.off[0]), cell.recipe, cell.skill))


def skills_of(features: Mapping[str, float]) -> set[str]:
    """The skills that a prompt with these lexical features asks for."""
    return {name for name, signal in skill_signals(features).items() if signal >= ASKED}


def told_at(x: Array, level: float, margin: float) -> tuple[int, int] | None:
    """The number of summands, from 1, after which it is told that their mean is beyond the margin, and the number from
    which on the most successful bettor went; None if it is not. x (n,): in -1..1"""
    best: tuple[int, int] | None = None
    for side in (x, -x):
        capital, parts = _capital(side, margin)
        over = np.flatnonzero(capital >= -np.log(level / 2))
        if len(over) and (best is None or over[0] + 1 < best[0]):
            at = int(over[0])
            best = at + 1, int(parts[:, at].argmax()) * EVERY
    return best


def _capital(x: Array, margin: float) -> tuple[Array, Array]:
    """The logarithm of the capital after each summand, (n,), of someone who bets that the mean is above the margin, and
    of each bettor (starts, n)."""
    won = np.cumsum(np.log1p(STAKES[:, None] * (x - margin) / (1 + margin)), axis=1)  # (stakes, n)
    starts = np.arange(0, max(1, len(x)), EVERY)
    number = np.arange(len(starts), dtype=np.float64)
    shares = -np.log((number + 1) * (number + 2))
    parts = np.empty((len(starts), len(x)))
    for k, start in enumerate(starts):
        before = won[:, [start - 1]] if start else np.zeros((len(STAKES), 1))
        since = won - before
        since[:, :start] = 0.0
        most = since.max(axis=0)
        parts[k] = shares[k] + most + np.log(np.exp(since - most).mean(axis=0))
    idle = 1 / (len(starts) + 1)  # of those who have not begun
    most = parts.max(axis=0)
    return most + np.log(np.exp(parts - most).sum(axis=0) + idle * np.exp(-most)), parts


def _cell(recipe: str, skill: str, rows: Sequence[Observed], level: float, margin: float) -> Cell:
    x = np.array([one.found - one.predicted for one in rows])
    told = told_at(x, level, margin)
    parts = [part for part in np.array_split(np.arange(len(rows)), min(WINDOWS, len(rows))) if len(part)]
    since = told[1] if told else int(parts[-1][0])
    low, high = resampled_mean(x[since:])
    windows = tuple(
        (len(part), float(np.mean([rows[k].predicted for k in part])), float(np.mean([rows[k].found for k in part])))
        for part in parts
    )
    at_s = rows[told[0] - 1].at_s if told else None
    off = float(x[since:].mean()), low, high
    return Cell(recipe, skill, len(x), off, told[0] if told else None, since, at_s, windows)
