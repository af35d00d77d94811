"""Trains the quality predictor: a table of ratings in, a verified artefact out. `python -m router.training -h`.

All choices and all reported figures come from grouped K-fold: a prompt is never predicted by a model that saw it or a
near-duplicate. The hyperparameters are chosen on the same folds (30 combinations, one choice for all columns).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact, save_artifact
from router.calibration import Calibration, Z, fit_calibration
from router.composition import Composition
from router.domain import NEIGHBOURS, fit_domain
from router.embedding import Embedder, MiniLMEmbedder
from router.errors import ArtifactError
from router.features import FEATURES, lexical_features
from router.kernels import KernelRidge, Scaler, feature_rows, fit_kernel_ridge, rbf
from router.ratings import Rating, RatingsTable, read_ratings, tabulate

Array = NDArray[np.float64]
MAX_PROMPTS = 5_000  # the closed form needs n^2 memory and n^3 time
FEATURE_WEIGHTS = (0.5, 1.0)
LINEAR_SHARES = (0.0, 0.3, 1.0)
RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Choice:
    """Hyperparameters, chosen by cross-validation."""

    feature_weight: float
    linear: float
    ridge: float
    gamma: float


@dataclass(frozen=True)
class ColumnReport:
    """Held-out figures of one recipe. mse_constant: of always predicting the mean; coverage: of 90 % intervals."""

    recipe: str
    prompts: int
    mean: float
    pearson: float
    mse: float
    mse_constant: float
    coverage: float


def train(
    ratings: Iterable[Rating],
    path: str | Path,
    name: str,
    source: str,
    licence: str,
    embedder: Embedder | None = None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Artifact, tuple[ColumnReport, ...]]:
    """Fit, calibrate, save to folder `path`. `source` and `licence` tell in the card where the ratings are from.

    Raises `ArtifactError` if the table cannot be learned from. Same table and seed, same artefact.
    """
    table = tabulate(ratings)
    if len(table.prompts) > MAX_PROMPTS:
        raise ArtifactError(f"the table has {len(table.prompts):,} prompts; draw at most {MAX_PROMPTS:,} of them")
    embeddings = (embedder or MiniLMEmbedder()).embed(table.prompts)
    features = feature_rows([lexical_features(prompt) for prompt in table.prompts], FEATURES)
    split = _split(table.groups, folds, seed)
    choice, held_out = choose(embeddings, features, table, split)
    calibrations, reports = calibrate(table, held_out, split)
    scaler, model = _fit(embeddings, features, table, choice)
    config, weights = _content(name, table, embeddings, choice, scaler, model, calibrations, reports, seed)
    return save_artifact(path, config, weights, _card(config, reports, source, licence)), reports


def choose(
    embeddings: NDArray[np.float32], features: Array, table: RatingsTable, split: NDArray[np.int64]
) -> tuple[Choice, Array]:
    """The hyperparameters with the least held-out squared error, and the held-out raw predictions (n, c) they give."""
    best: tuple[float, Choice, Array] | None = None
    for weight, linear, ridge in product(FEATURE_WEIGHTS, LINEAR_SHARES, RIDGES):
        choice = Choice(weight, linear, ridge, _gamma(embeddings, features, weight))
        held_out = np.full_like(table.scores, np.nan)
        for fold in np.unique(split):
            out = split == fold
            scaler, model = _fit(embeddings[~out], features[~out], _rows(table, ~out), choice)
            held_out[out] = model.predict(scaler.join(embeddings[out], features[out]))
        error = float(np.nansum(table.weights * (table.scores - held_out) ** 2) / table.weights.sum())
        if best is None or error < best[0]:
            best = (error, choice, held_out)
    assert best is not None
    return best[1], best[2]


def calibrate(
    table: RatingsTable, held_out: Array, split: NDArray[np.int64]
) -> tuple[list[Calibration], tuple[ColumnReport, ...]]:
    """One calibration and one report for each column."""
    calibrations, reports = [], []
    for k, name in enumerate(table.columns):
        rated = ~np.isnan(table.scores[:, k])
        score, weight, raw = table.scores[rated, k], table.weights[rated, k], held_out[rated, k]
        calibration, crossed = fit_calibration(raw, score, weight, split[rated])
        calibrations.append(calibration)
        level = float(np.average(score, weights=weight))
        inside = np.abs(score - crossed.mean) <= Z * crossed.std
        reports.append(
            ColumnReport(
                name,
                int(rated.sum()),
                level,
                _pearson(crossed.mean, score),
                float(np.average((score - crossed.mean) ** 2, weights=weight)),
                float(np.average((score - level) ** 2, weights=weight)),
                float(inside.mean()),
            )
        )
    return calibrations, tuple(reports)


def _split(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (n,) in which each prompt is held out; a group is never split."""
    from sklearn.model_selection import GroupKFold

    split = np.zeros(len(groups), dtype=np.int64)
    parts = GroupKFold(n_splits=folds, shuffle=True, random_state=seed).split(split, groups=list(groups))
    for fold, (_, out) in enumerate(parts):
        split[out] = fold
    return split


