"""What pictures so far say of every recipe on every prompt: a Gaussian process that knows what it does not know.

    score(x, r) = mean + a + s(x) + a_r + s_r(x) + b_x + noise

s: what prompts like this one do to all recipes;   s_r: and to this one beside that (both smooth in the prompt, as the
predictor's kernel has it);   b_x: what is particular to the prompt, shared by its pictures, which no other prompt
tells. The six variances are those under which the scores so far are likeliest. It is not the predictor that will be
served (`router.learning.training` fits that): it says which pictures would teach most, and when they no longer would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.kernels import rbf

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
GAMMA = 1.0
ALIKE = 0.4  # share of a picture's own noise that another seed of the same prompt and recipe has, too
FITTED_ON = 420  # cells, at most: time grows with their cube
NAMES = ("level", "shared", "own level", "own", "prompt", "noise")


def _near(some: Array, others: Array) -> Array:
    return np.asarray(rbf(some, others, GAMMA), dtype=np.float64)


@dataclass(frozen=True)
class Seen:
    """Pictures that were scored, by cell: row of the prompt, number of the recipe, mean score and count, (n,) each."""

    prompt: Rows
    recipe: Rows
    score: Array
    count: Array

    @classmethod
    def of(cls, prompt: Rows, recipe: Rows, score: Array) -> Seen:
        """One entry for each picture; those of one prompt and recipe become one cell."""
        cells, at = np.unique(np.stack([prompt, recipe], axis=1), axis=0, return_inverse=True)
        count = np.bincount(at.ravel(), minlength=len(cells)).astype(np.float64)
        mean = np.bincount(at.ravel(), weights=score, minlength=len(cells)) / np.maximum(count, 1)
        return cls(cells[:, 0], cells[:, 1], mean, count)


@dataclass(frozen=True)
class Variances:
    """Of the six parts above, in squared units of the scores."""

    level: float
    shared: float
    own_level: float
    own: float
    prompt: float
    noise: float

    def covariance(self, near: Array, same_recipe: NDArray[np.bool_]) -> Array:
        """Of what is smooth, between cells whose prompts are so near (0..1): everything but `prompt` and `noise`."""
        return self.level + self.shared * near + same_recipe * (self.own_level + self.own * near)

    def of_cell(self, count: Array) -> Array:
        """The noise of a cell's mean score."""
        return self.noise * (ALIKE + (1 - ALIKE) / count)


