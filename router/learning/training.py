"""Trains the quality predictor: a table of ratings in, a verified artefact out. The command is `triptych router train`.

All choices and all reported figures come from grouped K-fold: a prompt is never predicted by a model that saw it or a
near-duplicate. The hyperparameters are chosen on the same folds (a handful of combinations, one choice for all
columns).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from router.errors import ArtifactError
from router.learning.ratings import Rating, shares_of, tabulate
from router.learning.report import ColumnReport, predictor_card
from router.prompts.embedding import Embedder, MiniLMEmbedder
from router.prompts.familiarity import fit_domain
from router.prompts.lexical import FEATURES, SIGNALS
from router.prompts.skills import SkillHeads, load_skills
from router.quality.calibration import Calibration, Z, fit_calibration, with_deviation_of
from router.quality.composition import Record, composition_of
from router.quality.contrasts import Contrasts, fit_contrasts
from router.quality.kernel_ridge import Hyperparameters, Mixture, Prompts, fit_mixture, prompts_of
from router.quality.kernels import MAX_LANDMARKS
from router.quality.ratings_table import RatingsTable, Scale
from router.quality.rule import RulePart, RulePrior, fit_rule, hand_rule, rule_alone
from router.registry.artifact import Artifact, save_artifact

Array = NDArray[np.float64]
FEATURE_WEIGHTS = (0.3, 0.6, 1.0)
GAMMAS = (0.7, 1.5)
SHARES = (1.0, 0.8, 0.65, 0.5)
MANY_PROMPTS = 3_000  # from here on, one fold and fewer landmarks are enough to compare hyperparameters
SEARCH_LANDMARKS = 1_500


@dataclass(frozen=True)
class HeldOutScores:
    """What the model says of prompts that it did not see: calibrated means and standard deviations (n, c) on 0..1, NaN
    where not rated; split (n,): the fold in which each prompt was left out."""

    mean: Array
    std: Array
    split: NDArray[np.int64]


def train(
    ratings: Iterable[Rating],
    path: str | Path,
    name: str,
    source: str,
    licence: str,
    embedder: Embedder | None = None,
    folds: int = 5,
    seed: int = 0,
    notes: str = "",
    scale: Scale | None = None,
    widen: Mapping[str, float] | None = None,
    served: Mapping[str, Mapping[str, float]] | None = None,
    choice: Hyperparameters | None = None,
    cards: Record | None = None,
    prior: RulePrior | None = RulePrior(),
    apart: Literal["learned", "rule"] = "learned",
) -> tuple[Artifact, tuple[ColumnReport, ...]]:
    """Fit, calibrate, save to folder `path`. `source` and `licence` tell in the card where the ratings are from;
    `notes` (Markdown) stand at its end. `scale`: the range of the scores, if it is known.
    `widen`: by how much the deviations of some columns grow, because their ratings only stand in for others.
    `served`: the artefact's columns as means of rated ones, with shares. All that is rated is learned from, whatever is
    served of it, so a served column more leaves the others as they were.
    `choice`: hyperparameters that were chosen elsewhere, instead of the best on these folds.
    `cards`: of the models in the columns, what their cards said when the ratings were made (`card_record`); where a
    card says otherwise later, estimates are lowered and widened.
    `prior`: how much of the hand-written rule is expected beside what is learned; None: no rule.
    `apart`: "rule", if only what a prompt does to all columns alike is to be learned, and the rule sets them apart: for
    ratings that stand in for others, which say little of the difference.

    Raises `ArtifactError` if the table cannot be learned from. Same table and seed, same artefact.
    """
    table = tabulate(ratings, scale)
    heads = load_skills()
    embeddings = (embedder or MiniLMEmbedder()).embed(table.prompts)
    prompts = prompts_of(table.prompts, embeddings, heads)
    split = split_groups(table.groups, folds, seed)
    if choice is None:
        choice, raw = choose(prompts, table, split, seed)
    else:
        raw = crossed(prompts, table, split, choice, seed)
    given = served or {column: {column: 1.0} for column in table.columns}
    shares = shares_of(table.columns, given)
    out = table.mixed(tuple(given), shares)
    calibrations, held_out, reports = calibrate_columns(out, raw @ shares, split)
    parts: dict[str, Any] = {}
    if apart == "rule":
        contrasts = Contrasts(np.array([r.mean for r in reports]), np.zeros(len(reports)))
        rule = rule_alone(out.scores, out.prompts, prior or RulePrior())
        held_out = _set_apart(held_out, out, contrasts, rule)
        calibrations, held_out, reports = _with_errors_of(calibrations, held_out, out)
        parts = {"contrasts": contrasts.config, "rule": rule.config}
    elif served is None:  # a mean of columns has no part of its own
        contrasts = fit_contrasts(held_out.mean, out.scores, out.weights)
        parts["contrasts"] = contrasts.config
        if prior is not None:
            parts["rule"] = fit_rule(contrasts.shrunk(held_out.mean), out.scores, out.prompts, prior).config
    calibrations = [c.widened((widen or {}).get(n, 1.0)) for c, n in zip(calibrations, out.columns, strict=True)]
    mixture = fit_mixture(prompts, table, choice, seed).mixed(shares)
    config, weights = _content(name, table, out, embeddings, choice, mixture, calibrations, reports, heads, seed)
    config |= parts
    if cards:
        config["cards"] = {model: dict(card) for model, card in sorted(cards.items())}
    return save_artifact(path, config, weights, predictor_card(config, reports, source, licence, notes)), reports


def predict_held_out(
    table: RatingsTable,
    embedder: Embedder | None = None,
    folds: int = 5,
    seed: int = 0,
    choice: Hyperparameters | None = None,
) -> tuple[HeldOutScores, tuple[ColumnReport, ...]]:
    """Predictions for every prompt of a table by models that were trained without its fold, as `train` would; with
    `choice`, by those hyperparameters instead of the best."""
    prompts = prompts_of(table.prompts, (embedder or MiniLMEmbedder()).embed(table.prompts), load_skills())
    split = split_groups(table.groups, folds, seed)
    raw = crossed(prompts, table, split, choice, seed) if choice else choose(prompts, table, split, seed)[1]
    _, held_out, reports = calibrate_columns(table, raw, split)
    return held_out, reports


def choose(prompts: Prompts, table: RatingsTable, split: NDArray[np.int64], seed: int) -> tuple[Hyperparameters, Array]:
    """The hyperparameters with the least held-out squared error, and the held-out raw predictions (n, c) they give."""
    candidates = [Hyperparameters(weight, gamma) for weight, gamma in product(FEATURE_WEIGHTS, GAMMAS)]
    many = len(split) > MANY_PROMPTS
    folds, landmarks = (np.unique(split)[:1], SEARCH_LANDMARKS) if many else (np.unique(split), MAX_LANDMARKS)
    searched = tqdm(candidates, desc="hyperparameters", disable=None)
    tried = {c: _crossed(prompts, table, split, folds, c, seed, landmarks)[0] for c in searched}
    best = min(candidates, key=lambda choice: _error(table, tried[choice]))
    kernel, grams = _crossed(prompts, table, split, np.unique(split), best, seed, with_grams=True)
    mixed = {share: share * kernel + (1 - share) * grams for share in SHARES}
    share = min(SHARES, key=lambda share: _error(table, mixed[share]))
    return replace(best, share=share), mixed[share]


def crossed(
    prompts: Prompts, table: RatingsTable, split: NDArray[np.int64], choice: Hyperparameters, seed: int
) -> Array:
    """Held-out raw predictions (n, c) with given hyperparameters."""
    kernel, grams = _crossed(prompts, table, split, np.unique(split), choice, seed, with_grams=choice.share < 1)
    return choice.share * kernel + (1 - choice.share) * grams if choice.share < 1 else kernel


def _crossed(
    prompts: Prompts, table: RatingsTable, split: NDArray[np.int64], folds: NDArray[np.int64], choice: Hyperparameters,
    seed: int, landmarks: int = MAX_LANDMARKS, with_grams: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Raw predictions (n, c) for the prompts of `folds`, held out, of the kernel alone and of the n-grams alone."""
    kernel, grams = (np.full_like(table.scores, np.nan) for _ in range(2))
    for fold in tqdm(folds, desc="folds", disable=None, leave=False):
        out = split == fold
        fitted = fit_mixture(prompts.only(~out), table.only(~out), choice, seed, landmarks, with_grams)
        kernel[out] = replace(fitted, grams=None).predict(prompts.only(out))
        if fitted.grams is not None:
            grams[out] = replace(fitted, share=0.0).predict(prompts.only(out))
    return kernel, grams


