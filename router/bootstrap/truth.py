"""Whether routing is worth having: on prompts that nothing was learned from, beside what needs no router.

Every contender drew every proof prompt. A strategy takes one recipe a prompt; at each price of a second it comes to a
mean quality and a mean of seconds, and the line through these points is its curve. `random mixing`, the upper hull of
always taking one recipe, is what a coin buys at the same seconds: the line that a router has to beat. Intervals are
95 %, from resampling prompts, baselines included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.bootstrap.dial import costs_between, height, hull, picks, prices_of
from router.learning.intervals import Figure

Array = NDArray[np.float64]
RESAMPLES = 1000
DIAL = 25  # settings
WORTH = 0.005
"""Quality (0..1) over random mixing below which a router is not worth its upkeep, however surely it is there."""
TELL = 0.02  # the gain for which it is said how many prompts would show it
FEWEST = 20  # prompts with two pictures, for an oracle that is judged by the second
FLATTERED = "oracle, judged by the picture it chose by"
Chooser = Callable[[Array], NDArray[np.int64]]
"""Qualities (prompts, recipes) to the recipe of each prompt: what a policy would take."""


@dataclass(frozen=True)
class Proof:
    """What came out on proof prompts. recipes: keys;   score: (prompts, recipes, seeds), NaN where there is no picture,
    the first seed everywhere;   predicted: (prompts, recipes), by what saw none of these prompts;   seconds: (recipes,)
    """

    prompts: tuple[str, ...]
    recipes: tuple[str, ...]
    score: Array = field(repr=False)
    predicted: Array = field(repr=False)
    seconds: Array

    @property
    def quality(self) -> Array:
        """Mean over the seeds, (prompts, recipes)."""
        return np.asarray(np.nanmean(self.score, axis=2))


@dataclass(frozen=True)
class Curve:
    """seconds, quality: the operating points;   gain: over random mixing, on average between the cheapest contender's
    seconds and the best one's;   half: the same at half of that way. Both in quality."""

    name: str
    seconds: Array = field(repr=False)
    quality: Array = field(repr=False)
    gain: Figure
    half: Figure


@dataclass(frozen=True)
class AsServed:
    """A policy as it stands, by what is predicted: quality and seconds, and its gain over random mixing at the same
    seconds."""

    quality: Figure
    seconds: float
    gain: Figure
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Truth:
    """fixed: of each contender, its mean quality;   best: the key of the best one;   alike: intraclass correlation of
    pictures of one prompt and recipe, None without second seeds"""

    proof: Proof = field(repr=False)
    fixed: Mapping[str, Figure]
    curves: Mapping[str, Curve]
    served: AsServed | None
    best: str
    alike: float | None
    pays: bool
    verdict: str


def find_out(proof: Proof, chooser: Chooser | None = None, seed: int = 0) -> Truth:
    """Every strategy on the proof prompts, and the verdict. chooser: of the policy that will be served."""
    weights = _weights(len(proof.prompts), seed)
    quality, seconds = proof.quality, proof.seconds
    means = weights.T @ quality  # (resamples, recipes)
    fixed = {name: Figure.of(means[:, k]) for k, name in enumerate(proof.recipes)}
    curves = {
        "router": _curve("router", _on_dial(proof.predicted, seconds), quality, seconds, weights),
        "prompt length": _curve(
            "prompt length", _by_length(proof.prompts, seconds, means[0]), quality, seconds, weights
        ),
        "oracle": _oracle(proof, seed),
    }
    served = _served(proof, chooser, weights, means) if chooser is not None else None
    best = proof.recipes[int(np.lexsort((seconds, -means[0]))[0])]
    pays, verdict = _verdict(curves["router"], served, best, len(proof.prompts))
    return Truth(proof, fixed, curves, served, best, alike(proof.score), pays, verdict)


