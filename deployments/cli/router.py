"""The commands `triptych router` train, predict, evaluate, anchors, add-model, keys.

Results: stdout; the rest, such as how a table was read: stderr, and with `--json` in the document, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.artefacts import Notes, keeping, keys, may_write, print_figures
from deployments.cli.calibration import calibrate_scorer
from deployments.cli.console import Config, err, out
from deployments.settings import DEFAULT_CONFIG
from router.errors import ArtifactError, did_you_mean

if TYPE_CHECKING:
    from router.learning.training import HeldOutScores
    from router.quality.ratings_table import RatingsTable, Scale

app = typer.Typer(help="Train, evaluate and ask the quality predictor.", no_args_is_help=True)

Ratings = Annotated[
    Path,
    typer.Argument(
        help="Table (CSV, TSV, JSON Lines, Parquet): prompt, model or recipe, score; or a column a model; or votes."
    ),
]
Renames = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="OLD=NEW", help="Call a model of the table by a recipe's key; may be repeated."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the artefact that is there; `rollback` undoes it.")]
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
    rename: Renames = None,
    scale: Range = None,
    folds: Folds = 5,
    seed: Seed = 0,
    force: Force = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Fit a predictor to a table of ratings, and print its card: held-out figures of every column."""
    from dataclasses import asdict

    from router.learning.ratings import read_ratings
    from router.learning.training import train as fit

    bounds, notes = _bounds(scale), Notes()
    may_write(out_folder, force)
    rows = read_ratings(ratings, bounds, notes.tell, rename or ())
    err.print(f"{len(rows)} ratings; choosing, calibrating and fitting on {folds} folds", highlight=False)
    source = source or ratings.name
    with keeping(out_folder):
        artifact, reports = fit(rows, out_folder, name, source, licence, folds=folds, seed=seed, scale=bounds)
    for report in reports:
        notes.doubt(report.recipe, report.pearson, report.prompts)
    notes.strangers(artifact, config)
    if as_json:
        held_out = [asdict(report) for report in reports]
        print_figures(
            {"artefact": str(out_folder), "digest": artifact.digest, "held_out": held_out, "notes": notes.told}
        )
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
    rename: Renames = None,
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
    from dataclasses import asdict

    from deployments.cli import tables as render
    from router.learning.evaluation import evaluate, shuffled
    from router.learning.noise import noise_of, oracle_apart
    from router.learning.pairs import named_pair, widest_pair
    from router.learning.plots import needs_matplotlib, plot_pairs
    from router.learning.ratings import common_prompts, read_ratings, tabulate
    from router.learning.training import predict_held_out

    if plots is not None:
        needs_matplotlib()
    bounds, notes = _bounds(scale), Notes()
    rows = read_ratings(ratings, bounds, notes.tell, rename or ())
    table = tabulate(rows, bounds)
    pairs = [named_pair(text, table.columns) for text in pair or ()] or [widest_pair(table)]
    for cheap, strong in pairs:
        common_prompts(table, cheap, strong)
    if artefact is not None:
        held_out = _asked(artefact, table, pairs)
    else:
        err.print(f"{len(table.prompts)} prompts; training {folds} times without a fold", highlight=False)
        held_out, _ = predict_held_out(table, folds=folds, seed=seed)
    report = evaluate(table, held_out, pairs)
    report["noise"] = asdict(noise_of(rows))
    for cheap, strong in pairs:
        report["pairs"][f"{cheap} -> {strong}"]["oracle_apart"] = oracle_apart(rows, cheap, strong)
    if control:
        err.print("training again on shuffled labels", highlight=False)
        blind, _ = predict_held_out(shuffled(table, seed), folds=folds, seed=seed)
        found = evaluate(table, blind, pairs)
        for name, figures in report["pairs"].items():
            figures["rankings"]["shuffled labels"] = found["pairs"][name]["rankings"]["learned"]
    if as_json:
        print_figures({**report, "notes": notes.told})
    else:
        render.show(out, *render.evaluation(report))
    if plots is not None:
        for file in plot_pairs(report, plots, ratings.name.partition(".")[0]):
            err.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)


app.command("calibrate-scorer")(calibrate_scorer)
app.command("keys")(keys)


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
    rename: Renames = None,
    force: Force = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Give an artefact a column for a new model, from a few rated anchor prompts; the other columns stay."""
    from dataclasses import asdict

    from router.learning.new_model import add_model as add
    from router.learning.ratings import read_ratings
    from router.registry.artifact import load_artifact

    notes, trained = Notes(), load_artifact(artefact)
    may_write(out_folder, force)
    rows = read_ratings(ratings, None, notes.tell, rename or ())
    with keeping(out_folder):
        artifact, report = add(trained, rows, out_folder)
    notes.doubt(report.recipe, report.pearson, report.prompts)
    notes.strangers(artifact, config)
    if as_json:
        held_out = asdict(report)
        print_figures(
            {"artefact": str(out_folder), "digest": artifact.digest, "held_out": held_out, "notes": notes.told}
        )
    else:
        print(artifact.card)


def _bounds(scale: tuple[float, float] | None) -> Scale | None:
    from router.quality.ratings_table import Scale

    if scale and not scale[0] < scale[1]:
        raise ArtifactError(f"--scale {scale[0]:g} {scale[1]:g}: the lowest score must be below the highest")
    return Scale(*scale) if scale else None


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
