"""What training and evaluation report, worked out again from their definitions, and what they choose by."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from router.errors import ArtifactError
from router.learning import evaluation, training
from router.learning.evaluation import Pair, evaluate_columns, evaluate_pair, hull_area, pair_of, win_probability
from router.learning.feedback import DecisionRecord, Feedback, decision_of, facts_in, packed_facts, value_of_path
from router.learning.intervals import EveryLook, resampled
from router.learning.new_model import MIN_PROMPTS, _anchors, _widened
from router.learning.pairs import named_pair, predict_table, widest_pair
from router.learning.ratings import Rating, tabulate
from router.learning.report import ColumnReport, predictor_card
from router.learning.training import HeldOutScores, calibrate_columns, choose, crossed, split_groups
from router.prompts.embedding import MiniLMEmbedder
from router.quality.calibration import Z
from router.quality.kernel_ridge import Hyperparameters
from router.quality.ngrams import KINDS
from router.quality.predictor import QualityPredictor
from router.quality.ratings_table import RatingsTable, Scale
from router.registry.artifact import Artifact
from router.types import Estimate, Quality
from tests.router.conftest import synthetic_prompts, synthetic_ratings

RNG = np.random.default_rng(0)


def table_of(n: int = 40, columns: int = 3, scale: Scale = Scale()) -> RatingsTable:  # noqa: B008
    """Random scores and weights with holes."""
    rng = np.random.default_rng(1)
    scores = rng.random((n, columns))
    scores[rng.random((n, columns)) < 0.2] = np.nan
    weights = np.where(np.isnan(scores), 0.0, rng.integers(1, 4, (n, columns)).astype(float))
    names = tuple(f"p{k}" for k in range(n))
    return RatingsTable(names, tuple(f"g{k // 2}" for k in range(n)), tuple("abcdef"[:columns]), scores, weights, scale)


# ------------------------------------------------------------------------------------------------------------- training


def test_reports_are_weighted_figures_of_what_was_held_out() -> None:
    """Mean, errors, correlation and coverage of each column on its own rated prompts, by the calibrated predictions."""
    table = table_of()
    raw = np.nan_to_num(table.scores, nan=0.5) * 0.6 + RNG.normal(0.2, 0.1, table.scores.shape)
    calibrations, held_out, reports = calibrate_columns(table, raw, np.arange(40) % 4)
    assert len(calibrations) == 3 and [report.recipe for report in reports] == ["a", "b", "c"]
    for k, report in enumerate(reports):
        rated = ~np.isnan(table.scores[:, k])
        score, weight = table.scores[rated, k], table.weights[rated, k]
        mean, std = held_out.mean[rated, k], held_out.std[rated, k]
        level = (weight * score).sum() / weight.sum()
        assert report == ColumnReport(
            table.columns[k],
            int(rated.sum()),
            pytest.approx(level),  # type: ignore[arg-type]
            pytest.approx(np.corrcoef(mean, score)[0, 1]),  # type: ignore[arg-type]
            pytest.approx((weight * (score - mean) ** 2).sum() / weight.sum()),  # type: ignore[arg-type]
            pytest.approx((weight * (score - level) ** 2).sum() / weight.sum()),  # type: ignore[arg-type]
            pytest.approx((np.abs(score - mean) <= Z * std).mean()),  # type: ignore[arg-type]
        )
        assert np.isnan(held_out.mean[~rated, k]).all() and np.isnan(held_out.std[~rated, k]).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_constant_correlates_with_nothing(side: str) -> None:
    """On either side; in a report it is 0, in an evaluation no number."""
    constant, other = np.full(5, 0.3), np.arange(5.0)
    pair = (constant, other) if side == "left" else (other, constant)
    assert training._pearson(*pair) == 0.0
    assert math.isnan(evaluation.pearson(*pair)) and math.isnan(evaluation._spearman(*pair))
    assert training._pearson(other, 2 * other) == pytest.approx(1.0)
    assert evaluation._spearman(other, other**3) == pytest.approx(1.0)


def test_folds_hold_whole_groups_and_there_are_as_many_as_was_said() -> None:
    """At least two, at most one a group; by the seed."""
    groups = [f"g{k // 3}" for k in range(30)]
    for folds in (2, 3, 10):
        split = split_groups(groups, folds, seed=1)
        assert set(split) == set(range(folds))
        assert all(len(set(split[k : k + 3])) == 1 for k in range(0, 30, 3))
    assert (split_groups(groups, 3, 1) == split_groups(groups, 3, 1)).all()
    assert (split_groups(groups, 3, 1) != split_groups(groups, 3, 2)).any()
    for folds in (1, 11):
        with pytest.raises(ArtifactError, match=f"{folds} folds of 10 groups of prompts; take 2 to 10"):
            split_groups(groups, folds, 0)


class Fitting:
    """In the place of fitting: predictions that are off by so much, for each combination and for the n-grams."""

    def __init__(self, table: RatingsTable, off: dict[tuple[float, float], float], grams: float) -> None:
        self.table, self.off, self.grams, self.asked = table, off, grams, list[Any]()

    def __call__(
        self, prompts: Any, table: Any, split: Any, folds: Any, choice: Hyperparameters, seed: int,
        landmarks: int = training.MAX_LANDMARKS, with_grams: bool = False,
    ) -> Any:  # fmt: skip
        self.asked.append((len(folds), landmarks, with_grams))
        kernel = table.scores + self.off.get((choice.feature_weight, choice.gamma), 1.0)
        return kernel, table.scores + (self.grams if with_grams else np.nan)


@pytest.mark.parametrize(
    ("best", "grams", "share"),
    [((0.6, 1.5), 9.0, 1.0), ((0.3, 0.7), -0.1, 0.5), ((1.0, 0.7), -0.4, 0.8), ((1.0, 1.5), -0.2, 0.65)],
)
def test_the_hyperparameters_with_the_least_error_are_chosen(
    monkeypatch: pytest.MonkeyPatch, best: tuple[float, float], grams: float, share: float
) -> None:
    """Weight of the features and width first, then the kernel's share; what they predict comes along."""
    table = table_of()
    fitting = Fitting(table, {best: 0.1}, grams)
    monkeypatch.setattr(training, "_crossed", fitting)
    prompts: Any = None
    choice, raw = choose(prompts, table, np.arange(40) % 4, 0)
    assert choice == Hyperparameters(*best, share=share)
    np.testing.assert_allclose(raw, table.scores + share * 0.1 + (1 - share) * grams)
    assert fitting.asked == [(4, training.MAX_LANDMARKS, False)] * 6 + [(4, training.MAX_LANDMARKS, True)]
    np.testing.assert_allclose(crossed(prompts, table, np.arange(40) % 4, choice, 0), raw)
    assert fitting.asked[-1][2] is (share < 1)


