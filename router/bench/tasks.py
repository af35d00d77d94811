"""Tables of ratings as tasks for routers, and the two ways to ask a router about prompts that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError, did_you_mean
from router.learning.training import split_groups
from router.quality.ratings_table import RatingsTable

Array = NDArray[np.float64]


class Router(Protocol):
    """Says of each prompt how good each recipe would be; only differences and order count, on whatever scale."""

    def score(self, prompts: Sequence[str]) -> Array:
        """(prompts, recipes): of a table's columns, in their order, or of a cheap and a strong recipe"""
        ...


@dataclass(frozen=True)
class Task:
    """A table of ratings and the pairs of its recipes, (cheap, strong), between which is chosen.

    learn: whether other sets may be judged by what was learned from it;   judged: rows (n,) of an official part that
    judges while the others are learned from; None: folds are made
    """

    name: str
    table: RatingsTable = field(repr=False)
    pairs: tuple[tuple[str, str], ...]
    learn: bool = True
    judged: NDArray[np.bool_] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raises `ArtifactError` for a pair that the table does not rate."""
        for name in (name for pair in self.pairs for name in pair):
            if name not in self.table.columns:
                raise ArtifactError(f"{self.name}: no recipe {name!r}{did_you_mean(name, self.table.columns)}")

    def gain(self, pair: tuple[str, str]) -> Array:
        """Score of the strong recipe less that of the cheap one, (n,); NaN where one is not rated."""
        cheap, strong = (self.table.scores[:, self.table.columns.index(name)] for name in pair)
        return np.asarray(strong - cheap)


Learn = Callable[[RatingsTable], Router]
"""Makes a router of the columns of a table."""
Carry = Callable[[Sequence[Task], tuple[str, str]], Router]
"""Makes a router that chooses between a cheap and a strong recipe, named, from other tasks."""


def crossed(task: Task, learn: Learn, folds: int = 5, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Scores (n, recipes) by routers that did not see the prompt or a near-duplicate, NaN for rows that are not judged;
    and the fold (n,) of each, since scores of different routers are not compared. Raises `ArtifactError` for a score
    that is not of this shape."""
    table = task.table
    split = split_groups(table.groups, folds, seed) if task.judged is None else np.where(task.judged, 0, 1)
    scores = np.full(table.scores.shape, np.nan)
    for fold in np.unique(split) if task.judged is None else (0,):
        out = split == fold
        router = learn(table.only(~out))
        scores[out] = _checked(router, [p for p, o in zip(table.prompts, out, strict=True) if o], len(table.columns))
    return scores, split


def left_out(tasks: Sequence[Task], carry: Carry, name: str) -> dict[tuple[str, str], Array]:
    """Scores (n,) of the gain for each pair of one task, by routers that learned from the others, as far as these may
    be learned from."""
    task = next(one for one in tasks if one.name == name)
    others = [one for one in tasks if one.name != name and one.learn]
    found = {}
    for pair in task.pairs:
        scores = _checked(carry(others, pair), task.table.prompts, 2)
        found[pair] = scores[:, 1] - scores[:, 0]
    return found


def _checked(router: Router, prompts: Sequence[str], recipes: int) -> Array:
    scores = np.asarray(router.score(list(prompts)), np.float64)
    if scores.shape != (len(prompts), recipes) or not np.isfinite(scores).all():
        raise ArtifactError(
            f"{type(router).__name__}.score gave an array of shape {scores.shape}, or one with numbers that are not "
            f"finite; it must be ({len(prompts)}, {recipes}): prompts by recipes"
        )
    return scores
