"""The command group `triptych router`: train, predict. Long work says on stderr what it does; results go to stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from router.errors import ArtifactError

app = typer.Typer(help="Train, judge and ask the quality predictor.", no_args_is_help=True)
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
    source: Annotated[str, typer.Option(help="Where the ratings are from, for the card.")] = "an unnamed table",
    licence: Annotated[str, typer.Option(help="Licence of the ratings, for the card.")] = "not stated",
    scale: Range = None,
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a predictor to a table of ratings, and print its card: held-out figures of every column."""
    from dataclasses import asdict

    from router.ratings import Scale, read_ratings
    from router.training import train as fit

    if scale and not scale[0] < scale[1]:
        raise ArtifactError(f"--scale {scale[0]:g} {scale[1]:g}: the lowest score must be below the highest")
    bounds = Scale(*scale) if scale else None
    rows = read_ratings(ratings, bounds)
    err.print(f"{len(rows)} ratings; choosing, calibrating and fitting on {folds} folds", highlight=False)
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
    from router.artifact import load_artifact
    from router.asking import ask
    from router.embedding import MiniLMEmbedder
    from router.predictors import QualityPredictor
    from router.prompts import read_prompts

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