@pytest.mark.parametrize(("prompts", "folds", "landmarks"), [(3_000, 4, training.MAX_LANDMARKS), (3_001, 1, 1_500)])
def test_of_many_prompts_one_fold_is_compared(
    monkeypatch: pytest.MonkeyPatch, prompts: int, folds: int, landmarks: int
) -> None:
    """Beyond 3,000, with fewer landmarks; what was chosen is fitted on all folds."""
    table = table_of(prompts, 2)
    fitting = Fitting(table, {}, 0.0)
    monkeypatch.setattr(training, "_crossed", fitting)
    none: Any = None
    choose(none, table, np.arange(prompts) % 4, 0)
    assert fitting.asked == [(folds, landmarks, False)] * 6 + [(4, training.MAX_LANDMARKS, True)]


def test_errors_are_weighted_and_what_was_not_predicted_is_none() -> None:
    """Over the weights of the whole table."""
    table = table_of()
    raw = table.scores + 0.5
    raw[0] = np.nan
    rest = np.nansum(table.weights[1:]) * 0.25 / table.weights.sum()
    assert training._error(table, raw) == pytest.approx(rest)


def test_an_artefact_says_what_it_was_trained_on(trained: tuple[Artifact, tuple[ColumnReport, ...]]) -> None:
    """Prior, deviations, calibrations, figures and shares are those of the table; off its domain no column is surer
    than all ratings together."""
    artifact, reports = trained
    table = tabulate(synthetic_ratings(synthetic_prompts(160)))
    config, weights = artifact.config, artifact.weights
    assert config["prior"] == pytest.approx({"mean": np.nanmean(table.scores), "std": np.nanstd(table.scores)})
    assert weights["column_mean"] == pytest.approx(np.nanmean(table.scores, axis=0), abs=1e-6)
    spread = np.nanstd(table.scores)
    assert weights["column_std"] == pytest.approx([max(np.sqrt(r.mse_constant), spread) for r in reports], abs=1e-6)
    assert config["training"]["held_out"] == [asdict(report) for report in reports]
    assert (config["training"]["prompts"], config["training"]["seed"]) == (160, 0)
    assert config["embedding"]["width"] == 384 and config["columns"] == list(table.columns)
    assert len(config["calibration"]) == len(reports) and "contrasts" in config and "cards" not in config
    assert config["feature_weight"] in (0.3, 0.6, 1.0) and config["gamma"] in (0.7, 1.5)
    assert config["share"] in (1.0, 0.8, 0.65, 0.5)