def _fit(embeddings: NDArray[Any], features: Array, table: RatingsTable, choice: Choice) -> tuple[Scaler, KernelRidge]:
    scaler = Scaler.fit(features, choice.feature_weight)
    inputs = scaler.join(embeddings, features)
    return scaler, fit_kernel_ridge(inputs, table.scores, table.weights, choice.linear, choice.gamma, choice.ridge)


def _rows(table: RatingsTable, rows: NDArray[np.bool_]) -> RatingsTable:
    kept = np.flatnonzero(rows)
    prompts, groups = tuple(table.prompts[k] for k in kept), tuple(table.groups[k] for k in kept)
    return RatingsTable(prompts, groups, table.columns, table.scores[rows], table.weights[rows])


def _gamma(embeddings: NDArray[Any], features: Array, weight: float) -> float:
    """One over the median squared distance between inputs (of the first 500 prompts)."""
    inputs = Scaler.fit(features, weight).join(embeddings, features)[:500]
    square = -np.log(np.maximum(rbf(inputs, inputs, 1.0), 1e-300))
    return float(1.0 / max(np.median(square[np.triu_indices(len(inputs), 1)]), 1e-6))


def _composition(table: RatingsTable) -> Composition:
    """The default rules, with what the table itself shows: what a refine adds, and what its scorers are worth."""
    usual = Composition()
    scores = dict(zip(table.columns, table.scores.T, strict=True))
    deltas = [
        float(np.nanmean(scores[name] - scores[head]))
        for name in table.columns
        if "(" not in name
        and (head := name.rpartition(">")[0]) in scores
        and np.isfinite(scores[name] - scores[head]).any()
    ]
    gains: list[tuple[float, float]] = []
    for name in table.columns:
        branches = name.partition(";")[2].removesuffix(")").split("|") if name.startswith("best_of(") else []
        if branches and all(branch in scores for branch in branches):
            parts = np.stack([scores[branch] for branch in branches])
            mean, perfect = parts.mean(axis=0), 1 - np.prod(1 - parts, axis=0)
            gains.append(
                (float(np.nansum((scores[name] - mean) * (perfect - mean))), float(np.nansum((perfect - mean) ** 2)))
            )
    room = sum(right for _, right in gains)
    reliability = sum(left for left, _ in gains) / room if room > 1e-9 else usual.scorer_reliability
    return Composition(
        scorer_reliability=float(np.clip(reliability, 0.0, 1.0)),
        refine_delta=float(np.mean(deltas)) if deltas else usual.refine_delta,
        widen=usual.widen,
        neighbour_widen=usual.neighbour_widen,
    )


