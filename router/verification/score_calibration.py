"""Calibrates a scorer: labelled pictures in, a reading of its scores out, kept in a small file with a digest.

The file is `judges/<scorer>.json` in the folder of the router artefact, for a calibration weighs the chances of that
artefact against the scores of those weights: with another artefact or scorer it is not used, and the answer says so.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.learning.tables.table import read_table
from router.types import ModelCard
from router.verification.score_reading import ScoreModel, ScoreReading, logit

Array = NDArray[np.float64]
FORMAT, VERSION = "triptych-judgement", 1
COLUMNS = ("prompt", "recipe", "score", "right")
QUANTILES = 16  # of the scores of right and of wrong pictures, each equally likely
LEAST = 20  # pictures of either kind
FOLDS = 5


@dataclass(frozen=True)
class LabelledPicture:
    """One picture: its recipe's key, the scorer's score (0..1), and whether it was right."""

    prompt: str
    recipe: str
    score: float
    right: bool


def read_labelled(path: Path, right: str = "right") -> list[LabelledPicture]:
    """A table with the columns prompt, recipe, score and `right` (0 or 1). Raises `ArtifactError` with the line."""
    table = read_table(path)
    prompt, recipe, score, mark = (table.place(name) for name in (*COLUMNS[:3], right))
    decimals = table.decimals([score])
    found = []
    for row in table.rows:
        line, fields = row
        value, truth = (table.number(row, place, decimals) for place in (score, mark))
        if not fields[prompt] or not fields[recipe]:
            raise ArtifactError(f"{path}:{line}: the {'recipe' if fields[prompt] else 'prompt'} is empty")
        if not 0 <= value <= 1 or truth not in (0.0, 1.0):
            raise ArtifactError(f"{path}:{line}: score {value:g} lies in 0..1, and {right} {truth:g} is 0 or 1")
        found.append(LabelledPicture(fields[prompt], fields[recipe], value, truth == 1.0))
    return found


def fit_score_model(chance: Array, score: Array, right: NDArray[np.bool_]) -> ScoreModel:
    """The model of pictures with these chances before, scores, and truths, (n,) each.

    Raises `ArtifactError` if there are too few right or wrong ones to learn from.
    """
    from sklearn.linear_model import LogisticRegression

    few = min(int(right.sum()), int((~right).sum()))
    if few < LEAST:
        raise ArtifactError(f"only {few} pictures of one kind (right or wrong); calibrating takes {LEAST} of each")
    evidence, before = np.asarray(logit(score)), np.asarray(logit(chance))
    fitted = LogisticRegression(C=1000.0).fit(np.stack([evidence, before], 1), right)
    slope, trust = fitted.coef_[0].tolist()
    at = (np.arange(QUANTILES) + 0.5) / QUANTILES
    on_right, on_wrong = (tuple(np.quantile(evidence[kind], at).tolist()) for kind in (right, ~right))
    return ScoreModel(slope, trust, float(fitted.intercept_[0]), on_right, on_wrong)


def fit_strength(chance: Array, right: NDArray[np.bool_], pairs: Sequence[tuple[int, int]]) -> float:
    """How many pictures a chance is worth, from the correlation of two pictures of one prompt and recipe.

    pairs: rows of such pictures. Without any, what is not known is taken from `ScoreReading`.
    """
    if not pairs:
        return ScoreReading().strength
    error = right.astype(float) - chance
    left, other = (np.array(side) for side in zip(*pairs, strict=True))
    shared = float((error[left] * error[other]).mean())
    spread = float((chance * (1 - chance)).mean())
    correlation = min(0.95, max(0.02, shared / max(spread, 1e-9)))
    return 1 / correlation - 1


def calibrate_scores(labelled: Sequence[LabelledPicture], chance: Array) -> tuple[ScoreModel, float, dict[str, float]]:
    """Score model, strength, and held-out figures: Brier scores of verdict, chance, score, and the calibration error.

    chance: of each picture, predicted without its prompt. Prompts are held out as wholes.
    """
    score = np.array([one.score for one in labelled])
    right = np.array([one.right for one in labelled], np.bool_)
    prompts = sorted({one.prompt for one in labelled})
    place = {prompt: k % FOLDS for k, prompt in enumerate(np.random.default_rng(0).permutation(prompts).tolist())}
    fold = np.array([place[one.prompt] for one in labelled])
    verdict = np.full(len(labelled), np.nan)
    for k in range(FOLDS):
        score_model = fit_score_model(chance[fold != k], score[fold != k], right[fold != k])
        verdict[fold == k] = [
            score_model.verdict(float(c), float(s)) for c, s in zip(chance[fold == k], score[fold == k], strict=True)
        ]
    report = {
        "pictures": float(len(labelled)),
        "prompts": float(len(prompts)),
        "right": float(right.mean()),
        "brier": float(((verdict - right) ** 2).mean()),
        "brier_chance": float(((chance - right) ** 2).mean()),
        "brier_score": float(((score - right) ** 2).mean()),
        "calibration_error": _calibration_error(verdict, right),
    }
    return fit_score_model(chance, score, right), fit_strength(chance, right, _pairs(labelled)), report


def held_out_chances(labelled: Sequence[LabelledPicture], folds: int = FOLDS, seed: int = 0) -> Array:
    """For each picture the chance by a predictor that was trained without its prompt, (n,)."""
    from router.learning.ratings import Rating, tabulate
    from router.learning.training import predict_held_out

    marks: dict[tuple[str, str], list[float]] = {}
    for one in labelled:
        marks.setdefault((one.prompt, one.recipe), []).append(float(one.right))
    table = tabulate(
        [
            Rating(prompt, recipe, float(np.mean(found)), prompt, float(len(found)))
            for (prompt, recipe), found in marks.items()
        ]
    )
    held_out, _ = predict_held_out(table, folds=folds, seed=seed)
    row, column = ({name: k for k, name in enumerate(names)} for names in (table.prompts, table.columns))
    return np.array([held_out.mean[row[one.prompt], column[one.recipe]] for one in labelled])


def _pairs(labelled: Sequence[LabelledPicture]) -> list[tuple[int, int]]:
    last: dict[tuple[str, str], int] = {}
    pairs = []
    for row, one in enumerate(labelled):
        key = one.prompt, one.recipe
        if key in last:
            pairs.append((last.pop(key), row))
        else:
            last[key] = row
    return pairs


def _calibration_error(verdict: Array, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance of verdict and frequency over bins of equal count."""
    order = np.array_split(np.argsort(verdict, kind="stable"), bins)
    return float(sum(len(b) * abs(verdict[b].mean() - right[b].mean()) for b in order if len(b)) / len(verdict))


