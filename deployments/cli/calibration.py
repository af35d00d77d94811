"""The command `triptych router calibrate-scorer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.artefacts import print_figures
from deployments.cli.console import AsJson, err, out
from router.errors import ArtifactError


def calibrate_scorer(
    judged: Annotated[
        Path, typer.Argument(help="Table: prompt, recipe, score (0..1) and right (0 or 1), a picture a row.")
    ],
    artefact: Annotated[Path, typer.Option("--artefact", "--artifact", help="A trained folder.")],
    card: Annotated[str, typer.Option(help="The scorer's model card, such as embedded/alignment, or a file.")],
    right: Annotated[str, typer.Option(help="The column that says whether a picture is right.")] = "right",
    source: Annotated[str, typer.Option(help="Where the pictures and marks are from (default: the file).")] = "",
    folds: Annotated[int, typer.Option(min=2, help="Parts in which prompts are held out.")] = 5,
    seed: Annotated[int, typer.Option(help="Same table and seed, same result.")] = 0,
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
        print_figures({"file": str(file), "judge": asdict(score_model), "strength": strength, "held_out": report})
        return
    out.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)
    for name, value in report.items():
        out.print(f"  {name.replace('_', ' ')}: {value:.4g}", highlight=False)