def _weights(count: int, seed: int) -> Array:
    """Of prompts (count, 1 + resamples): all alike, then as often as each was drawn."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return np.concatenate(([np.full(count, 1 / count)], drawn / count)).T


def _oracle(proof: Proof, seed: int) -> Curve:
    """Of who saw a picture of every recipe before choosing. Where prompts have second pictures, these judge: by the
    pictures it chose by, it would be paid for what is chance in them. It weighs what it saw, beside what was predicted,
    by how far one picture tells of another."""
    twice = np.isfinite(proof.score[..., :2]).all(axis=(1, 2)) if proof.score.shape[2] > 1 else np.zeros(1, np.bool_)
    if twice.sum() < FEWEST:
        return _curve(FLATTERED, _on_dial(proof.score[..., 0], proof.seconds), proof.score[..., 0], proof.seconds,
                      _weights(len(proof.prompts), seed))  # fmt: skip
    first, second, predicted = proof.score[twice, :, 0], proof.score[twice, :, 1], proof.predicted[twice]
    left, other = first - predicted, second - predicted
    told = float(np.clip((left * other).mean() / max(float((left**2 + other**2).mean()) / 2, 1e-12), 0.0, 1.0))
    seen = predicted + told * left
    return _curve("oracle", _on_dial(seen, proof.seconds), second, proof.seconds, _weights(len(seen), seed))


def _on_dial(quality: Array, seconds: Array) -> list[NDArray[np.int64]]:
    return [picks(quality, seconds, float(price)) for price in prices_of(seconds, DIAL)]


def _by_length(prompts: Sequence[str], seconds: Array, means: Array) -> list[NDArray[np.int64]]:
    """The best recipe for prompts of more words than a bound, the cheapest for the others."""
    words = np.array([len(prompt.split()) for prompt in prompts])
    cheap, strong = int(seconds.argmin()), int(np.lexsort((seconds, -means))[0])
    bounds = np.unique(np.quantile(words, np.linspace(0, 1, DIAL)).astype(int))
    return [np.where(words > bound, strong, cheap) for bound in (-1, *bounds)]


def _curve(name: str, taken: list[NDArray[np.int64]], quality: Array, seconds: Array, weights: Array) -> Curve:
    """taken: recipes of the prompts at each setting;   quality: (prompts, recipes);   weights: (prompts, resamples)"""
    every = np.arange(len(quality))
    points = np.stack([quality[every, pick] for pick in taken]) @ weights  # (settings, resamples)
    costs = np.stack([seconds[pick] for pick in taken]) @ weights
    means = weights.T @ quality
    best = float(hull(seconds, means[0])[0][-1])
    at = costs_between(float(seconds.min()), best if best > seconds.min() else float(seconds.max()))
    gains, halves = np.empty(len(means)), np.empty(len(means))
    for b in range(len(means)):
        mix_x, mix_y = hull(seconds, means[b])
        order = np.argsort(costs[:, b], kind="stable")
        # No hull here: the best of many noisy settings would flatter whoever turns the dial.
        above = np.interp(at, costs[order, b], points[order, b]) - np.interp(at, mix_x, mix_y)
        gains[b], halves[b] = above.mean(), above[len(at) // 2]
    return Curve(name, costs[:, 0], points[:, 0], Figure.of(gains), Figure.of(halves))


def _served(proof: Proof, chooser: Chooser, weights: Array, means: Array) -> AsServed:
    pick = chooser(proof.predicted)
    every = np.arange(len(pick))
    quality, cost = proof.quality[every, pick] @ weights, proof.seconds[pick] @ weights
    mixed = np.array([height(proof.seconds, means[b], np.array([cost[b]]))[0] for b in range(len(means))])
    shares = {name: float((pick == k).mean()) for k, name in enumerate(proof.recipes) if (pick == k).any()}
    return AsServed(Figure.of(quality), float(cost[0]), Figure.of(quality - mixed), shares)


def alike(score: Array) -> float | None:
    """The intraclass correlation (one-way) of pictures of one prompt and recipe: 1, if the seed changes nothing."""
    if score.shape[2] < 2:
        return None
    cells = score.reshape(-1, score.shape[2])
    cells = cells[np.isfinite(cells[:, :2]).all(axis=1)][:, :2]
    if len(cells) < 10:
        return None
    between, within = 2 * cells.mean(axis=1).var(ddof=1), cells.var(axis=1, ddof=1).mean()
    return float(np.clip((between - within) / max(between + within, 1e-12), 0.0, 1.0))


def _verdict(router: Curve, served: AsServed | None, best: str, prompts: int) -> tuple[bool, str]:
    gain = router.gain
    said = f"{_points(gain)} on {prompts} prompts"
    if gain.low > 0 and gain.value >= WORTH:
        own = f"; with the policy's objective as it stands, {_points(served.gain)}" if served is not None else ""
        return True, f"Routing pays here: over mixing the recipes at random at the same seconds it gains {said}{own}."
    what = "over mixing the recipes at random at the same seconds"
    why = f"it gains too little {what}" if gain.low > 0 else f"that it gains anything {what} was not shown"
    width = (gain.high - gain.low) / 2
    need = int(np.ceil(prompts * (width / TELL) ** 2 / 10) * 10)
    more = f" To tell a gain of {100 * TELL:.0f} points takes about {need} proof prompts." if width > TELL else ""
    return False, f"Routing is not worth it here: {why} ({said}). Take {best} for every prompt, or a cheaper one.{more}"


def _points(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} points ({100 * figure.low:.1f} to {100 * figure.high:.1f})"
