"""Learn from the log: fit what feedback adds to an artefact, evaluate it off-policy, put it in force only if it wins.

log ─▶ rated decisions ─▶ for each fold of prompts: fit on the others, decide again ─▶ doubly robust ─▶ swap, or leave

What is evaluated is the policy with the predictor, by the code that serves: every decision of the policy in force is
made again with the incumbent's and with the candidate's expectations, by an adapter that saw neither the decision
nor its prompt. The one that goes into force is fitted to all folds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.offline.replay import chances, prices
from policies import Policy
from router.errors import ArtifactError
from router.learning.decision_log import DecisionLog
from router.learning.feedback import DecisionRecord, Feedback
from router.learning.off_policy import ESTIMATORS, Comparison, LoggedChoices, compare
from router.learning.ratings import MIN_PROMPTS
from router.learning.training import split_groups
from router.prompts.lexical import FEATURES
from router.quality.predictor import QualityPredictor
from router.quality.residual import Adapter, fit_adapter
from router.registry.artifact import Artifact, load_artifact
from router.registry.versions import succeed
from router.types import Catalogue, PromptView
from router.verification.recalibration import LabelledPictures, Recalibrated, calibration_files, recalibrate

Array = NDArray[np.float64]
FOLDS = 5
MIN_RATED = 100  # decisions; with fewer no interval is narrow enough to say anything


@dataclass(frozen=True)
class Retrained:
    """What came of it. artifact: what is in force now, if it was swapped;   counts: of what was used and left out;
    scorers: what became of the calibrations of scorers"""

    swapped: bool
    why: str
    comparison: Comparison
    counts: Mapping[str, int]
    artifact: Artifact | None = None
    scorers: tuple[Recalibrated, ...] = ()


def retrain(
    log: DecisionLog,
    source: str,
    folder: str | Path,
    policy: Policy,
    catalogue: Catalogue,
    out: str | Path | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> Retrained:
    """Let the artefact in `folder` learn from the feedback of `source`; if the policy earns more with it, put it into
    `out` (default: the same folder, what was there is kept). dry_run: only evaluate.

    Raises `ArtifactError` if too little was rated.
    """
    incumbent = load_artifact(folder)
    predictor = QualityPredictor(incumbent, catalogue)
    rated = [Rated.of(record, said, predictor) for record, said in log.rated(source)]
    chosen = [one for one in rated if one.counts_for(policy)]
    _check_enough(log, source, policy, rated, chosen)
    lessons = Lessons.of(rated, predictor, policy)
    comparison = compare_policies(chosen, lessons, predictor, policy, seed)
    counts = {
        "rated": len(rated), "judged": len(chosen), "ratings": len(lessons.values),
        "other_policy_or_version": sum(not one.of_version(policy) for one in rated), "unknown_recipe": lessons.skipped,
    }  # fmt: skip
    wins, why = comparison.verdict
    if not wins or dry_run:
        return Retrained(False, why, comparison, counts)
    adapter = lessons.fit(predictor)
    config: dict[str, Any] = {**copy.deepcopy(dict(incumbent.config)), "feedback": adapter.config}
    card = _card(incumbent, source, policy, comparison, counts)
    scorers = tuple(
        recalibrate(file, incumbent.digest, lambda pictures: lessons.fit(predictor, lessons.prompts_among(pictures)))
        for file in calibration_files(Path(folder))
    )
    artifact = succeed(
        out or folder,
        config,
        {**incumbent.weights, **adapter.weights},
        card,
        lambda digest: {name: data for one in scorers for name, data in one.files(digest).items()},
    )
    return Retrained(True, why, comparison, counts, artifact, scorers)


@dataclass(frozen=True)
class Rated:
    """A decision with what was said of it. base (c,): what the artefact under all feedback expects of its columns."""

    record: DecisionRecord
    said: tuple[Feedback, ...]
    view: PromptView = field(repr=False)
    base: Array = field(repr=False)

    @classmethod
    def of(cls, record: DecisionRecord, said: Sequence[Feedback], predictor: QualityPredictor) -> Rated:
        """The prompt as the predictor sees it: from its text, or from what stands in for it."""
        features = {name: record.features.get(name, 0.0) for name in FEATURES}
        signals = predictor.signals(features, record.embedding)
        familiarity = predictor.familiarity(record.embedding, record.prompt)
        view = PromptView(record.prompt, features, signals, record.embedding, familiarity)
        known = [record.base_means.get(name) for name in predictor.columns]
        if record.base == predictor.base and None not in known:
            return cls(record, tuple(said), view, np.array(known, np.float64))
        return cls(record, tuple(said), view, predictor.base_means(view))

    @property
    def reward(self) -> float | None:
        """Mean of what was said of the delivered pictures, 0..1."""
        made = self.record.made
        values = [f.value for f in self.said if f.image < len(made) and made[f.image] == f.recipe]
        return sum(values) / len(values) if values else None

    def of_version(self, policy: Policy) -> bool:
        """Was it decided by the policy as it is in force now?"""
        return (self.record.policy, self.record.policy_digest) == (policy.name, policy.digest)

    def counts_for(self, policy: Policy) -> bool:
        """Can it say how well that policy does? Not if a recipe was asked for by name: nothing was chosen then."""
        record = self.record
        return self.of_version(policy) and not record.pinned and self.reward is not None


@dataclass(frozen=True)
class Lessons:
    """What an adapter is fitted to: n ratings of single pictures.

    columns (n,): of the artefact, and from its number on, other recipes
    expected, deviations (n,): what the artefact under all feedback says of each;   values (n,): what was said, 0..1
    skipped: ratings of recipes that neither the artefact nor the policy knows
    """

    inputs: Array
    columns: NDArray[np.int64]
    expected: Array
    deviations: Array
    values: Array
    groups: tuple[str, ...]
    skipped: int

    @classmethod
    def of(cls, rated: Sequence[Rated], predictor: QualityPredictor, policy: Policy) -> Lessons:
        place = {key: k for k, key in enumerate(predictor.columns)}
        bare = predictor.with_adapter(None)
        rows: list[tuple[Array, int, float, float, float, str]] = []
        skipped = 0
        for one in rated:
            inputs, stds = predictor.inputs(one.view)[0], predictor.base_std(one.base)
            for said in one.said:
                key = one.record.keys.get(said.recipe, "")
                if (column := place.get(key)) is not None and column < len(stds):
                    mean, std = float(one.base[column]), float(stds[column])
                elif said.recipe in policy.recipes and key and one.of_version(policy):
                    known = bare.adapted(one.view, one.base)
                    quality = bare.predict(one.view, policy.recipes, [said.recipe], known)[said.recipe]
                    mean, std = quality.mean, quality.std
                    column = place.setdefault(key, len(place))
                else:
                    skipped += 1
                    continue
                rows.append((inputs, column, mean, std, said.value, one.record.prompt_hash))
        inputs, columns, expected, deviations, values, groups = zip(*rows, strict=True) if rows else [()] * 6
        return cls(
            np.array(inputs), np.array(columns, np.int64), np.array(expected), np.array(deviations), np.array(values),
            tuple(groups), skipped,
        )  # fmt: skip

    def prompts_among(self, pictures: LabelledPictures) -> frozenset[str]:
        """The groups that are about prompts of `pictures`."""
        return frozenset(group for group, seen in zip(self.groups, pictures.among(self.inputs), strict=True) if seen)

    def fit(self, predictor: QualityPredictor, without: frozenset[str] = frozenset()) -> Adapter:
        """An adapter for the base of `predictor`, from all groups of prompts but those."""
        kept = np.array([group not in without for group in self.groups])
        groups = [group for group in self.groups if group not in without]
        return fit_adapter(
            self.inputs[kept],
            self.columns[kept],
            (self.values - self.expected)[kept],
            self.deviations[kept],
            groups,
            len(predictor.columns),
            predictor.gamma,
            predictor.base,
        )


def compare_policies(
    chosen: Sequence[Rated], lessons: Lessons, predictor: QualityPredictor, policy: Policy, seed: int = 0
) -> Comparison:
    """The policy with the incumbent's expectations against the policy with those of adapters that did not see a row."""
    groups = [one.record.prompt_hash for one in chosen]
    split = split_groups(groups, FOLDS, seed)
    most = max(len(one.record.options) for one in chosen)
    before, after, modelled = (np.zeros((len(chosen), most)) for _ in range(3))
    for fold in range(FOLDS):
        rows = np.flatnonzero(split == fold).tolist()
        candidate = predictor.with_adapter(lessons.fit(predictor, frozenset(groups[row] for row in rows)))
        for row in rows:
            before[row], _ = _replayed(chosen[row], predictor, policy, most)
            after[row], modelled[row] = _replayed(chosen[row], candidate, policy, most)
    records = [one.record for one in chosen]
    taken = [list(record.options).index(record.recipe) for record in records]
    rewards = [
        prices(policy, one.record.rules, one.record.options[one.record.recipe], one.reward or 0.0) for one in chosen
    ]
    logged = LoggedChoices(
        np.array(taken), np.array([record.propensity for record in records]), np.array(rewards), modelled, groups
    )
    return compare(logged, before, after, seed=seed)