def _content(
    name: str,
    table: RatingsTable,
    embeddings: NDArray[np.float32],
    choice: Choice,
    scaler: Scaler,
    model: KernelRidge,
    calibrations: Sequence[Calibration],
    reports: Sequence[ColumnReport],
    seed: int,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    domain = fit_domain(embeddings, table.groups, seed)
    mean = np.array([report.mean for report in reports])
    rated = table.scores[~np.isnan(table.scores)]
    spread = float(rated.std())
    # Off its domain a column may be anything the table has seen: never narrower than all ratings together.
    std = np.array([max(np.sqrt(report.mse_constant), spread) for report in reports])
    config = {
        "name": name,
        "embedding": {"model": "all-MiniLM-L6-v2", "width": int(embeddings.shape[1])},
        "features": list(FEATURES),
        "columns": list(table.columns),
        "feature_weight": choice.feature_weight,
        "linear": choice.linear,
        "ridge": choice.ridge,
        "gamma": choice.gamma,
        "calibration": [
            {"knots": c.knots.round(6).tolist(), "spread": c.spread, "floor": c.floor} for c in calibrations
        ],
        "prior": {"mean": float(rated.mean()), "std": spread},
        "composition": asdict(_composition(table)),
        "domain": {"near": domain.near},
        "training": {"prompts": len(table.prompts), "seed": seed, "held_out": [asdict(report) for report in reports]},
    }
    weights = {
        "support": model.support, "dual": model.dual, "slope": model.slope, "level": model.level,
        "feature_mean": scaler.mean, "feature_std": scaler.std, "anchors": domain.anchors,
        "column_mean": mean, "column_std": std,
    }  # fmt: skip
    return config, {key: np.asarray(array, dtype=np.float32) for key, array in weights.items()}


def _card(config: dict[str, Any], reports: Sequence[ColumnReport], source: str, licence: str) -> str:
    rows = "\n".join(
        f"| `{r.recipe}` | {r.prompts} | {r.mean:.3f} | {r.pearson:.3f} | {r.mse:.4f} | {r.mse_constant:.4f} "
        f"| {r.coverage:.3f} |"
        for r in reports
    )
    rules = ", ".join(f"{key} {value:.3g}" for key, value in config["composition"].items())
    return f"""# Quality predictor `{config["name"]}`

Trained on: {source}. Licence of the ratings: {licence}.

Kernel ridge (linear share {config["linear"]}, ridge {config["ridge"]}, gamma {config["gamma"]:.3g}) on the embedding of
{config["embedding"]["model"]} and {len(config["features"])} lexical features (weight {config["feature_weight"]}),
{config["training"]["prompts"]} prompts, seed {config["training"]["seed"]}. Composition: {rules}.

Held-out figures (grouped folds; calibration fitted without the own fold). `constant` always predicts the column's mean;
coverage is that of the 90 % intervals and should be near 0.90.

| recipe | prompts | mean score | Pearson | MSE | MSE constant | coverage |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

A prompt unlike the training prompts (mean cosine to its {NEIGHBOURS} nearest anchors below
{config["domain"]["near"]:.2f}) is predicted towards the column's mean with a wider interval, wholly so at half of that.
"""


def _pearson(left: Array, right: Array) -> float:
    """0.0 when either side is constant."""
    if left.std() < 1e-12 or right.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `python -m router.training`."""
    parser = argparse.ArgumentParser(prog="python -m router.training", description="Train a quality predictor.")
    parser.add_argument(
        "ratings", type=Path, help="table (.tsv, .csv, perhaps .gz): prompt, recipe, score[, group, weight]"
    )
    parser.add_argument("folder", type=Path, help="where the artefact goes")
    parser.add_argument("--name", default="quality")
    parser.add_argument("--source", default="an unnamed table", help="where the ratings are from, for the card")
    parser.add_argument("--licence", default="not stated")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        artifact, _ = train(
            read_ratings(options.ratings), options.folder, options.name, options.source, options.licence,
            folds=options.folds, seed=options.seed,
        )  # fmt: skip
    except ArtifactError as error:
        raise SystemExit(f"error: {error}") from error
    print(artifact.card)


if __name__ == "__main__":
    main()
