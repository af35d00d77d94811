"""Which pictures to make next: those that are expected to better the decisions most, per second that they take.

Two questions, both asked of what is believed so far (`router.bootstrap.beliefs`):

    which recipes   those that may still be worth taking at some price of a second: one that would not be taken even if
                    it were as good as can still be hoped gets no more pictures
    which prompts   those whose pictures are expected to better decisions most a second. One more picture moves what is
                    believed of recipes on prompts like this one; where that may change which is taken, decisions become
                    worth more, and where it changes nothing, it is worth nothing, however little is known there. The
                    expected gain over prompts and prices is the knowledge gradient (Frazier, Powell and Dayanik 2008,
                    https://doi.org/10.1137/070693424); a single picture hardly ever turns a decision around, so it is
                    asked what `AHEAD` like it would

`swept` is what this is compared with: every recipe on one prompt after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.bootstrap.beliefs import Beliefs, Rows
from router.bootstrap.dial import picks, prices_of

Array = NDArray[np.float64]
AHEAD = 12
LOOKED_AT = 72  # prompts on which decisions are compared
CANDIDATES = 40  # prompts of which pictures may come next
DOUBT = 1.5
RARELY = 0.05  # share of the prompts
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Cell:
    """A picture that may be made: row of the prompt, number of the recipe, number of the seed."""

    prompt: int
    recipe: int
    seed: int = 0


def swept(prompts: Rows, recipes: int, seeds: int, seed: int) -> list[Cell]:
    """All cells of these prompts, in the order in which `uniform` makes them: prompts in random order, each with every
    recipe; then again with the next seed."""
    order = np.random.default_rng(seed).permutation(prompts)
    return [Cell(int(p), r, s) for s in range(seeds) for p in order for r in range(recipes)]


def valuable(
    beliefs: Beliefs, prompts: Rows, seconds: Array, made: Collection[Cell], most: int, seeds: int, seed: int
) -> list[Cell]:
    """The next pictures, about `most`, of these prompts: of each chosen prompt by every recipe in play, for what sets
    recipes apart is learned where all of them drew. seconds (recipes,): of a picture;   made: cells that are taken."""
    rng = np.random.default_rng(seed)
    recipes, taken = len(seconds), set(made)
    playing = in_play(beliefs, prompts, seconds, seed)
    free = [cells for p in rng.permutation(prompts) if (cells := _free(int(p), playing, seeds, taken))]
    if not free:
        return []
    # Prompts of which nothing was drawn come first: another seed says less than another prompt.
    fewest = min(cells[0].seed for cells in free)
    free = [cells for cells in free if cells[0].seed == fewest][:CANDIDATES]
    cells = [cell for some in free for cell in some]
    owner = np.repeat(np.arange(len(free)), [len(some) for some in free])
    shown = rng.permutation(prompts)[:LOOKED_AT]
    where = np.array([c.prompt for c in cells]), np.array([c.recipe for c in cells])
    mean, carried = beliefs.table(shown, recipes)
    table = np.repeat(shown, recipes), np.tile(np.arange(recipes), len(shown))
    smooth, rest, others = beliefs.outlook(*where)
    moves = beliefs.between(table, carried, where, others) / np.sqrt(smooth + rest / AHEAD)
    gain = expected_gain(mean, moves.reshape(len(shown), recipes, len(cells)), seconds)
    rate = np.bincount(owner, weights=gain) / np.bincount(owner, weights=seconds[where[1]])
    near = beliefs.near(np.array([some[0].prompt for some in free]))
    chosen: list[Cell] = []
    while len(chosen) < most and np.isfinite(rate).any():
        best = int(rate.argmax())
        chosen += free[best]
        rate = rate * (1 - near[best] ** 2)  # what one prompt tells, the next like it need not tell again
        rate[best] = -np.inf
    return chosen


def in_play(beliefs: Beliefs, prompts: Rows, seconds: Array, seed: int = 0) -> list[int]:
    """Numbers of the recipes that may still be worth taking: if they were better than believed by as much as is not
    known of them (`DOUBT` standard deviations of their mean over prompts, beside the others'), they would be taken at
    some price for some of the prompts."""
    shown = np.random.default_rng(seed).permutation(prompts)[:LOOKED_AT]
    draws = beliefs.draws(shown[: LOOKED_AT // 2], len(seconds), 64, seed).mean(axis=1)
    doubt = DOUBT * (draws - draws.mean(axis=1, keepdims=True)).std(axis=0)
    mean, _ = beliefs.table(shown, len(seconds))
    kept = []
    for k in range(len(seconds)):
        hoped = mean + doubt[k] * (np.arange(len(seconds)) == k)
        if any((picks(hoped, seconds, float(p)) == k).mean() >= RARELY for p in prices_of(seconds)):
            kept.append(k)
    return kept


def expected_gain(mean: Array, moves: Array, seconds: Array) -> Array:
    """By how much decisions are expected to be worth more, (k,), on average over prompts and prices, if what is
    believed moves from `mean` (prompts, recipes) by z times `moves` (prompts, recipes, k) with z standard normal."""
    total = np.zeros(moves.shape[2])
    prices = prices_of(seconds)
    for price in prices:
        worth = mean - price * seconds
        best = worth.max(axis=1)
        for node, weight in zip(NODES, WEIGHTS, strict=True):
            total += weight * ((worth[..., None] + node * moves).max(axis=1) - best[:, None]).mean(axis=0)
    return np.maximum(total, 0.0) / len(prices)


def bettered(now: Beliefs, then: Beliefs, prompts: Rows, seconds: Array, seed: int = 0) -> float:
    """By how much decisions are worth more (quality, over prompts and prices) than those that would have been made by
    what was believed `then`, as far as is known `now`."""
    shown = np.random.default_rng(seed).permutation(prompts)[: 4 * LOOKED_AT]
    every = np.arange(len(shown))
    mean, before = now.table(shown, len(seconds))[0], then.table(shown, len(seconds))[0]
    found = []
    for price in prices_of(seconds):
        worth = mean - price * seconds
        found.append((worth.max(axis=1) - worth[every, picks(before, seconds, float(price))]).mean())
    return float(np.mean(found))


def _free(prompt: int, recipes: Sequence[int], seeds: int, taken: Collection[Cell]) -> list[Cell]:
    """The pictures of a prompt by these recipes that are not made yet, with the first seed that one of them lacks."""
    for seed in range(seeds):
        if cells := [cell for k in recipes if (cell := Cell(prompt, k, seed)) not in taken]:
            return cells
    return []


def contenders(beliefs: Beliefs, prompts: Rows, seconds: Array) -> list[int]:
    """Numbers of the recipes that decisions come to: taken at some price for at least some of the prompts. Two at
    least, if there are two: the best ones."""
    mean, _ = beliefs.table(prompts[: 4 * LOOKED_AT], len(seconds))
    taken = np.stack([picks(mean, seconds, float(price)) for price in prices_of(seconds)])
    kept = {k for k in range(len(seconds)) if (taken == k).mean(axis=1).max() >= RARELY}
    for k in np.lexsort((seconds, -mean.mean(axis=0))):
        if len(kept) < 2:
            kept.add(int(k))
    return sorted(kept)
