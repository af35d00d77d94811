"""What a judge's score counts as: a probability that it claims, a place among others, or what a person's labels say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from router.bootstrap.labels import Calibrated

Array = NDArray[np.float64]


class Reading(Protocol):
    """words: how it reads, for the page and the card;   caveat: what a verdict by it has to say, if anything"""

    @property
    def words(self) -> str: ...

    @property
    def caveat(self) -> str: ...

    def of(self, scores: Sequence[float], recipes: Sequence[str]) -> Array:
        """Qualities 0..1, (n,), of all scores of a study, each of a picture by the recipe of this key."""
        ...


@dataclass(frozen=True)
class AtItsWord:
    """Of a judge whose scores are meant as probabilities, and that no person has checked."""

    judge: str

    @property
    def words(self) -> str:
        return (
            f"quality is the probability that a picture shows its prompt, as `{self.judge}` has it; no person has "
            "checked it (`triptych label`)"
        )

    @property
    def caveat(self) -> str:
        return ""

    def of(self, scores: Sequence[float], recipes: Sequence[str]) -> Array:
        return np.clip(np.asarray(scores, np.float64), 0.0, 1.0)


@dataclass(frozen=True)
class Places:
    """Of a judge that only orders pictures: its scores are no probabilities, and are not read as such."""

    judge: str

    @property
    def words(self) -> str:
        return (
            f"`{self.judge}` only orders pictures, so quality is the share of all pictures of this study that it puts "
            "below one, and no probability; `triptych label` makes it one"
        )

    @property
    def caveat(self) -> str:
        return f" That is by `{self.judge}`, which only orders pictures, and which no person has checked."

    def of(self, scores: Sequence[float], recipes: Sequence[str]) -> Array:
        order = np.asarray(scores, np.float64)
        below = np.searchsorted(np.sort(order), order, side="left")
        upto = np.searchsorted(np.sort(order), order, side="right")
        return (below + upto) / (2 * max(1, len(order)))


@dataclass(frozen=True)
class Labelled:
    """Of a judge that a person's labels calibrate."""

    judge: str
    calibrated: Calibrated
    labels: int

    @property
    def words(self) -> str:
        return (
            f"quality is the probability that a picture shows its prompt, from the score of `{self.judge}` as "
            f"{self.labels} labels by a person calibrate it"
        )

    @property
    def caveat(self) -> str:
        return ""

    def of(self, scores: Sequence[float], recipes: Sequence[str]) -> Array:
        return self.calibrated.probability(np.asarray(scores, np.float64), recipes)