def _replayed(one: Rated, predictor: QualityPredictor, policy: Policy, most: int) -> tuple[Array, Array]:
    """With which probability each option is taken, and the value it is expected to have; both padded to (most,)."""
    record, known = one.record, predictor.adapted(one.view, one.base)
    qualities = predictor.predict(one.view, policy.recipes, record.options, known)
    estimates = {name: replace(estimate, quality=qualities[name]) for name, estimate in record.options.items()}
    taken = chances(policy, record.rules, estimates, record.degradable)
    probabilities, values = np.zeros(most), np.zeros(most)
    for k, (name, estimate) in enumerate(estimates.items()):
        probabilities[k] = taken[name]
        values[k] = prices(policy, record.rules, estimate, estimate.quality.mean)
    return probabilities, values


def _check_enough(
    log: DecisionLog, source: str, policy: Policy, rated: Sequence[Rated], chosen: Sequence[Rated]
) -> None:
    groups = len({one.record.prompt_hash for one in chosen})
    if len(chosen) >= MIN_RATED and groups >= MIN_PROMPTS:
        return
    sources = ", ".join(f"{name} ({count})" for name, count in log.counts()["feedback"].items()) or "none"
    named = sum(one.of_version(policy) and one.record.pinned for one in rated)
    raise ArtifactError(
        f"{log.path} has {len(chosen)} rated decisions (source {source!r}, {groups} prompts) of policy {policy.name!r} "
        f"as it is in force ({policy.digest}); at least {MIN_RATED} on {MIN_PROMPTS} prompts are needed. Left out: "
        f"{len(rated) - len(chosen) - named} of other policies or versions, {named} with a recipe asked for by name. "
        f"Feedback by source: {sources}"
    )


def _card(incumbent: Artifact, source: str, policy: Policy, comparison: Comparison, counts: Mapping[str, int]) -> str:
    lines = [
        f"| {name} | {e.before:.4f} | {e.after:.4f} | {e.difference:+.4f} "
        f"| {e.difference_interval[0]:+.4f} to {e.difference_interval[1]:+.4f} |"
        for name, e in ((name, comparison.estimates[name]) for name in ESTIMATORS)
    ]
    own = incumbent.card.partition("\n## Learned from feedback")[0].rstrip()
    return f"""{own}

## Learned from feedback

On {datetime.now(UTC):%Y-%m-%d}, from {counts["ratings"]} ratings of single pictures (source `{source}`). What policy
`{policy.name}@{policy.digest}` earns a decision, off-policy on {comparison.decisions} rated decisions
({comparison.by_chance} with a propensity below 1), each decided again by an adapter that did not see its prompt:

| estimator | before | after | difference | 95 % interval |
| --- | --- | --- | --- | --- |
{chr(10).join(lines)}
"""
