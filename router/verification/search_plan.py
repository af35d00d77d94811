"""What a planned search comes to: how often each of its pictures is made, and how often the picture kept is right.

Pictures of one recipe on one prompt succeed or fail together: the recipe's true chance on the prompt is unknown and
beta distributed around the predicted one. So the search is followed for several true chances, given which its pictures
are independent, and what they come to is averaged. Within one, everything is a sum over the possible verdicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.types import Turn
from router.verification.score_reading import ScoreModel, expit
from router.verification.value_of_information import Option

Array = NDArray[np.float64]
GRID = (np.arange(2000) + 0.5) / 2000
NODES = (9, 5, 3)  # true chances that are followed for each of one, two and three recipes; of more, the predicted one


def follow(
    turns: Sequence[Turn], options: Sequence[Option], score_model: ScoreModel
) -> tuple[tuple[float, ...], float]:
    """(probability that each picture is made, probability that the one kept is right)."""
    used = [option for option in options if any(turn.recipe == option.recipe for turn in turns)]
    nodes = NODES[len(used) - 1] if len(used) <= len(NODES) else 1
    true = np.array(list(itertools.product(*(_chances(option, nodes) for option in used))))  # (worlds, recipes)
    column = {option.recipe: k for k, option in enumerate(used)}
    evidence = (np.array(score_model.on_right), np.array(score_model.on_wrong))
    verdicts = [tuple(np.asarray(expit(turn.slope * e + turn.offset)) for e in evidence) for turn in turns]
    grid = np.unique(np.concatenate([np.zeros(1), *(values for pair in verdicts for values in pair)]))
    # Probability of each best verdict so far (worlds, grid), apart by whether that picture is right.
    right, wrong = np.zeros((len(true), len(grid))), np.zeros((len(true), len(grid)))
    wrong[:, 0] = 1.0  # no picture yet
    kept = np.zeros(len(true))
    reached: list[float] = []
    for turn, pair in zip(turns, verdicts, strict=True):
        if reached:
            ended = grid >= turn.bar
            kept += right[:, ended].sum(axis=1)
            right[:, ended] = wrong[:, ended] = 0.0
        before = right + wrong
        reached.append(float(before.sum(axis=1).mean()))
        chance = true[:, column[turn.recipe], None]
        as_right, as_wrong = (_on(grid, values) for values in pair)
        good, bad = chance * as_right, (1 - chance) * as_wrong
        not_above = np.cumsum(good + bad, axis=1)
        below = np.cumsum(before, axis=1) - before
        right, wrong = right * not_above + good * below, wrong * not_above + bad * below
    return tuple(reached), float((kept + right.sum(axis=1)).mean())


def _chances(option: Option, nodes: int) -> Array:
    """Equally likely true chances of a recipe."""
    chance = min(0.999, max(0.001, option.chance))
    if nodes == 1:
        return np.array([chance])
    at = (np.arange(nodes) + 0.5) / nodes
    # The inverse of the beta distribution, summed up on a grid: scipy would take seconds to import.
    odds = chance * option.strength * np.log(GRID) + (1 - chance) * option.strength * np.log1p(-GRID)
    density = np.exp(odds - odds.max()) / (GRID * (1 - GRID))
    found = np.interp(at, np.cumsum(density) / density.sum(), GRID)
    return np.asarray(found - found.mean() + chance).clip(0.0, 1.0)


def _on(grid: Array, values: Array) -> Array:
    """Equally likely `values` as probabilities on the grid that holds them."""
    return np.bincount(np.searchsorted(grid, values), minlength=len(grid)) / len(values)
