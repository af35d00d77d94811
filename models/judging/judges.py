"""Judges: a picture and its prompt to a number. Which of these numbers are probabilities is said, not assumed."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.scoring import Scorer, load_scorer
from router.errors import StepError
from router.types import ModelCard

Pixels = NDArray[np.uint8]
PROBABILITIES = frozenset({"verifier", "vqa"})
"""Families of scorers whose scores are meant as the probability that the picture shows the prompt. CLIP's cosine and
PickScore order pictures; what they are worth as probabilities, only labels say."""


class Judge(Protocol):
    """name: what its scores are kept under;   probability: whether they are meant as such; else they only order"""

    @property
    def name(self) -> str: ...

    @property
    def probability(self) -> bool: ...

    def score(self, picture: Pixels, prompt: str) -> float:
        """0..1, higher is better, of uint8 (height, width, 3). Raises `StepError` if it cannot say."""
        ...


class ScorerJudge:
    """The scorer of a card. Loaded when it is first asked, so what is only resumed loads nothing."""

    def __init__(self, card: ModelCard, device: str = "auto", dtype: str | None = None) -> None:
        """device: as of `load_engine`, or `auto`: the accelerator if there is one"""
        self.card = card
        self._place = device, dtype
        self._lock = threading.Lock()
        self._scorer: Scorer | None = None

    @property
    def name(self) -> str:
        return self.card.id

    @property
    def probability(self) -> bool:
        return self.card.family in PROBABILITIES

    def score(self, picture: Pixels, prompt: str) -> float:
        """Raises `LoadError` if the scorer is not there, `StepError` for a score that is no number."""
        with self._lock:
            if self._scorer is None:
                self._scorer = load_scorer(self.card, _device(self._place[0]), self._place[1])
            found = float(self._scorer.score([picture], prompt)[0])
        if not math.isfinite(found):
            raise StepError(f"{self.name} gave {found} for a picture, which is no score")
        return found


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@dataclass(frozen=True)
class Combined:
    """Several judges as one: all of them have to be content, so the least of what they say, in so far as they say
    anything. A probability only if all are."""

    judges: Sequence[Judge]

    @property
    def name(self) -> str:
        return "+".join(judge.name for judge in self.judges)

    @property
    def probability(self) -> bool:
        return all(judge.probability for judge in self.judges)

    def score(self, picture: Pixels, prompt: str) -> float:
        """Raises `StepError` only if none of them can say."""
        said, why = [], []
        for judge in self.judges:
            try:
                said.append(judge.score(picture, prompt))
            except StepError as error:
                why.append(error.message)
        if not said:
            raise StepError("; ".join(why))
        return min(said)