CONFIG: dict[str, Any] = {
    "name": "one", "scale": {"low": 1.0, "high": 5.0}, "share": 0.65, "gamma": 1.5, "feature_weight": 0.3,
    "embedding": {"model": "mini"}, "features": ["a", "b"], "training": {"prompts": 7, "seed": 3},
    "composition": {"refine_delta": 0.05123, "fuse": 2.0}, "domain": {"near": 0.456},
}  # fmt: skip


def test_the_card_is_written_from_the_figures() -> None:
    """Means on the scale of the ratings, shares in per cent, errors as they are."""
    report = ColumnReport("sd15", 40, 0.5, 0.8765, 0.01234, 0.05, 0.9)
    card = predictor_card(CONFIG, [report, replace(report, recipe="flux", mean=1.0)], "people", "CC0", "the end")
    assert "| `sd15` | 40 | 3.000 | 0.876 | 0.0123 | 0.0500 | 0.900 |\n| `flux` | 40 | 5.000 |" in card
    for words in (
        "Trained on: people. Licence of the ratings: CC0.", "Scores from 1 to 5,", "mini and 2 features",
        "65% kernel, the rest n-grams.", "7 prompts, seed 3. Composition: refine_delta 0.0512, fuse 2.", "0.46)",
    ):  # fmt: skip
        assert words in card
    assert card.endswith("\nthe end")
    assert "the kernel alone." in predictor_card({**CONFIG, "share": 1}, [report], "p", "l", "")


# ----------------------------------------------------------------------------------------------------------- evaluation


def held(table: RatingsTable, off: float = 0.1) -> HeldOutScores:
    rng = np.random.default_rng(2)
    mean = table.scores * 0.7 + rng.normal(off, 0.1, table.scores.shape)
    return HeldOutScores(mean, rng.uniform(0.05, 0.2, mean.shape), np.arange(len(mean)) % 3)


