"""From a ratings table to a calibrated artefact."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.ratings import Rating, normal_group, read_ratings, tabulate
from router.learning.report import ColumnReport
from router.learning.training import split_groups, train
from router.planning.recipes import recipe_key
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features, skill_signals
from router.quality.calibration import Z, fit_calibration, isotonic_curve
from router.quality.predictor import QualityPredictor
from router.registry.artifact import Artifact
from router.types import Chain, Generate, PromptView, Recipe, Refine
from tests.router.conftest import synthetic_prompts, synthetic_ratings

Trained = tuple[Artifact, tuple[ColumnReport, ...]]
RECIPES: dict[str, Recipe] = {
    "a": Generate("sd15"),
    "b": Generate("sdxl"),
    "c": Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8))),
    "d": Generate("flux"),
}


def test_held_out_figures_beat_the_constant(trained: Trained) -> None:
    """Where the law is strong, held-out correlation is high and the squared error far below that of the mean."""
    reports = {report.recipe: report for report in trained[1]}
    assert reports["sd15"].pearson > 0.8
    assert reports["sd15"].mse < 0.5 * reports["sd15"].mse_constant


def test_intervals_cover_prompts_that_were_never_seen(trained: Trained, embedder: MiniLMEmbedder) -> None:
    """Of the scores of 150 new prompts, 85 to 95 % lie in their 90 % intervals; the report promised the same."""
    predictor = QualityPredictor(trained[0])
    known = set(synthetic_prompts(160))
    prompts = [prompt for prompt in synthetic_prompts(320, seed=1) if prompt not in known][:150]
    measured = {(r.prompt, r.recipe): r.score for r in synthetic_ratings(prompts, seed=1)}
    inside = []
    for prompt in prompts:
        features = lexical_features(prompt)
        view = PromptView(prompt, features, skill_signals(features), embedder.embed([prompt])[0])
        for name, quality in predictor.predict(view, RECIPES).items():
            inside.append(abs(measured[prompt, recipe_key(RECIPES[name], {})] - quality.mean) <= Z * quality.std)
    assert 0.85 <= np.mean(inside) <= 0.95
    assert all(0.85 <= report.coverage <= 0.95 for report in trained[1])


def test_training_is_reproducible(trained: Trained, embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """The same table and seed give the same bytes."""
    again, _ = train(
        synthetic_ratings(synthetic_prompts(160)), tmp_path / "x", "synthetic", "a formula", "CC0", embedder
    )
    assert again.digest == trained[0].digest


def test_the_table_teaches_what_a_refine_adds(trained: Trained) -> None:
    """The rated chain is 0.05 better than its first stage, and the composition rule knows."""
    assert trained[0].config["composition"]["refine_delta"] == pytest.approx(0.05, abs=0.02)


def test_shuffled_scores_teach_nothing(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """Without a law, the held-out error is that of the mean, and all prompts get nearly the same prediction."""
    rng = np.random.default_rng(0)
    ratings = [Rating(p, key, float(rng.random())) for p in synthetic_prompts(80) for key in ("sd15", "flux")]
    _, reports = train(ratings, tmp_path / "noise", "noise", "chance", "CC0", embedder)
    for report in reports:
        assert report.mse > 0.9 * report.mse_constant
        assert abs(report.pearson) < 0.35


def test_columns_may_be_rated_on_different_prompts(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """Holes in the table are holes, not zeros."""
    rows = [r for k, r in enumerate(synthetic_ratings(synthetic_prompts(80))) if k % 3]
    artifact, reports = train(rows, tmp_path / "holes", "holes", "a formula", "CC0", embedder)
    assert sum(report.prompts for report in reports) == len(rows)
    assert min(report.mean for report in reports) > 0.2
    QualityPredictor(artifact)


def test_binary_marks_are_calibrated() -> None:
    """On coin tosses with known odds, held-out means come within 0.05 of the odds, and intervals cover 85 % or more."""
    rng = np.random.default_rng(0)
    odds = rng.random(800)
    score = (rng.random(800) < odds).astype(float)
    raw = 0.3 + 0.4 * odds  # right in order, wrong in scale
    calibration, held_out = fit_calibration(raw, score, np.ones(800), np.arange(800) % 5)
    assert np.abs(held_out.mean - odds).mean() < 0.05
    assert (np.abs(score - held_out.mean) <= Z * held_out.std).mean() >= 0.85
    assert calibration.mean(np.array([-5.0, 5.0])).tolist() == pytest.approx(
        [held_out.mean.min(), held_out.mean.max()], abs=0.1
    )


def test_isotonic_curves_stay_small_and_rising() -> None:
    """At most 48 knots, never falling."""
    rng = np.random.default_rng(0)
    raw = rng.random(3000)
    knots = isotonic_curve(raw, np.clip(raw + rng.normal(0, 0.2, 3000), 0, 1), np.ones(3000))
    assert len(knots) <= 48
    assert (np.diff(knots, axis=0) >= 0).all()


@pytest.mark.parametrize(("n", "together"), [(579, 10), (40, 4), (7, 1)])
def test_one_failure_at_the_end_of_the_scale_is_no_certainty(n: int, together: int) -> None:
    """The lowest prediction failed, and all others succeeded: where it stands, as many as count together are averaged;
    and so at the upper end."""
    raw, score = np.linspace(0, 1, n), np.ones(n)
    score[0] = 0.0
    knots = isotonic_curve(raw, score, np.ones(n))
    assert np.interp(-1.0, *knots.T) == pytest.approx(1 - 1 / together)
    upper = isotonic_curve(raw, 1 - score[::-1], np.ones(n))
    assert np.interp(2.0, *upper.T) == pytest.approx(1 / together)


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.tsv", 'prompt\trecipe\tscore\na "red" circle\tsd15\t0.5\n'),
        ("r.csv", 'score,prompt,recipe\n0.5,"a ""red"" circle",sd15\n'),
        ("r.tsv.gz", '\ufeffprompt\tmodel\tscore\textra\na "red" circle\tsd15\t0.5\tx\n'),
    ],
)
def test_tables_are_read_in_their_usual_forms(tmp_path: Path, name: str, text: str) -> None:
    """TSV and CSV, zipped or not, columns in any order, quotation marks as each format has them."""
    assert read_ratings(write(tmp_path / name, text)) == [Rating('a "red" circle', "sd15", 0.5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt\trecipe\tscores\n", r"r.tsv:1: no column 'score'; did you mean 'scores'"),
        ("prompt\tscore\na\t0.5\n", r"r.tsv:1: no column 'model' \(or 'recipe'\)"),
        ("prompt\tmodel\trecipe\tscore\na\tb\tb\t0.5\n", r"r.tsv:1: the column 'recipe' is there twice"),
        ("prompt\trecipe\tscore\na\tb\t0.5\na\tb\tnan\n", r"r.tsv:3: score is 'nan', not a number \(column 3\)"),
        ("prompt\trecipe\tscore\na\tb\t\n", r"r.tsv:2: score is '', not a number"),
        ("prompt\trecipe\tscore\na\tb\n", r"r.tsv:2: 2 fields where the header has 3"),
        ("prompt\trecipe\tscore\n \tb\t0.5\n", r"r.tsv:2: the prompt is empty"),
        ("prompt\trecipe\tscore\tweight\na\tb\t0.5\t0\n", r"r.tsv:2: weight 0.0 must be a positive"),
        ("", r"r.tsv is empty; its first line names the columns"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file, the line and the remedy."""
    with pytest.raises(ArtifactError, match=message):
        read_ratings(write(tmp_path / "r.tsv", text))


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ([], r"rates 0 recipe"),
        ([Rating(f"p{k}", "sd15", 0.5) for k in range(50)], r"rates 1 recipe.*at least two"),
        ([Rating(f"p{k}", key, 0.5) for k in range(5) for key in "ab"], r"5 different prompts; at least 20"),
        ([Rating(f"p{k}", "a", 0.5) for k in range(30)] + [Rating("p1", "b", 0.5)], r"'b' is rated on 1 prompts"),
        ([Rating("p", "a", 0.5), Rating("p", "a", float("nan"))], r"rating 2: score nan"),
        ([Rating("p", "a", 0.5, "g"), Rating("p", "a", 0.5, "h")], r"rating 2: prompt 'p' is in groups 'g' and 'h'"),
    ],
)
def test_a_table_without_a_lesson_is_refused(ratings: list[Rating], message: str) -> None:
    """Too few recipes or prompts, bad values and contradictions are errors."""
    with pytest.raises(ArtifactError, match=message):
        tabulate(ratings)