def _error(table: RatingsTable, raw: Array) -> float:
    return float(np.nansum(table.weights * (table.scores - raw) ** 2) / table.weights.sum())


def calibrate_columns(
    table: RatingsTable, held_out: Array, split: NDArray[np.int64]
) -> tuple[list[Calibration], HeldOutScores, tuple[ColumnReport, ...]]:
    """One calibration and one report for each column, and what the calibrations say of prompts they did not see."""
    calibrations, reports = [], []
    whole = HeldOutScores(np.full_like(held_out, np.nan), np.full_like(held_out, np.nan), split)
    for k, name in enumerate(table.columns):
        rated = ~np.isnan(table.scores[:, k])
        score, weight, raw = table.scores[rated, k], table.weights[rated, k], held_out[rated, k]
        calibration, crossed = fit_calibration(raw, score, weight, split[rated])
        calibrations.append(calibration)
        whole.mean[rated, k], whole.std[rated, k] = crossed.mean, crossed.std
        reports.append(_report(name, crossed.mean, crossed.std, score, weight))
    return calibrations, whole, tuple(reports)


def _set_apart(held_out: HeldOutScores, table: RatingsTable, contrasts: Contrasts, rule: RulePart) -> HeldOutScores:
    """Held-out means as they are served if the rule alone sets columns apart."""
    known = np.where(np.isnan(held_out.mean), contrasts.level + np.nanmean(held_out.mean - contrasts.level, axis=1,
                     keepdims=True), held_out.mean)  # fmt: skip
    said = np.array([hand_rule(prompt) for prompt in table.prompts])
    return replace(held_out, mean=np.where(np.isnan(held_out.mean), np.nan, rule.added(contrasts.shrunk(known), said)))