# ---------------------------------------------------------------------------------------------------------- the file


def score_reading_file(artifact: Path, scorer: str) -> Path:
    """Where the calibration of a scorer is kept."""
    return artifact / "judges" / f"{scorer}.json"


def save_calibration(
    artifact: Path, digest: str, card: ModelCard, revision: str, score_model: ScoreModel, strength: float,
    report: Mapping[str, float], source: str,
) -> Path:  # fmt: skip
    """Write the calibration of the scorer `card` (weights `revision`) for the artefact of this digest."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "scorer": card.id,
        "family": card.family,
        "revision": revision,
        "artefact": digest,
        "judge": asdict(score_model),
        "strength": strength,
        "held_out": dict(report),
        "source": source,
    }
    file = score_reading_file(artifact, card.id)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(sealed(content), encoding="utf-8")
    file.with_suffix(".safetensors").unlink(missing_ok=True)  # the pictures of an earlier calibration
    return file


def sealed(content: Mapping[str, Any]) -> str:
    """The content of a file with its digest, as text."""
    return json.dumps({**content, "digest": _digest(content)}, indent=1) + "\n"


def read_content(file: Path) -> dict[str, Any]:
    """The content of a file without its digest. Raises `ArtifactError` if it was changed, or is none."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        said = content.pop("digest")
        if said != _digest(content) or (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ArtifactError(f"{file} was changed after it was written, or is of another version; calibrate again")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ArtifactError(f"{file} cannot be read ({error!r}); calibrate the scorer again") from error
    return content


def load_score_reading(artifact: Path, digest: str, card: ModelCard, revision: str) -> ScoreReading:
    """The calibration of a scorer, or the default if there is none for this artefact and these weights.

    Raises `ArtifactError` if the file was changed after it was written, or is none.
    """
    file = score_reading_file(artifact, card.id)
    if not file.is_file():
        return ScoreReading()
    content = read_content(file)
    try:
        numbers = content["judge"]
        score_model = ScoreModel(
            float(numbers["slope"]),
            float(numbers["trust"]),
            float(numbers["level"]),
            tuple(map(float, numbers["on_right"])),
            tuple(map(float, numbers["on_wrong"])),
        )
        strength, report = float(content["strength"]), content["held_out"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} cannot be read ({error!r}); calibrate the scorer again") from error
    values = (
        score_model.slope,
        score_model.trust,
        score_model.level,
        strength,
        *score_model.on_right,
        *score_model.on_wrong,
    )
    if not all(map(math.isfinite, values)) or not score_model.on_right or not score_model.on_wrong or strength <= 0:
        raise ArtifactError(f"{file} holds numbers that no calibration gives; calibrate the scorer again")
    for what, wanted, found in (("artefact", digest, content["artefact"]), ("weights", revision, content["revision"])):
        if wanted != found:
            note = f"its scores are not calibrated for this {what} (they were for {str(found)[:19]})"
            return ScoreReading(note=f"{note}: taken as odds, beside the expected quality")
    brier = report["brier"]
    note = f"calibrated on {report['pictures']:.0f} pictures; held out, its verdicts have a Brier score of {brier:.3f}"
    return ScoreReading(score_model, strength, True, note)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