def test_constant_scores_train_without_complaint(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """A recipe that always succeeds is predicted to succeed, with a small positive deviation."""
    ratings = [Rating(p, key, score) for p in synthetic_prompts(40) for key, score in (("sd15", 1.0), ("flux", 0.0))]
    artifact, reports = train(ratings, tmp_path / "constant", "constant", "a formula", "CC0", embedder)
    assert [report.pearson for report in reports] == [0.0, 0.0]
    assert all(entry["floor"] > 0 for entry in artifact.config["calibration"])


def test_raters_and_weight_multiply(tmp_path: Path) -> None:
    """A mean of five raters weighs five times as much as one rater's score."""
    file = write(tmp_path / "r.tsv", "prompt\tmodel\tscore\traters\tweight\na\tsd15\t4\t5\t0.5\n")
    assert read_ratings(file) == [Rating("a", "sd15", 4.0, weight=2.5)]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (1.0, 5.0), (0.0, 100.0)])
def test_scores_may_be_on_any_scale(embedder: MiniLMEmbedder, tmp_path: Path, low: float, high: float) -> None:
    """The same ratings on another scale give the same predictor, which knows the scale that they were on."""
    usual = synthetic_ratings(synthetic_prompts(60))
    least, most = min(r.score for r in usual), max(r.score for r in usual)
    moved = [replace(r, score=low + (r.score - least) / (most - least) * (high - low)) for r in usual]
    artifact, reports = train(moved, tmp_path / "scaled", "scaled", "a formula", "CC0", embedder)
    scale = QualityPredictor(artifact).scale
    assert (scale.low, scale.high) == pytest.approx((low, high))
    assert scale.score(scale.unit(low + 0.3)) == pytest.approx(low + 0.3)
    _, others = train(usual, tmp_path / "usual", "usual", "a formula", "CC0", embedder)
    for one, other in zip(reports, others, strict=True):
        assert one.pearson == pytest.approx(other.pearson, abs=0.02)


