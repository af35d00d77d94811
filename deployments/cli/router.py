"""The commands `triptych router` train, predict, evaluate, anchors, add-model, calibrate-scorer.

Results: stdout; the rest: stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from router.errors import ArtifactError, did_you_mean

if TYPE_CHECKING:
    from router.learning.training import HeldOutScores
    from router.quality.ratings_table import RatingsTable, Scale

app = typer.Typer(help="Train, evaluate and ask the quality predictor.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)

Ratings = Annotated[Path, typer.Argument(help="Table (.tsv, .csv, .gz, .parquet): prompt, model or recipe, score, ...")]
Range = Annotated[
    tuple[float, float] | None,
    typer.Option("--scale", help="Lowest and highest score that there can be (default: those of the table)."),
]
Folds = Annotated[int, typer.Option(min=2, help="Parts in which prompts are held out; groups stay whole.")]
Seed = Annotated[int, typer.Option(help="Same table and seed, same result.")]
ArtifactFolder = Annotated[Path, typer.Option("--artefact", "--artifact", help="A trained folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def train(
    ratings: Ratings,
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="Where the artefact goes.")],
    name: Annotated[str, typer.Option(help="What the artefact is called.")] = "quality",
    source: Annotated[str, typer.Option(help="Where the ratings are from, for the card (default: the file).")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the ratings, for the card.")] = "not stated",
    scale: Range = None,
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a predictor to a table of ratings, and print its card: held-out figures of every column."""
    from dataclasses import asdict

    from router.learning.ratings import read_ratings
    from router.learning.training import train as fit

    bounds = _bounds(scale)
    rows = read_ratings(ratings, bounds)
    err.print(f"{len(rows)} ratings; choosing, calibrating and fitting on {folds} folds", highlight=False)
    source = source or ratings.name
    artifact, reports = fit(rows, out_folder, name, source, licence, folds=folds, seed=seed, scale=bounds)
    if as_json:
        held_out = [asdict(report) for report in reports]
        print(json.dumps({"artefact": str(out_folder), "digest": artifact.digest, "held_out": held_out}, indent=2))
    else:
        print(artifact.card)


@app.command()
def predict(
    artefact: ArtifactFolder,
    prompts: Annotated[Path, typer.Option(help="A text file with a prompt a line, or a table with a column prompt.")],
    as_json: AsJson = False,
) -> None:
    """Predicted score and 90 % interval of every rated model, on the scale of the ratings; one prompt a line."""
    from router.learning.pairs import ask
    from router.learning.tables.prompts import read_prompts
    from router.prompts.embedding import MiniLMEmbedder
    from router.quality.predictor import QualityPredictor
    from router.registry.artifact import load_artifact

    texts = read_prompts(prompts)
    predictor, embedder = QualityPredictor(load_artifact(artefact)), MiniLMEmbedder()
    for text in texts:
        answer = ask(predictor, embedder, text)
        if as_json:
            sys.stdout.write(json.dumps(answer, ensure_ascii=True) + "\n")
            continue
        out.print(text, style="bold", highlight=False, markup=False)
        for model, mean in answer["quality"].items():
            low, high = answer["interval"][model]
            out.print(f"  {model}: {mean:.3f}  [{low:.3f}, {high:.3f}]", highlight=False, markup=False)
        if answer["basis"] == "prior":
            out.print("  unlike the training prompts: these are mostly the columns' means", style="yellow")


