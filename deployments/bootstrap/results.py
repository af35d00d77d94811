"""What a bootstrap ends with: a table of outcomes, costs, an artefact in the served form, and the truth about it."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.bootstrap.ledger import Entry, Ledger
from deployments.bootstrap.readings import Reading
from deployments.bootstrap.study import Study
from policies import Policy
from policies.deciding.objectives import rank
from router.bootstrap.truth import Proof, Truth, find_out
from router.errors import ArtifactError
from router.learning.ratings import MIN_PROMPTS, Rating
from router.learning.report import ColumnReport
from router.learning.training import train
from router.prompts.embedding import Embedder
from router.prompts.lexical import lexical_features
from router.quality.composition import Record
from router.quality.predictor import QualityPredictor
from router.quality.ratings_table import Scale
from router.registry.artifact import Artifact
from router.types import Estimate, Quality

Array = NDArray[np.float64]
COLUMNS = ("prompt", "recipe", "score", "seed", "judge_score", "seconds", "cost_usd", "held_out")
LEAST_PROOF = 20


@dataclass(frozen=True)
class Costs:
    """Of a picture by each recipe, medians over its pictures."""

    seconds: Mapping[str, float]
    usd: Mapping[str, float]
    pictures: Mapping[str, int]


@dataclass(frozen=True)
class Conclusion:
    """truth: None if there were too few proof prompts;   levels: mean quality of all pictures of each recipe;
    left_out: recipes with too few pictures, with the reason"""

    artifact: Artifact
    reports: Sequence[ColumnReport]
    costs: Costs
    truth: Truth | None
    levels: Mapping[str, float]
    left_out: Mapping[str, str]
    pictures: int
    unjudged: int


def costs_of(study: Study, ledger: Ledger) -> Costs:
    """What pictures took."""
    made = ledger.current
    seconds, usd, pictures = {}, {}, {}
    for key in study.keys:
        mine = [entry for entry in made if entry.shot.recipe == key]
        took = [entry.seconds for entry in mine if entry.seconds is not None]
        pictures[key] = len(mine)
        if took:
            seconds[key] = float(np.median(took))
            usd[key] = float(np.median([entry.cost_usd for entry in mine if entry.seconds is not None]))
    return Costs(seconds, usd, pictures)


def conclude(
    study: Study,
    ledger: Ledger,
    policy: Policy,
    reading: Reading,
    folder: Path,
    embedder: Embedder,
    cards: Record | None = None,
    source: str = "",
    notes: Callable[[Truth | None], str] = lambda truth: "",
) -> Conclusion:
    """Write `outcomes.csv` and `costs.json` into `folder`, and the artefact, which learned from every picture, into
    `folder/artefact`. The truth is about one that did not see the proof prompts. notes: of the card, given the truth.

    Raises `ArtifactError` if there is too little to learn from.
    """
    scored = [entry for entry in ledger.current if study.judge in entry.scores]
    quality = reading.of([e.scores[study.judge] for e in scored], [e.shot.recipe for e in scored])
    held_out = {study.prompts[row] for row in study.split()[1]}
    costs = costs_of(study, ledger)
    _write_outcomes(folder / "outcomes.csv", scored, quality, study, held_out)
    _write(folder / "costs.json", {"seconds": costs.seconds, "usd": costs.usd, "pictures": costs.pictures})
    rated, left_out = _rated_enough(study, scored)
    rows = [
        (entry, Rating(entry.shot.prompt, entry.shot.recipe, float(value)))
        for entry, value in zip(scored, quality, strict=True)
        if entry.shot.recipe in rated
    ]
    if len(rated) < 2:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ArtifactError(f"{len(rated)} recipe(s) have pictures enough to learn from ({why}); give a larger budget")
    learned = [rating for entry, rating in rows if entry.shot.prompt not in held_out]
    truth = None
    if proof := _proof(study, scored, quality, held_out, rated, costs, learned, embedder):
        truth = find_out(proof, _chooser(policy, study, proof.recipes, costs), study.seed)
    artifact, reports = train(
        [rating for _, rating in rows], folder / "artefact", f"bootstrap of {study.policy}", source, "your own",
        embedder, scale=Scale(), cards=cards, notes=notes(truth),
    )  # fmt: skip
    unjudged = sum(study.judge not in entry.scores for entry in ledger.current)
    by_recipe = {key: [v for e, v in zip(scored, quality, strict=True) if e.shot.recipe == key] for key in study.keys}
    levels = {key: float(np.mean(values)) for key, values in by_recipe.items() if values}
    return Conclusion(artifact, reports, costs, truth, levels, left_out, len(ledger), unjudged)


def _rated_enough(study: Study, scored: Sequence[Entry]) -> tuple[list[str], dict[str, str]]:
    held_out = {study.prompts[row] for row in study.split()[1]}
    rated, left_out = [], {}
    for key in study.keys:
        prompts = {e.shot.prompt for e in scored if e.shot.recipe == key and e.shot.prompt not in held_out}
        if len(prompts) >= MIN_PROMPTS:
            rated.append(key)
        else:
            left_out[key] = f"judged on {len(prompts)} prompts; {MIN_PROMPTS} are needed"
    return rated, left_out


def _proof(
    study: Study,
    scored: Sequence[Entry],
    quality: Array,
    held_out: set[str],
    rated: Sequence[str],
    costs: Costs,
    learned: Sequence[Rating],
    embedder: Embedder,
) -> Proof | None:
    """The proof prompts on which every contender has a picture, and what an artefact says that saw none of them."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for entry, value in zip(scored, quality, strict=True):
        if entry.shot.prompt in held_out and entry.shot.recipe in rated:
            of_recipe = found.setdefault(entry.shot.prompt, {}).setdefault(entry.shot.recipe, {})
            of_recipe[entry.shot.seed] = float(value)
    counts = {key: sum(key in of for of in found.values()) for key in rated}
    recipes = [key for key in rated if counts[key] >= LEAST_PROOF]
    prompts = [prompt for prompt in study.prompts if prompt in found and all(key in found[prompt] for key in recipes)]
    if len(recipes) < 2 or len(prompts) < LEAST_PROOF:
        return None
    score = np.full((len(prompts), len(recipes), study.seeds), np.nan)
    for i, prompt in enumerate(prompts):
        for k, key in enumerate(recipes):
            values = [found[prompt][key][seed] for seed in found[prompt][key]]
            score[i, k, : len(values)] = values
    with tempfile.TemporaryDirectory(prefix="triptych-proof-") as scratch:
        artifact, _ = train(learned, Path(scratch) / "part", "proof", "", "", embedder, scale=Scale())
        predictor = QualityPredictor(artifact)
        predicted = [
            [predictor.rated(view)[key].mean for key in recipes]
            for prompt, embedding in zip(prompts, embedder.embed(prompts), strict=True)
            for view in [predictor.view(prompt, lexical_features(prompt), embedding)]
        ]
    seconds = np.array([costs.seconds[key] for key in recipes])
    return Proof(tuple(prompts), tuple(recipes), score, np.array(predicted), seconds)