def test_a_pair_is_of_the_prompts_that_rate_both_on_the_scale_of_the_ratings() -> None:
    """Scores as people gave them, gains and deviations as they were predicted, on 0 to 1."""
    table = table_of(scale=Scale(1.0, 5.0))
    said = held(table)
    said.mean[3] = np.nan
    pair = pair_of(table, said, "a", "c")
    rows = [k for k in range(40) if k != 3 and not np.isnan(table.scores[k, [0, 2]]).any()]
    assert 5 < len(rows) < 39
    np.testing.assert_allclose(pair.cheap, 1 + 4 * table.scores[rows, 0])
    np.testing.assert_allclose(pair.strong, 1 + 4 * table.scores[rows, 2])
    np.testing.assert_allclose(pair.gain, said.mean[rows, 2] - said.mean[rows, 0])
    np.testing.assert_allclose(pair.gain_std, np.sqrt(said.std[rows, 2] ** 2 + said.std[rows, 0] ** 2))
    assert pair.prompts == tuple(f"p{k}" for k in rows) and pair.groups.tolist() == [f"g{k // 2}" for k in rows]
    assert pair.split.tolist() == [k % 3 for k in rows]


def test_columns_are_judged_on_what_they_were_rated_on() -> None:
    """Pearson, Spearman and coverage of each column and of the mean of whole rows; of two prompts nothing is said."""
    table = table_of()
    table.scores[2:, 1] = np.nan
    said = held(table)
    found = evaluate_columns(table, said)
    assert set(found) == {"a", "c"}
    for name, k in (("a", 0), ("c", 2)):
        rated = np.isfinite(table.scores[:, k])
        score, mean, std = table.scores[rated, k], said.mean[rated, k], said.std[rated, k]
        assert found[name]["prompts"] == rated.sum()
        assert found[name]["pearson"] == pytest.approx(np.corrcoef(score, mean)[0, 1])
        assert found[name]["spearman"] == pytest.approx(spearmanr(score, mean).statistic)
        assert found[name]["coverage"] == pytest.approx((np.abs(score - mean) <= Z * std + 1e-9).mean())
        low, high = found[name]["pearson_95"]
        assert low < found[name]["pearson"] < high
    three = table_of()
    three.scores[3:] = np.nan
    three.scores[:3] = RNG.random((3, 3))
    whole = evaluate_columns(three, held(three))
    assert set(whole) == {"a", "b", "c", "(mean of all)"} and "coverage" not in whole["(mean of all)"]
    score, mean = three.scores[:3].mean(axis=1), held(three).mean[:3].mean(axis=1)
    assert whole["(mean of all)"]["pearson"] == pytest.approx(np.corrcoef(score, mean)[0, 1])
    three.scores[2] = np.nan
    assert evaluate_columns(three, held(three)) == {}


def pair(n: int = 60) -> Pair:
    rng = np.random.default_rng(3)
    cheap, strong = rng.integers(1, 5, n).astype(float), rng.integers(2, 6, n).astype(float)
    gain = (strong - cheap) / 6 + rng.normal(0, 0.3, n)
    groups = np.array([f"g{k // 2}" for k in range(n)])
    return Pair(cheap, strong, gain, rng.uniform(0.1, 0.4, n), np.arange(n) % 3, groups, tuple(map(str, range(n))))


def test_the_chance_of_a_win_is_scaled_on_the_other_folds() -> None:
    """Brier scores and calibration error by their definitions; a tie is half a win."""
    given = pair()
    gains = given.strong - given.cheap
    won = np.where(gains > 0, 1.0, np.where(gains == 0, 0.5, 0.0))
    z, chance = given.gain / given.gain_std, np.empty(60)
    for fold in range(3):
        out = given.split == fold
        grid = [
            (((norm.cdf(a * z[~out] + b) - won[~out]) ** 2).mean(), n, a, b)
            for n, (a, b) in enumerate((a, b) for a in (0.5, 0.75, 1, 1.5, 2) for b in (-0.4, -0.2, 0, 0.2, 0.4))
        ]
        _, _, a, b = min(grid)
        chance[out] = norm.cdf(a * z[out] + b)
    found = win_probability(given)
    assert found["brier"] == pytest.approx(((chance - won) ** 2).mean())
    assert found["brier_constant"] == pytest.approx(won.var())
    bins = np.minimum((chance * 10).astype(int), 9)
    ece = sum(abs((chance[bins == k] - won[bins == k]).mean()) * (bins == k).mean() for k in set(bins.tolist()))
    assert found["ece"] == pytest.approx(ece)
    sure = win_probability(replace(given, gain=np.where(gains > 0, 9.0, -9.0), gain_std=np.full(60, 0.01)))
    assert sure["brier"] == pytest.approx(((won == 0.5) / 4).mean())
    alone = win_probability(replace(given, split=np.zeros(60, np.int64)))
    assert alone["brier"] <= found["brier_constant"]


