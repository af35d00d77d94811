"""How far 100 labels by a person who slips calibrate the verifier. Nothing is drawn.

    python -m benchmarks.bootstrap.labels      # 40 raters; writes labels.json; --quick: two raters

A study of 600 pictures is dealt out of the stored outcomes (benchmarks/embedded_outcomes, recipes of one picture). A
rater labels pictures of it in pairs of one prompt, by the checker's exact mark, but slips once in twenty; every seventh
pair is shown twice, which is all that the calibration knows of slips. Asked are the pairs that teach most, or random
ones. The calibration error (expected, ten bins of equal count) and the Brier score are those of all other stored
pictures, against exact marks; intervals are 95 %, from resampling raters.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.bootstrap.run import HERE, OUTCOMES, SLIP, WORLDS
from benchmarks.command import is_full, parser, results
from deployments.bootstrap.labelling import AGAIN
from router.bootstrap.labels import Calibrated, calibrate, calibration_error, slip_of
from router.learning.intervals import resampled

Array = NDArray[np.float64]
PICTURES, LABELS = 600, 100


@dataclass(frozen=True)
class Stored:
    """Pictures: prompt, recipe, the verifier's score, and whether it is right; (n,) each."""

    prompt: list[str] = field(repr=False)
    recipe: list[str] = field(repr=False)
    score: Array = field(repr=False)
    right: NDArray[np.bool_] = field(repr=False)


def read(split: str) -> Stored:
    """Of a stored set."""
    with (OUTCOMES / f"outcomes_{split}.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "(" not in row["recipe"]]
    score, right = np.array([float(row["score"]) for row in rows]), np.array([row["exact"] == "1" for row in rows])
    return Stored([row["prompt"] for row in rows], [row["recipe"] for row in rows], score, right)


def rated(stored: Stored, teach: bool, seed: int) -> tuple[Calibrated, NDArray[np.bool_]]:
    """What a rater's labels come to, and which pictures were its study. teach: pairs that teach most, else random."""
    rng = np.random.default_rng(seed)
    recipes = tuple(dict.fromkeys(stored.recipe))
    prompts = rng.permutation(sorted(set(stored.prompt)))
    by_prompt: dict[str, list[int]] = {}
    for row, prompt in enumerate(stored.prompt):
        by_prompt.setdefault(prompt, []).append(row)
    per_prompt = 6
    study = {p: rng.choice(by_prompt[p], per_prompt, replace=False).tolist() for p in prompts[: PICTURES // per_prompt]}
    inside = np.zeros(len(stored.prompt), np.bool_)
    inside[[row for rows in study.values() for row in rows]] = True

    def label(row: int) -> bool:
        return bool(stored.right[row] ^ (rng.random() < SLIP))

    rows: list[int] = []
    said: list[bool] = []
    twice: list[tuple[bool, bool]] = []
    fitted = calibrate(stored.score[:0], [], stored.right[:0], recipes, slip_of([]))
    asked = 0
    while len(said) < LABELS:
        asked += 1
        if asked % AGAIN == 0:
            at = 2 * int(rng.integers(len(rows) // 2))
            for k in (at, at + 1):
                again = label(rows[k])
                twice.append((said[k], again))
                rows.append(rows[k])
                said.append(again)
        else:
            free = {p: [row for row in some if row not in rows] for p, some in study.items()}
            free = {p: some for p, some in free.items() if len(some) > 1}
            flat = [row for some in free.values() for row in some]
            worth = dict.fromkeys(flat, 0.0)
            if teach:
                worth = dict(zip(flat, fitted.worth(stored.score[flat], [stored.recipe[r] for r in flat]), strict=True))
            pairs = {p: sorted(some, key=lambda row: -worth[row])[:2] for p, some in free.items()}
            best = max(pairs, key=lambda p: sum(worth[r] for r in pairs[p])) if teach else rng.choice(list(pairs))
            rows += pairs[best]
            said += [label(row) for row in pairs[best]]
        fitted = calibrate(
            stored.score[rows], [stored.recipe[row] for row in rows], np.array(said), recipes, slip_of(twice)
        )
    return fitted, inside


def study(raters: int) -> dict[str, Any]:
    """Both stored sets, before and after."""
    found: dict[str, Any] = {}
    for name, split in WORLDS.items():
        stored = read(split)
        truth = stored.right.astype(float)
        before = {
            "calibration error": calibration_error(stored.score, truth),
            "brier": float(((stored.score - truth) ** 2).mean()),
        }
        found[name] = {"pictures": len(truth), "before": before}
        for how, teach in (("pairs that teach most", True), ("random pairs", False)):
            errors, briers = [], []
            for seed in tqdm(range(raters), desc=f"{name}, {how}", disable=None):
                fitted, inside = rated(stored, teach, seed)
                out = np.flatnonzero(~inside)
                said = fitted.probability(stored.score[out], [stored.recipe[row] for row in out])
                errors.append(calibration_error(said, truth[out]))
                briers.append(float(((said - truth[out]) ** 2).mean()))
            found[name][how] = {
                "calibration error": _figure(np.array(errors)),
                "brier": _figure(np.array(briers)),
                "share of raters with an error of .03 at most": float((np.array(errors) <= 0.03).mean()),
            }
    return found


def _figure(drawn: Array) -> dict[str, float]:
    low, high = resampled(len(drawn), lambda rows: float(drawn[rows].mean()), resamples=2000)
    return {"value": round(float(drawn.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    asked = made.parse_args(argv)
    with results(asked, HERE, is_full(made, asked)) as out:
        found = study(2 if asked.quick else 40)
        (out / "labels.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