@app.command()
def evaluate(
    ratings: Ratings,
    pair: Annotated[
        list[str] | None,
        typer.Option(help="CHEAP:EXPENSIVE, may be repeated (default: the worst to the best column)."),
    ] = None,
    artefact: Annotated[
        Path | None,
        typer.Option("--artefact", "--artifact", help="Evaluate this artefact, on ratings that it was not trained on."),
    ] = None,
    control: Annotated[
        bool, typer.Option(help="Also train on shuffled labels, which must come out as chance.")
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="Folder for a plot (SVG) of each pair.")] = None,
    scale: Range = None,
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Evaluate routing between pairs of models on prompts that were held out, beside chance and other baselines."""
    from deployments.cli import tables as render
    from router.learning.evaluation import evaluate, shuffled
    from router.learning.plots import plot_pairs
    from router.learning.ratings import read_ratings, tabulate
    from router.learning.training import predict_held_out

    bounds = _bounds(scale)

    table = tabulate(read_ratings(ratings, bounds), bounds)
    pairs = [_pair(text, table.columns) for text in pair or ()] or [_widest(table)]
    if artefact is not None:
        held_out = _asked(artefact, table, pairs)
    else:
        err.print(f"{len(table.prompts)} prompts; training {folds} times without a fold", highlight=False)
        held_out, _ = predict_held_out(table, folds=folds, seed=seed)
    report = evaluate(table, held_out, pairs)
    if control:
        err.print("training again on shuffled labels", highlight=False)
        blind, _ = predict_held_out(shuffled(table, seed), folds=folds, seed=seed)
        found = evaluate(table, blind, pairs)
        for name, figures in report["pairs"].items():
            figures["rankings"]["shuffled labels"] = found["pairs"][name]["rankings"]["learned"]
    if plots is not None:
        for file in plot_pairs(report, plots, ratings.name.partition(".")[0]):
            err.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        render.show(out, *render.evaluation(report))


@app.command("anchors")
def anchors() -> None:
    """The prompts to rate a new model on, one a line, for `add-model`. Any beginning of the list holds every skill."""
    from router.learning.new_model import anchor_prompts

    print("\n".join(anchor_prompts()))


@app.command("add-model")
def add_model(
    ratings: Annotated[Path, typer.Argument(help="Ratings of the one new model, in the form that train reads.")],
    artefact: ArtifactFolder,
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="Where the artefact with the new column goes.")],
    as_json: AsJson = False,
) -> None:
    """Give an artefact a column for a new model, from a few rated anchor prompts; the other columns stay."""
    from dataclasses import asdict

    from router.learning.new_model import add_model as add
    from router.learning.ratings import read_ratings
    from router.registry.artifact import load_artifact

    artifact, report = add(load_artifact(artefact), read_ratings(ratings), out_folder)
    if as_json:
        print(
            json.dumps({"artefact": str(out_folder), "digest": artifact.digest, "held_out": asdict(report)}, indent=2)
        )
    else:
        print(artifact.card)


@app.command("calibrate-scorer")
def calibrate_scorer(
    judged: Annotated[
        Path, typer.Argument(help="CSV: prompt, recipe, score (0..1) and right (0 or 1), a picture a row.")
    ],
    artefact: ArtifactFolder,
    card: Annotated[str, typer.Option(help="The scorer's model card, such as embedded/alignment, or a file.")],
    right: Annotated[str, typer.Option(help="The column that says whether a picture is right.")] = "right",
    source: Annotated[str, typer.Option(help="Where the pictures and marks are from (default: the file).")] = "",
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Learn what a scorer's scores are worth beside an artefact's chances, and keep it in the artefact's folder.

    The chances are those of predictors that did not see a picture's prompt. Without this, verification says that scores
    are not calibrated.
    """
    from dataclasses import asdict

    from models.catalogue import load_card
    from models.weights.revisions import revision
    from router.learning.pairs import view_of
    from router.prompts.embedding import MiniLMEmbedder
    from router.quality.predictor import QualityPredictor
    from router.registry.artifact import load_artifact
    from router.verification.recalibration import LabelledPictures, keep_pictures
    from router.verification.score_calibration import (
        calibrate_scores,
        held_out_chances,
        read_labelled,
        save_calibration,
    )

    trained, scorer, rows = load_artifact(artefact), load_card(card), read_labelled(judged, right)
    if scorer.role != "scorer":
        raise ArtifactError(f"--card {card}: {scorer.id!r} is a {scorer.role} and does not score")
    err.print(f"{len(rows)} pictures; predicting their chances on {folds} folds", highlight=False)
    predictor, embedder = QualityPredictor(trained), MiniLMEmbedder()
    views = {prompt: view_of(predictor, embedder, prompt) for prompt in {one.prompt for one in rows}}
    pictures = LabelledPictures.of(rows, held_out_chances(rows, folds, seed), predictor, views)
    score_model, strength, report = calibrate_scores(rows, pictures.chances(predictor.adapter))
    origin = source or judged.name
    file = save_calibration(artefact, trained.digest, scorer, revision(scorer), score_model, strength, report, origin)
    keep_pictures(file, pictures)
    if as_json:
        print(
            json.dumps(
                {"file": str(file), "judge": asdict(score_model), "strength": strength, "held_out": report}, indent=2
            )
        )
        return
    out.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)
    for name, value in report.items():
        out.print(f"  {name.replace('_', ' ')}: {value:.4g}", highlight=False)


def _bounds(scale: tuple[float, float] | None) -> Scale | None:
    from router.quality.ratings_table import Scale

    if scale and not scale[0] < scale[1]:
        raise ArtifactError(f"--scale {scale[0]:g} {scale[1]:g}: the lowest score must be below the highest")
    return Scale(*scale) if scale else None


def _pair(text: str, columns: Sequence[str]) -> tuple[str, str]:
    """The two models of "cheap:expensive"; a model's own name may have colons, too."""
    cuts = [k for k, character in enumerate(text) if character == ":"]
    if not cuts:
        raise ArtifactError(
            f"--pair {text}: two models are compared; write cheap:expensive, such as {':'.join(columns[:2])}"
        )
    splits = [(text[:k], text[k + 1 :]) for k in cuts]
    cheap, strong = next((pair for pair in splits if set(pair) <= set(columns)), splits[0])
    for name in (cheap, strong):
        if name not in columns:
            raise ArtifactError(f"--pair {text}: the table has no model {name!r}{did_you_mean(name, columns)}")
    if cheap == strong:
        raise ArtifactError(f"--pair {text}: a model is not compared with itself; name another one")
    return cheap, strong


def _widest(table: RatingsTable) -> tuple[str, str]:
    """The worst and the best column by mean."""
    import numpy as np

    means = np.nanmean(table.scores, axis=0)
    return table.columns[int(means.argmin())], table.columns[int(means.argmax())]


def _asked(artefact: Path, table: RatingsTable, pairs: Sequence[tuple[str, str]]) -> HeldOutScores:
    from router.learning.pairs import predict_table
    from router.prompts.embedding import MiniLMEmbedder
    from router.quality.predictor import QualityPredictor
    from router.registry.artifact import load_artifact

    predictor = QualityPredictor(load_artifact(artefact))
    for name in (name for pair in pairs for name in pair):
        if name not in predictor.columns:
            raise ArtifactError(f"{artefact} knows no model {name!r}{did_you_mean(name, predictor.columns)}")
    return predict_table(predictor, MiniLMEmbedder(), table)
