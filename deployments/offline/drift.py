"""What the log of decisions says of the predictions in force: predicted beside found, by recipe and skill, over time.

What counts of a decision is the first picture of the recipe that was chosen: it was chosen before anybody saw it, so
predictions that are right are right on average over such pictures. What a search kept is not, since it kept the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deployments.store.decision_log import DecisionLog
from models.weights.revisions import revision
from router.bootstrap.drift import LEVEL, MARGIN, Cell, Observed, watch
from router.errors import ArtifactError
from router.learning.feedback import SCORER, DecisionRecord, Feedback
from router.prompts.lexical import FEATURES
from router.registry.artifact import load_artifact
from router.types import Catalogue
from router.verification.score_calibration import load_score_reading
from router.verification.score_reading import ScoreReading

MIN_SEEN = 40


def drift_of(
    log: DecisionLog, source: str, folder: Path, catalogue: Catalogue, level: float = LEVEL, margin: float = MARGIN
) -> list[Cell]:
    """Of the decisions by the artefact in `folder`, from what `source` said: people ("rating"), or a scorer, whose
    scores are read as it is calibrated there, else at their word. Raises `ArtifactError` if it said too little."""
    artifact = load_artifact(folder)
    reading: ScoreReading | None = None
    scorer = source.removeprefix(SCORER)
    if source.startswith(SCORER) and scorer in catalogue:
        found = load_score_reading(folder, artifact.digest, catalogue[scorer], revision(catalogue[scorer]))
        reading = found if found.calibrated else None
    rated = [(record, said) for record, said in log.rated(source) if record.artifact == artifact.digest]
    observed = [one for record, said in rated if (one := observation(record, said, reading)) is not None]
    if len(observed) < MIN_SEEN:
        raise ArtifactError(
            f"{log.path} has {len(observed)} decisions by the artefact in force whose first picture {source!r} judged; "
            f"at least {MIN_SEEN} are needed. A policy with `verify: {{when: always}}` has every picture judged"
        )
    return watch(observed, sorted({key for record, _ in rated for key in record.keys.values()}), level, margin)


def observation(record: DecisionRecord, said: Sequence[Feedback], reading: ScoreReading | None) -> Observed | None:
    """What was predicted and found of a decision's first pictures; None if nothing was said of them."""
    values = [one.value for one in said if one.recipe == record.recipe and one.attempt == 0]
    if not values or record.recipe not in record.options or record.recipe not in record.keys:
        return None
    predicted = record.options[record.recipe].quality.mean
    found = [value if reading is None else reading.score_model.verdict(predicted, value) for value in values]
    features = {name: float(record.features.get(name, 0.0)) for name in FEATURES}
    return Observed(record.keys[record.recipe], features, predicted, float(np.mean(found)), record.at_s)
