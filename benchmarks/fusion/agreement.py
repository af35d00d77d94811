"""Are pictures that disagree better chosen among than blended? On what benchmarks.embedded_outcomes has drawn.

    python -m benchmarks.fusion.agreement [--quick]

For every test prompt (one seed), the two pictures that `studio` of the preset `best` fuses: how much they disagree,
what share of the frequency blend has colours that are in neither (a ghost or a halo), whether the blend and each of
them is exact, and their scores. Rows are in `agreement.csv`; `agreement.json` has what comes out, by disagreement and,
on the prompts on which the bound was not chosen, without and with the bound of the preset. `--quick` draws what it
needs itself, a prompt a tier.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.run import CACHE, Pair, drawn_before, score_model, shipped
from benchmarks.embedded_outcomes.run import HERE as OUTCOMES
from benchmarks.fusion.run import HERE, Row, interval
from models.embedded.checker import check
from models.fusion.agreement import disagreement
from models.fusion.blending import frequency
from policies.language.schema_recipes import USUAL_WITHIN
from router.planning.recipes import recipe_key
from router.types import Chain, Generate, Recipe, Refine

Scores = dict[tuple[str, str, str], str]
"""By prompt, recipe and seed, as in the tables."""

LOW = Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.25)))
HIGH = Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8)))
VISIBLE = 10.0  # CIE Lab units; far above what can just be seen
CHOSEN_ON = 400  # of the prompts, the first so many, were looked at when the bound was chosen
EDGES = (0.0, 0.025, 0.05, 0.1, 0.2, 0.5, 2.0)
COLUMNS = ("tier", "prompt", "disagreement", "ghost", "blend", "low", "high", "low_score", "high_score")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every prompt, then summarise."""
    made = parser(__doc__)
    made.add_argument("--outcomes", type=Path, default=CACHE / "test", help="pictures (default: %(default)s)")
    chosen = made.parse_args(argv)
    with results(chosen, HERE, is_full(made, chosen, but=("outcomes",))) as out:
        write(measured(out / "pictures" if chosen.quick else chosen.outcomes, chosen.quick), out)


def write(rows: Sequence[Row], out: Path) -> None:
    """The table, and what comes out."""
    with (out / "agreement.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (out / "agreement.json").write_text(json.dumps(summary(rows), indent=1) + "\n")


def scores_of(recipes: Mapping[str, Recipe], batch: Sequence[Pair], folder: Path, quick: bool) -> Scores:
    """The verifier's scores: those of the committed table, or with `quick` anew."""
    if quick:
        told = score_model(batch, recipes, folder)
    else:
        with (OUTCOMES / "outcomes_test.csv").open() as file:
            told = [row for row in csv.DictReader(file) if row["recipe"] in recipes]
    return {(row["prompt"], row["recipe"], str(row["seed"])): str(row["score"]) for row in told}


def measured(folder: Path, quick: bool = False) -> list[Row]:
    """A row for every prompt."""
    catalogue, _ = shipped()
    recipes = {recipe_key(recipe, {}, catalogue): recipe for recipe in (LOW, HIGH)}
    keys, scores, rows = list(recipes), {}, []
    for batch, files in drawn_before(folder, recipes, quick):
        if quick or not scores:
            scores |= scores_of(recipes, batch, folder, quick)
        lows, highs = (load_file(files[key])["pixels"] for key in keys)
        for low, high, (tier, prompt, seed) in zip(lows, highs, batch, strict=True):
            if seed:
                continue
            made = frequency([low, high])
            exact = [str(int(check(picture, prompt.scene).exact)) for picture in (made, low, high)]
            told = [scores[prompt.text, key, "0"] for key in keys]
            figures = (f"{disagreement([low, high]):.4f}", f"{ghost(made, low, high):.4f}")
            rows.append(dict(zip(COLUMNS, (tier, prompt.text, *figures, *exact, *told), strict=True)))
    return rows


def ghost(made: NDArray[np.uint8], *given: NDArray[np.uint8]) -> float:
    """Share of the pixels whose colour is visibly another than that of each picture given, at the same place."""
    lab = [cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for picture in (made, *given)]
    nearest = np.min([np.linalg.norm(lab[0] - other, axis=2) for other in lab[1:]], axis=0)
    return float((nearest > VISIBLE).mean())


def summary(rows: Sequence[Row]) -> dict[str, object]:
    """By disagreement, on all prompts; and on those held out, the blend without and with the bound."""
    apart = np.array([float(row["disagreement"]) for row in rows])
    held = np.arange(len(rows)) >= CHOSEN_ON
    ghosts, blend, low, high = (np.array([float(row[key]) for row in rows]) for key in COLUMNS[3:7])
    scores = np.array([[float(row["low_score"]), float(row["high_score"])] for row in rows])
    best = np.where(scores[:, 0] >= scores[:, 1], low, high)
    kept = apart > USUAL_WITHIN
    exact = {"blend": blend, "low alone": low, "high alone": high, "best of both": best}
    exact["bound"] = np.where(kept, best, blend)
    ghostly = np.where(kept, 0.0, ghosts)
    return {
        "bound": USUAL_WITHIN,
        "by disagreement": {
            f"{a:g} to {b:g}": {
                "ghost": interval(list(ghosts[inside])),
                **{name: interval(list(found[inside])) for name, found in exact.items() if name != "bound"},
            }
            for a, b in pairwise(EDGES)
            if (inside := (apart >= a) & (apart < b)).any()
        },
        "held out": {
            "not blended": interval(list(kept[held].astype(float))),
            "ghost": {"blend": interval(list(ghosts[held])), "bound": interval(list(ghostly[held]))},
            "exact": {name: interval(list(found[held])) for name, found in exact.items()},
            "exact gained by the bound over": {
                name: interval(list((exact["bound"] - found)[held])) for name, found in exact.items() if name != "bound"
            },
        },
    }


if __name__ == "__main__":
    main()
