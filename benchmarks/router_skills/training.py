"""Trains the skill heads: a table of prompts with the skills that they do or do not ask for, in; an artefact, out.

A prompt set tells of some skills and is silent on others, so every head learns from the prompts that are labelled for
its skill only, both answers weighing the same. All reported figures are held out: grouped folds, and whole sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.prompts.embedding import Embedder, MiniLMEmbedder
from router.prompts.lexical import SIGNALS, lexical_features
from router.prompts.scaling import Scaler
from router.prompts.skills import FORMAT, INPUTS, SKILLS, SkillHeads, head_inputs
from router.registry.artifact import Artifact, save_artifact

Array = NDArray[np.float64]
STRENGTH = 1.0  # inverse penalty of the logistic regression
FEATURE_WEIGHT = 12.0  # of the block of features against the embedding, whose numbers are small
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prompt of a prompt set, and the skills that the set says it asks for (True) or does not (False)."""

    prompt: str
    source: str
    skills: Mapping[str, bool]


@dataclass(frozen=True)
class HeadReport:
    """Figures of one skill: balanced accuracy and area under the ROC curve, of the head and of the rule that it builds
    on. held_out: "folds", or the prompt set that the head had not seen anything of."""

    skill: str
    held_out: str
    prompts: int
    positive: int
    accuracy: float
    auc: float
    rule_accuracy: float
    rule_auc: float


def train_skills(
    labelled: Sequence[Labelled], path: str | Path, sources: str, licence: str, embedder: Embedder | None = None,
    judged: Sequence[Labelled] = (), seed: int = 0,
) -> tuple[Artifact, tuple[HeadReport, ...]]:  # fmt: skip
    """Fit on `labelled`, judge on folds and on `judged` (sets that are not learned from), save to folder `path`."""
    embedder = embedder or MiniLMEmbedder()
    features = [head_inputs([lexical_features(one.prompt) for one in part]) for part in (labelled, judged) if part]
    embeddings = [embedder.embed([one.prompt for one in part]) for part in (labelled, judged) if part]
    scaler = Scaler.fit(features[0], FEATURE_WEIGHT)
    inputs = [scaler.join(e, f) for e, f in zip(embeddings, features, strict=True)]
    heads, reports = [], []
    for k, skill in enumerate(SKILLS):
        rule = len(INPUTS) - len(SIGNALS) + k
        known = np.array([j for j, one in enumerate(labelled) if skill in one.skills])
        answers = np.array([labelled[j].skills[skill] for j in known])
        rows = inputs[0][known]
        crossed = np.empty(len(known))
        split = np.random.default_rng(seed).permutation(len(known)) % FOLDS
        for fold in range(FOLDS):
            slope, level = _fit(rows[split != fold], answers[split != fold])
            crossed[split == fold] = rows[split == fold] @ slope + level
        reports.append(_report(skill, "folds", answers, crossed, features[0][known, rule]))
        heads.append(_fit(rows, answers))
        for source in dict.fromkeys(one.source for one in judged):
            other = np.array([j for j, one in enumerate(judged) if one.source == source and skill in one.skills])
            truth = np.array([judged[j].skills[skill] for j in other])
            if len(other) and 0 < truth.sum() < len(truth):
                logits = inputs[1][other] @ heads[-1][0] + heads[-1][1]
                reports.append(_report(skill, source, truth, logits, features[1][other, rule]))
    slopes = np.stack([slope for slope, _ in heads], axis=1)
    slopes[-len(INPUTS) :] *= FEATURE_WEIGHT  # the served scaler has weight 1
    trained = SkillHeads(scaler, slopes, np.array([level for _, level in heads]))
    config = {
        "skills": list(SKILLS),
        "inputs": list(INPUTS),
        "embedding": {"model": "all-MiniLM-L6-v2", "width": int(embeddings[0].shape[1])},
        "training": {"prompts": len(labelled), "seed": seed, "held_out": [asdict(report) for report in reports]},
    }
    return save_artifact(path, config, trained.weights, _card(reports, sources, licence), form=FORMAT), tuple(reports)


def _fit(inputs: Array, answers: NDArray[np.bool_]) -> tuple[Array, float]:
    """Slope and level of one head."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=500).fit(inputs, answers)
    return model.coef_[0], float(model.intercept_[0])


def _report(skill: str, held_out: str, answers: NDArray[np.bool_], logits: Array, rule: Array) -> HeadReport:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    return HeadReport(
        skill,
        held_out,
        len(answers),
        int(answers.sum()),
        float(balanced_accuracy_score(answers, logits > 0)),
        float(roc_auc_score(answers, logits)),
        float(balanced_accuracy_score(answers, rule > 0.5)),
        float(roc_auc_score(answers, rule)),
    )


def _card(reports: Sequence[Any], sources: str, licence: str) -> str:
    rows = "\n".join(
        f"| {r.skill} | {r.held_out} | {r.prompts} | {r.positive} | {r.accuracy:.3f} | {r.auc:.3f} "
        f"| {r.rule_accuracy:.3f} | {r.rule_auc:.3f} |"
        for r in reports
    )
    return f"""# Skill heads

Trained on the categories of {sources}. Licences: {licence}.

One logistic regression a skill on the embedding of all-MiniLM-L6-v2 and {len(INPUTS)} lexical features. Balanced
accuracy (at one half) and area under the ROC curve on prompts that the heads had not seen: by {FOLDS} folds, and on
whole sets.
`rule` is the hand-written signal of router/prompts/lexical.py. A set's categories say what its authors meant to test,
not all that a prompt asks for, so no head can agree with them wholly.

| skill | held out | prompts | asking for it | accuracy | AUC | rule accuracy | rule AUC |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}
"""