def test_duplicate_rows_count_as_more_of_the_same() -> None:
    """Two ratings of one picture are their weighted mean with the sum of their weights."""
    ratings = [Rating(f"p{k}", key, 0.5) for k in range(30) for key in "ab"]
    table = tabulate([*ratings, Rating("p0", "a", 1.0, weight=3.0)])
    assert table.scores[0, 0] == pytest.approx((0.5 + 3.0) / 4)
    assert table.weights[0, 0] == 4.0


def test_a_group_is_never_split() -> None:
    """Near-duplicates are held out together, and impossible numbers of folds are refused."""
    groups = [f"g{k // 3}" for k in range(90)]
    split = split_groups(groups, 5, seed=1)
    assert all(len({int(split[k]) for k in range(90) if groups[k] == group}) == 1 for group in groups)
    with pytest.raises(ArtifactError, match="31 folds of 30 groups"):
        split_groups(groups, 31, seed=1)


HOSTILE = ["x" * 1_000_000, "a red 圆 и круг दो ⭐", "🎨🎨🎨", "\ud800 broken", "a\x00b", "'", "word " * 5_000]


def test_hostile_prompts_train_and_predict(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """A million characters, mixed scripts, emoji and broken text are prompts like any other, with finite answers."""
    ratings = [Rating(p, key, 1.0 + k % 5) for k, p in enumerate(HOSTILE + synthetic_prompts(40)) for key in ("a", "b")]
    artifact, _ = train(ratings, tmp_path / "hostile", "hostile", "chance", "CC0", embedder, folds=3)
    predictor = QualityPredictor(artifact)
    for prompt in HOSTILE:
        features = lexical_features(prompt)
        for quality in predictor.rated(PromptView(prompt, features, {}, embedder.embed([prompt])[0])).values():
            assert 0 <= quality.mean <= 1 and 0 < quality.std < 1


def test_the_length_of_prompts_is_not_the_memory_of_training(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """One prompt of a million characters among sixty does not make arrays of a million characters a prompt."""
    assert len(normal_group("word " * 200_000)) == 64
    assert normal_group("word " * 200_000) == normal_group("WORD  " * 200_000) != normal_group("ward " * 200_000)
    ratings = [
        Rating(p, key, 1.0 + k % 5)
        for k, p in enumerate(["x " * 500_000, *synthetic_prompts(60)])
        for key in ("a", "b")
    ]
    tracemalloc.start()
    train(ratings, tmp_path / "long", "long", "chance", "CC0", embedder, folds=3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200e6


def test_parquet_is_read_or_its_remedy_named(tmp_path: Path) -> None:
    """Parquet is read where pyarrow is there; where it is not, the error says so."""
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(ArtifactError, match=r"-e '\.\[parquet\]'"):
            read_ratings(write(tmp_path / "r.parquet", "PAR1"))
        return
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    table = pyarrow.table({"prompt": ["a"], "model": ["sd15"], "score": [4.5]})
    parquet.write_table(table, tmp_path / "r.parquet")
    assert read_ratings(tmp_path / "r.parquet") == [Rating("a", "sd15", 4.5)]
    wide = pyarrow.table({"prompt": [" a", "b"], "sd15": [4.5, None], "flux": [1, 2], "__index_level_0__": [0, 1]})
    parquet.write_table(wide, tmp_path / "any.name")
    assert read_ratings(tmp_path / "any.name") == [
        Rating("a", "sd15", 4.5), Rating("a", "flux", 1.0), Rating("b", "flux", 2.0)
    ]  # fmt: skip
    for scores, says in (([float("nan")], "r.parquet:2: score is 'nan'"), ([[1]], "not a number")):
        table = pyarrow.table({"prompt": ["a"], "model": ["sd15"], "score": scores})
        parquet.write_table(table, tmp_path / "r.parquet")
        with pytest.raises(ArtifactError, match=says):
            read_ratings(tmp_path / "r.parquet")
    (tmp_path / "r.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_ratings(tmp_path / "r.parquet")