def test_all_figures_of_a_pair_follow_from_its_curves() -> None:
    """Ends, areas, shares of the oracle, and the curve on the scale of the scores."""
    given = pair()
    report = evaluate_pair(given)
    cheap, strong = given.cheap.mean(), given.strong.mean()
    assert (report["prompts"], report["ends"]) == (60, [pytest.approx(cheap), pytest.approx(strong)])
    assert report["random"] == {"apgr": 0.5, "calls_at": [0.5, 0.8, 0.95], "aiq": pytest.approx((cheap + strong) / 2)}
    oracle = report["rankings"]["oracle"]
    assert oracle["of_oracle"] == pytest.approx(1.0) and report["note"] == ""
    for name, figures in report["rankings"].items():
        curve = np.array(figures["curve"])
        assert (curve[0], curve[-1]) == (pytest.approx(cheap, abs=1e-5), pytest.approx(strong, abs=1e-5))
        area = np.trapezoid(curve - cheap, dx=0.01) / (strong - cheap)
        assert figures["apgr"] == pytest.approx(area, abs=1e-4), name
        assert figures["of_oracle"] == pytest.approx((area - 0.5) / (oracle["apgr"] - 0.5), abs=1e-3)
        assert figures["aiq"] == pytest.approx(cheap + hull_area(curve - cheap), abs=1e-4)
        reached = [np.flatnonzero(curve - cheap >= gap * (strong - cheap) - 1e-4)[0] / 100 for gap in (0.5, 0.8, 0.95)]
        assert figures["calls_at"] == pytest.approx(reached, abs=0.011)
        assert figures["apgr_95"][0] < figures["apgr"] < figures["apgr_95"][1]
    level = replace(given, strong=given.cheap.copy())
    assert "not better here" in evaluate_pair(level)["note"]
    assert math.isnan(evaluate_pair(level)["rankings"]["oracle"]["of_oracle"])


# ---------------------------------------------------------------------------------------------------------------- pairs


def test_a_name_may_have_colons_in_a_pair() -> None:
    """It is cut where both sides are models; and the pair that is compared by default is the widest one that can be."""
    columns = ("sd15:scheduler=dpm", "flux", "a", "scheduler=dpm:flux")
    assert named_pair("sd15:scheduler=dpm:flux", columns) == ("sd15:scheduler=dpm", "flux")
    assert named_pair("flux:sd15:scheduler=dpm", columns) == ("flux", "sd15:scheduler=dpm")
    with pytest.raises(ArtifactError, match=r"such as sd15:scheduler=dpm:flux$"):
        named_pair("x", columns)
    table = table_of(60, 3)
    table.scores[:] = np.nan
    table.scores[:, 0], table.scores[:20, 1], table.scores[15:, 2] = 0.5, 0.9, 0.0
    assert widest_pair(table) == ("c", "a")
    table.scores[20:, 0] = np.nan
    with pytest.raises(ArtifactError, match="'c' and 'b' are rated together on 5 prompts"):
        widest_pair(table)