def _with_errors_of(
    calibrations: Sequence[Calibration], held_out: HeldOutScores, table: RatingsTable
) -> tuple[list[Calibration], HeldOutScores, tuple[ColumnReport, ...]]:
    """The same curves of the mean with deviations as these held-out means are wrong, and reports of them."""
    found, reports = [], []
    std = np.full_like(held_out.std, np.nan)
    for k, (name, calibration) in enumerate(zip(table.columns, calibrations, strict=True)):
        rated = ~np.isnan(table.scores[:, k]) & ~np.isnan(held_out.mean[:, k])
        mean, score, weight = held_out.mean[rated, k], table.scores[rated, k], table.weights[rated, k]
        found.append(with_deviation_of(calibration, mean, score, weight))
        for fold in np.unique(held_out.split[rated]):
            out = held_out.split[rated] == fold
            others = with_deviation_of(calibration, mean[~out], score[~out], weight[~out])
            std[np.flatnonzero(rated)[out], k] = others.std(mean[out])
        reports.append(_report(name, mean, std[rated, k], score, weight))
    return found, replace(held_out, std=std), tuple(reports)


def _report(name: str, mean: Array, std: Array, score: Array, weight: Array) -> ColumnReport:
    level = float(np.average(score, weights=weight))
    return ColumnReport(
        name,
        len(score),
        level,
        _pearson(mean, score),
        float(np.average((score - mean) ** 2, weights=weight)),
        float(np.average((score - level) ** 2, weights=weight)),
        float((np.abs(score - mean) <= Z * std).mean()),
    )


def split_groups(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (n,) in which each prompt is held out; a group is never split. Raises `ArtifactError` for a number of
    folds that the groups do not fill."""
    if not 2 <= folds <= len(set(groups)):
        raise ArtifactError(f"{folds} folds of {len(set(groups))} groups of prompts; take 2 to {len(set(groups))}")
    from sklearn.model_selection import GroupKFold

    split = np.zeros(len(groups), dtype=np.int64)
    parts = GroupKFold(n_splits=folds, shuffle=True, random_state=seed).split(split, groups=list(groups))
    for fold, (_, out) in enumerate(parts):
        split[out] = fold
    return split


def _content(
    name: str,
    table: RatingsTable,
    out: RatingsTable,
    embeddings: NDArray[np.float32],
    choice: Hyperparameters,
    mixture: Mixture,
    calibrations: Sequence[Calibration],
    reports: Sequence[ColumnReport],
    heads: SkillHeads,
    seed: int,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """For the columns of `out`, which are served, of the `table`, which was learned from."""
    domain = fit_domain(embeddings, table.groups, seed)
    rated = table.scores[~np.isnan(table.scores)]
    spread = float(rated.std())
    mean = np.array([report.mean for report in reports], np.float32)
    # Off its domain a column may be anything the table has seen: never narrower than all ratings together.
    std = np.array([max(np.sqrt(report.mse_constant), spread) for report in reports], np.float32)
    config = {
        "name": name,
        "embedding": {"model": "all-MiniLM-L6-v2", "width": int(embeddings.shape[1])},
        "features": [*FEATURES, *SIGNALS],
        "columns": list(out.columns),
        "scale": asdict(table.scale),
        **asdict(choice),
        "calibration": [
            {"knots": c.knots.round(6).tolist(), "spread": c.spread, "floor": c.floor} for c in calibrations
        ],
        "prior": {"mean": float(rated.mean()), "std": spread},
        "composition": asdict(composition_of(out.columns, out.scores)),
        "domain": {"near": domain.near},
        "training": {"prompts": len(table.prompts), "seed": seed, "held_out": [asdict(report) for report in reports]},
    }
    weights = mixture.weights | heads.weights
    return config, weights | {"anchors": domain.references, "column_mean": mean, "column_std": std}


def _pearson(left: Array, right: Array) -> float:
    """0.0 when either side is constant."""
    if left.std() < 1e-12 or right.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
