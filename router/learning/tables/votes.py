"""Votes between two models as scores: Bradley–Terry with ties, per group of prompts.

    P(i beats j) = p_i / (p_i + p_j + v sqrt(p_i p_j))      P(tie) = v sqrt(p_i p_j) / (p_i + p_j + v sqrt(p_i p_j))

(R. R. Davidson, On extending the Bradley-Terry model to accommodate ties in paired comparison experiments, JASA 65,
1970). A group of prompts has few votes, with which the likelihood alone would run to infinity: its log strengths have a
normal prior of deviation `SPREAD` around those of all votes together. A score is what a model may expect against one of
average strength: the chance to win, and half of that of a tie. Difficulty that all models share is not in votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SPREAD = 1.0  # of a group's log strengths around those of all
WIDE = 2.0  # of all log strengths and of log v around 0; it matters only where all votes agree
STEPS = 50


@dataclass(frozen=True, slots=True)
class Vote:
    """won: 1 if `left` is the better, 0 for a tie, -1 if `right` is;   weight: > 0, such as raters"""

    prompt: str
    group: str
    left: str
    right: str
    won: int
    weight: float = 1.0


@dataclass(frozen=True)
class Strengths:
    """Log strengths of all models (m,), of mean 0, and the log of v."""

    models: tuple[str, ...]
    log_strengths: Array
    log_ties: float

    def points(self, log_strength: Array | float) -> Array:
        """What such a model may expect against an average one: 1 for a win, 1/2 for a tie."""
        gap = np.asarray(log_strength, np.float64)
        win, tie = np.exp(gap / 2), np.exp(self.log_ties)
        return np.asarray((win + tie / 2) / (win + np.exp(-gap / 2) + tie))


def apart(votes: Sequence[Vote]) -> list[list[str]]:
    """Models in sets that are connected by votes, the greatest first. Between sets nothing can be said."""
    leader: dict[str, str] = {}

    def find(model: str) -> str:
        while leader.setdefault(model, model) != model:
            model = leader[model]
        return model

    for vote in votes:
        leader[find(vote.left)] = find(vote.right)
    sets: dict[str, list[str]] = {}
    for model in leader:
        sets.setdefault(find(model), []).append(model)
    return sorted(sets.values(), key=len, reverse=True)


def strengths_of(votes: Sequence[Vote]) -> Strengths:
    """The strengths that fit all votes together."""
    from scipy.optimize import minimize

    models = tuple(dict.fromkeys(name for vote in votes for name in (vote.left, vote.right)))
    left, right, won, weight = _arrays(votes, models)

    def loss(x: Array) -> tuple[float, Array]:
        gap, ties = x[left] - x[right], np.exp(x[-1])
        whole = np.exp(gap / 2) + np.exp(-gap / 2) + ties
        value = (weight * (won * gap / 2 + (won == 0) * x[-1] - np.log(whole))).sum() - (x**2).sum() / (2 * WIDE**2)
        slope = weight * (won / 2 - np.sinh(gap / 2) / whole)
        gradient = -x / WIDE**2
        np.add.at(gradient, left, slope)
        np.add.at(gradient, right, -slope)
        gradient[-1] += (weight * ((won == 0) - ties / whole)).sum()
        return -value, -gradient

    found = minimize(loss, np.zeros(len(models) + 1), jac=True, method="L-BFGS-B").x
    return Strengths(models, found[:-1] - found[:-1].mean(), float(found[-1]))


def scores_of(votes: Sequence[Vote]) -> dict[tuple[str, str], tuple[float, float]]:
    """(score on 0..1, weight of the votes) of each prompt and model that was voted on."""
    whole = strengths_of(votes)
    level = dict(zip(whole.models, whole.log_strengths.tolist(), strict=True))
    groups: dict[str, list[Vote]] = {}
    for vote in votes:
        groups.setdefault(vote.group, []).append(vote)
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for some in groups.values():
        points = _of_group(some, whole, level)
        for vote in some:
            for model in (vote.left, vote.right):
                _, weight = found.get((vote.prompt, model), (0.0, 0.0))
                found[vote.prompt, model] = (points[model], weight + vote.weight)
    return found


def _of_group(votes: Sequence[Vote], whole: Strengths, level: Mapping[str, float]) -> dict[str, float]:
    """The expected points of each model of one group, by Newton's method on a concave likelihood with its prior."""
    models = tuple(dict.fromkeys(name for vote in votes for name in (vote.left, vote.right)))
    left, right, won, weight = _arrays(votes, models)
    prior = np.array([level[name] for name in models])
    x, ties, eye = prior.copy(), np.exp(whole.log_ties), np.eye(len(models))
    sides = eye[left] - eye[right]
    for _ in range(STEPS):
        gap = x[left] - x[right]
        half = np.cosh(gap / 2)
        total = 2 * half + ties
        slope = weight * (won / 2 - np.sinh(gap / 2) / total)
        bend = weight * (half * total / 2 - np.sinh(gap / 2) ** 2) / total**2
        gradient = sides.T @ slope - (x - prior) / SPREAD**2
        step = np.linalg.solve((sides.T * bend) @ sides + eye / SPREAD**2, gradient)
        x = x + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    return dict(zip(models, whole.points(x).tolist(), strict=True))


def _arrays(votes: Sequence[Vote], models: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
    place = {name: k for k, name in enumerate(models)}
    return (
        np.array([place[vote.left] for vote in votes]),
        np.array([place[vote.right] for vote in votes]),
        np.array([float(vote.won) for vote in votes]),
        np.array([vote.weight for vote in votes]),
    )