def fit_variances(inputs: Array, seen: Seen, seed: int = 0) -> Variances:
    """The likeliest variances, by gradient on a sample of the cells; inputs (prompts, d): as the predictor's kernel
    sees them."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    order = np.random.default_rng(seed).permutation(len(seen.score))[:FITTED_ON]
    prompt, recipe, score, count = (part[order] for part in (seen.prompt, seen.recipe, seen.score, seen.count))
    centred = score - score.mean()
    whole = max(float(centred.var()), 1e-6)
    near = _near(inputs[prompt], inputs[prompt])
    same = (recipe[:, None] == recipe[None]).astype(np.float64)
    parts = [np.ones_like(near), near, same, same * near, (prompt[:, None] == prompt[None]).astype(np.float64),
             np.diag(ALIKE + (1 - ALIKE) / count)]  # fmt: skip

    def loss(logs: Array) -> tuple[float, Array]:
        sizes = np.exp(logs)
        whole_cov = sum(size * part for size, part in zip(sizes, parts, strict=True))
        factor = cho_factor(whole_cov + 1e-9 * np.eye(len(order)), lower=True)
        weights = cho_solve(factor, centred)
        inverse = cho_solve(factor, np.eye(len(order)))
        value = 0.5 * centred @ weights + np.log(np.diag(factor[0])).sum()
        slope = np.array([0.5 * ((inverse * part).sum() - weights @ part @ weights) for part in parts])
        # A weak prior keeps parts that these cells say nothing of near an equal share of the variance.
        away = logs - np.log(whole / len(parts))
        return float(value + 0.05 * (away**2).sum()), slope * sizes + 0.1 * away

    start = np.full(len(parts), np.log(whole / len(parts)))
    bounds = [(np.log(whole * 1e-5), np.log(whole * 20))] * len(parts)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}).x
    return Variances(*np.exp(found).tolist())


@dataclass(frozen=True)
class Beliefs:
    """The posterior after `seen`. inputs: (prompts, d);   centre: the mean of all scores"""

    inputs: Array
    seen: Seen
    variances: Variances
    centre: float
    root: Array  # the lower triangle of the Cholesky factor, (n, n)
    pulled: Array  # (n,)

    @classmethod
    def of(cls, inputs: Array, seen: Seen, variances: Variances) -> Beliefs:
        """Raises numpy's `LinAlgError` only for scores that are not finite."""
        from scipy.linalg import cholesky, solve_triangular

        covariance = variances.covariance(
            _near(inputs[seen.prompt], inputs[seen.prompt]), seen.recipe[:, None] == seen.recipe[None]
        )
        covariance += variances.prompt * (seen.prompt[:, None] == seen.prompt[None])
        covariance[np.diag_indices_from(covariance)] += variances.of_cell(seen.count) + 1e-9
        root = cholesky(covariance, lower=True)
        centre = float(np.average(seen.score, weights=seen.count))
        return cls(inputs, seen, variances, centre, root, solve_triangular(root, seen.score - centre, lower=True))

    def smooth(self, prompt: Rows, recipe: Rows) -> tuple[Array, Array]:
        """Of cells (m,): the mean (m,) of what carries over to prompts like theirs, and what is needed to compare them
        with others, (n, m)."""
        from scipy.linalg import solve_triangular

        carried = solve_triangular(self.root, self._to_seen(prompt, recipe, particular=False), lower=True)
        return self.centre + carried.T @ self.pulled, carried

    def table(self, prompt: Rows, recipes: int) -> tuple[Array, Array]:
        """`smooth` for every recipe on some prompts: means (prompts, recipes), and (n, prompts x recipes)."""
        mean, carried = self.smooth(np.repeat(prompt, recipes), np.tile(np.arange(recipes), len(prompt)))
        return mean.reshape(len(prompt), recipes), carried

    def outlook(self, prompt: Rows, recipe: Rows) -> tuple[Array, Array, Array]:
        """Of one more picture in each of the cells (m,): the variance of what is smooth there, that of the rest of its
        score, (m,) each, and what is needed to say what it would teach of others, (n, m)."""
        from scipy.linalg import solve_triangular

        plain = solve_triangular(self.root, self._to_seen(prompt, recipe, particular=False), lower=True)
        carried = solve_triangular(self.root, self._to_seen(prompt, recipe, particular=True), lower=True)
        v = self.variances
        before = v.level + v.shared + v.own_level + v.own
        smooth = np.maximum(before - (plain**2).sum(axis=0), 1e-12)
        score = np.maximum(before + v.prompt - (carried**2).sum(axis=0), smooth) + v.noise
        return smooth, score - smooth, carried

    def between(self, one: tuple[Rows, Rows], carried: Array, other: tuple[Rows, Rows], others: Array) -> Array:
        """The covariance (m, k) of what is smooth in cells `one` (from `smooth`) with pictures in cells `other` (from
        `outlook`)."""
        before = self.variances.covariance(
            _near(self.inputs[one[0]], self.inputs[other[0]]), one[1][:, None] == other[1][None]
        )
        return np.asarray(before - carried.T @ others)

    def near(self, prompt: Rows) -> Array:
        """How near prompts are to one another, (m, m), 0..1."""
        return np.asarray(_near(self.inputs[prompt], self.inputs[prompt]))

    def draws(self, prompt: Rows, recipes: int, count: int, seed: int) -> Array:
        """Tables (count, prompts, recipes) that may be the truth, as probable as they are."""
        mean, carried = self.table(prompt, recipes)
        cells = np.repeat(prompt, recipes), np.tile(np.arange(recipes), len(prompt))
        near = _near(self.inputs[cells[0]], self.inputs[cells[0]])
        left = self.variances.covariance(near, cells[1][:, None] == cells[1][None]) - carried.T @ carried
        values, vectors = np.linalg.eigh((left + left.T) / 2)
        noise = np.random.default_rng(seed).standard_normal((count, len(values)))
        moved = (noise * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        return mean + moved.reshape(count, len(prompt), recipes)

    def _to_seen(self, prompt: Rows, recipe: Rows, particular: bool) -> Array:
        near = _near(self.inputs[self.seen.prompt], self.inputs[prompt])
        covariance = self.variances.covariance(near, self.seen.recipe[:, None] == recipe[None])
        if particular:
            covariance = covariance + self.variances.prompt * (self.seen.prompt[:, None] == prompt[None])
        return np.asarray(covariance)