def test_a_table_is_predicted_column_by_column(
    trained: tuple[Artifact, tuple[ColumnReport, ...]], embedder: MiniLMEmbedder
) -> None:
    """What the artefact knows is there with its deviation, what it does not is no number."""
    prompts = ("a red circle", "two green stars above a blue ring")
    names = ("new", "flux")
    table = RatingsTable(prompts, prompts, names, np.zeros((2, 2)), np.ones((2, 2)))
    predictor = QualityPredictor(trained[0])
    found = predict_table(predictor, embedder, table)
    assert np.isnan(found.mean[:, 0]).all() and np.isnan(found.std[:, 0]).all() and found.split.tolist() == [0, 0]
    assert ((found.mean[:, 1] > 0) & (found.mean[:, 1] < 1) & (found.std[:, 1] > 0)).all()


# ------------------------------------------------------------------------------------------------------------ new model


def test_anchors_are_weighted_means_on_the_scale_of_the_artefact() -> None:
    """Each prompt once; both ends of the scale belong to it; twenty are enough."""
    artifact: Any = SimpleNamespace(config={"columns": ["a"], "scale": {"low": 1.0, "high": 5.0}})
    rows = [Rating(f"P {k}", "new", 1.0 + 4 * (k % 2), group="g" if k == 3 else "") for k in range(MIN_PROMPTS)]
    name, prompts, groups, scores = _anchors(artifact, [*rows, Rating("P 0", "new", 5.0, weight=3.0)])
    assert (name, len(prompts), groups[:4]) == ("new", 20, ["p 0", "p 1", "p 2", "g"])
    assert scores.tolist() == [0.75, *([1.0, 0.0] * 10)[:19]]
    for score in (0.99, 5.01):
        with pytest.raises(ArtifactError, match=r"is outside 1\.\.5"):
            _anchors(artifact, [Rating("p", "new", score)])


def test_a_new_column_is_a_mixture_of_the_others_in_every_array() -> None:
    """Of the kernel and of the n-grams; nothing was said of it yet, so feedback adds nothing; its deviation is no
    smaller than that of all ratings together."""
    rng = np.random.default_rng(4)
    weights = {"dual": rng.random((5, 2)), f"{KINDS[0]}_slope": rng.random((7, 2)), "level": np.array([0.4, 0.6]),
               "column_mean": np.array([0.5, 0.5]), "column_std": np.array([0.2, 0.2]),
               "feedback_dual": np.ones((3, 2)), "feedback_level": np.ones(2)}  # fmt: skip
    artifact: Any = SimpleNamespace(weights=weights, config={"prior": {"std": 0.3}})
    mix = np.array([0.25, 0.5])
    for mse_constant, std in ((0.04, 0.3), (0.16, 0.4)):
        report = ColumnReport("new", 20, 0.7, 0.5, 0.01, mse_constant, 0.9)
        found = _widened(artifact, mix, 0.55, report)
        for name in ("dual", f"{KINDS[0]}_slope"):
            np.testing.assert_allclose(found[name][:, 2], weights[name] @ mix, rtol=1e-6)
            np.testing.assert_allclose(found[name][:, :2], weights[name], rtol=1e-6)
        assert found["feedback_dual"].shape == (3, 3) and not found["feedback_dual"][:, 2].any()
        assert found["feedback_level"].tolist() == [1, 1, 0]
        ends = [found[name][-1] for name in ("level", "column_mean", "column_std")]
        assert ends == pytest.approx([0.55, 0.7, std], abs=1e-6)


# ------------------------------------------------------------------------------------------------------------- feedback


def record(**changes: Any) -> DecisionRecord:
    estimate = Estimate("draft", Quality(1 / 3, 0.1), 1.23456789, 0.0, 2.0, 1e-9)
    return DecisionRecord(
        **{  # type: ignore[arg-type]
            "id": "r",
            "at_s": 1.0,
            "prompt": "p",
            "embedding": np.array([0.6, 0.8]),
            "policy": "main",
            "features": {"a": 1.0, "b": 0.0},
            "policy_digest": "d",
            "artifact": "a",
            "base": "b",
            "base_means": {"sd15": 0.1234567},
            "options": {"draft": estimate},
            "keys": {"draft": "sd15"},
            "recipe": "draft",
            "propensity": 0.5,
            "made": ("draft", "fine"),
            "kept": (1,),
            **changes,
        }
    )


