"""Measuring anew what has drifted: a few fresh pictures of the recipes that are not what they were predicted to be.

What drifted is told by the log of decisions (`router.bootstrap.drift`). Of each such recipe fresh pictures are drawn,
by seeds that were never used, on prompts to learn from and on proof prompts; where it drifted on one skill only, on
prompts that ask for it. Then what was drawn of them before is set aside (it stays in the ledger and on disk), and the
artefact and the page of truth are made again from what is left. Killed in the middle, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deployments.assembly import catalogue_of, log_of
from deployments.bootstrap.ledger import Ledger, Shot
from deployments.bootstrap.study import Study
from deployments.known_names import known_of
from deployments.offline.drift import drift_of
from deployments.offline.rehearsal import find_policy
from deployments.settings import AppSettings
from deployments.store.decision_log import DecisionLog
from router.bootstrap.choosing import Cell
from router.bootstrap.drift import LEVEL, MARGIN, skills_of
from router.bootstrap.drift import Cell as Watched
from router.errors import RequestError
from router.learning.feedback import SCORER
from router.learning.ratings import MIN_PROMPTS
from router.prompts.lexical import lexical_features

FRESH = 10_000  # seeds from here on are those of refreshes
LEAST = MIN_PROMPTS + 4  # prompts to learn from, a few more than are needed


def drift_in(
    settings: AppSettings, file: Path | None = None, source: str | None = None, level: float = LEVEL,
    margin: float = MARGIN,
) -> list[Watched]:  # fmt: skip
    """What the log of a config, or one in a file, says of its artefact. source: by default the scorer that the default
    policy verifies with. Raises `RequestError` if that has none, `ArtifactError` if the log says too little."""
    catalogue = catalogue_of(settings)
    if source is None:
        known = known_of(catalogue, settings.safety.moderators)
        policy = find_policy(settings, known, settings.policies.default)
        if policy.verify is None:
            raise RequestError(
                f"policy {policy.name!r} verifies nothing, so the log says nothing by itself; name what does: --source "
                "rating, or scorer:NAME",
                "source",
            )
        source = SCORER + policy.verify.scorer
    decisions = log_of(settings) if file is None else DecisionLog(file)
    return drift_of(decisions, source, settings.artifact_path, catalogue, level, margin)


def fresh_cells(study: Study, ledger: Ledger, drifted: Sequence[Watched], pictures: int) -> list[Cell]:
    """What to draw anew, at most so many: of each drifted recipe of the study as many prompts to learn from as it
    needs, then proof prompts that other recipes drew, then more of either. Raises `RequestError` if the study has none
    of the recipes, or the budget is too small for one of them."""
    number = {key: k for k, key in enumerate(study.keys)}
    skills = _skills(drifted, study)
    if not skills:
        raise RequestError(
            f"what drifted ({', '.join(sorted({one.recipe for one in drifted}))}) is no recipe of this study", "refresh"
        )
    learning, proof = study.split()
    drawn = {entry.shot.prompt for entry in ledger.entries.values()}
    queues: list[list[Cell]] = []
    for key, wanted in skills.items():
        seed = FRESH + ledger.rounds
        some = [_asking(study, rows, wanted) for rows in (learning, proof)]
        proofs = [row for row in some[1] if study.prompts[row] in drawn]
        first, rest = some[0][:LEAST], some[0][LEAST:]
        queues.append([Cell(int(row), number[key], seed) for row in (*first, *proofs, *rest)])
    if pictures < LEAST * len(queues):
        raise RequestError(
            f"{pictures} pictures are too few: {len(queues)} recipe(s) drifted, and each needs {LEAST} at least",
            "pictures",
        )
    longest = max(map(len, queues))
    turns = [queue[k] for k in range(longest) for queue in queues if k < len(queue)]
    return turns[:pictures]


def set_aside(study: Study, ledger: Ledger, drifted: Sequence[Watched], cells: Sequence[Cell]) -> int:
    """Mark the former pictures of what drifted, once there are fresh ones; how many."""
    fresh = {study.shot(cell).id for cell in cells}
    if not any(id in ledger.entries for id in fresh):
        return 0
    skills = _skills(drifted, study)
    former = [
        entry.shot
        for id, entry in ledger.entries.items()
        if id not in fresh and entry.shot.recipe in skills and _asks(entry.shot, skills[entry.shot.recipe])
    ]
    for shot in former:
        ledger.set_aside(shot)
    return len(former)


def _skills(drifted: Sequence[Watched], study: Study) -> dict[str, set[str]]:
    """By drifted recipe of the study the skills on which it did; empty if on all prompts."""
    found: dict[str, set[str]] = {}
    for one in drifted:
        if one.told is not None and one.recipe in study.keys:
            found.setdefault(one.recipe, set()).add(one.skill)
    return {key: set() if "" in skills else skills for key, skills in found.items()}


def _asks(shot: Shot, wanted: set[str]) -> bool:
    return not wanted or bool(skills_of(lexical_features(shot.prompt)) & wanted)


def _asking(study: Study, rows: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: set[str]) -> list[int]:
    """Rows whose prompts ask for one of the skills."""
    return [int(row) for row in rows if not wanted or skills_of(lexical_features(study.prompts[row])) & wanted]