def _chooser(
    policy: Policy, study: Study, recipes: Sequence[str], costs: Costs
) -> Callable[[Array], NDArray[np.int64]]:
    """What the policy's objective takes of these recipes; its rules, limits and verification are not looked at."""

    def choose(quality: Array) -> NDArray[np.int64]:
        taken = []
        for row in quality:
            estimates = {
                study.recipes[key]: Estimate(
                    study.recipes[key], Quality(float(mean), 0.0), costs.seconds[key], 0.0, costs.seconds[key],
                    costs.usd[key],
                )
                for key, mean in zip(recipes, row, strict=True)
            }  # fmt: skip
            best = rank(policy.objective, estimates)[0].recipe
            taken.append([study.recipes[key] for key in recipes].index(best))
        return np.array(taken)

    return choose


def _write_outcomes(file: Path, scored: Sequence[Entry], quality: Array, study: Study, held_out: set[str]) -> None:
    """A row a picture, in the form that `triptych router train` reads."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry, value in zip(scored, quality, strict=True):
            shot = entry.shot
            said = entry.scores[study.judge]
            took = "" if entry.seconds is None else f"{entry.seconds:.4f}"
            row = (shot.prompt, shot.recipe, f"{value:.6f}", shot.seed, f"{said:.6f}", took, f"{entry.cost_usd:.8f}")
            writer.writerow((*row, int(shot.prompt in held_out)))


def _write(file: Path, content: Mapping[str, object]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