def test_what_was_said_counts_for_the_picture_that_was_delivered() -> None:
    """Of its recipe and its try; others, and pictures that there are not, count for nothing."""
    one = record()
    assert [one.delivered(k) for k in (0, 1)] == [("draft", 1), ("fine", 0)]
    said = [
        Feedback("rating", 0, "draft", 0.25, attempt=1), Feedback("rating", 0, "draft", 1.0),
        Feedback("rating", 1, "fine", 0.75), Feedback("rating", 1, "draft", 1.0), Feedback("rating", 2, "draft", 1.0),
    ]  # fmt: skip
    assert value_of_path(one, said) == 0.5
    assert value_of_path(one, said[1:2]) is None is value_of_path(one, [])
    assert value_of_path(record(made=("draft",), kept=()), said[1:2]) == 1.0


def test_a_decision_is_read_back_as_far_as_it_is_kept() -> None:
    """Zeros left out, means with five digits, estimates with seven; an embedding has length one again."""
    one = record()
    row = {
        name: getattr(one, name) for name in ("id", "at_s", "policy", "policy_digest", "artifact", "recipe", "prompt")
    }
    row |= {"propensity": 0.5, "number": 4, "prompt_hash": "h", "facts": packed_facts(one)}
    row["embedding"] = (3 * one.embedding).astype("<f2").tobytes()
    again = decision_of(row)
    assert again.features == {"a": 1.0} and again.base_means == {"sd15": 0.12346}
    kept = again.options["draft"]
    assert (kept.work_s, kept.quality.mean, kept.cost_usd) == (1.234568, 0.3333333, 1e-9)
    assert (again.made, again.kept, again.number, again.degradable) == (("draft", "fine"), (1,), 4, True)
    assert np.linalg.norm(again.embedding) == pytest.approx(1, abs=1e-3) and again.embedding.dtype == np.float32
    none = decision_of({**row, "embedding": np.zeros(2, "<f2").tobytes(), "prompt": None})
    assert (none.embedding.tolist(), none.prompt) == ([0.0, 0.0], "")
    assert facts_in('{"rules": []}') == {"rules": []}


# ------------------------------------------------------------------------------------------------------------ intervals


def test_intervals_follow_their_seed_and_number() -> None:
    """By default 400 resamples of seed 0, two and a half per cent on either side."""
    values = np.random.default_rng(5).normal(0, 1, 30)

    def mean(rows: Any) -> float:
        return float(values[rows].mean())

    assert resampled(30, mean) == resampled(30, mean, 0, 400) != resampled(30, mean, 1, 400)
    assert resampled(30, mean) != resampled(30, mean, 0, 401)
    assert resampled(np.zeros(30), mean) == [mean(range(30))] * 2
    two = resampled(2, lambda rows: float(rows.mean()), resamples=50)
    assert two == [0.0, 1.0]
    assert resampled(30, lambda rows: mean(rows) if rows[0] % 2 else math.nan)[0] < 0


def test_a_bound_that_is_wider_says_less() -> None:
    """Ends lie on a grid of a hundredth of the bound on either side of what is known; the mean of nothing is 0."""
    one, other = EveryLook(1.0), EveryLook(2.0)
    assert (one.mean, one.count) == (0.0, 0)
    for _ in range(200):
        one.add(0.5)
        other.add(0.5)
    (low, high), (wide_low, wide_high) = one.interval(), other.interval()
    assert wide_low < low < 0.5 < high < wide_high
    assert low * 100 == pytest.approx(round(low * 100)) and wide_low * 50 == pytest.approx(round(wide_low * 50))
