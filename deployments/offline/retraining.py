"""Learn from the log: fit what feedback adds to an artefact, evaluate it off-policy, put it in force only if it wins.

log ─▶ rated decisions ─▶ for each fold of prompts: fit on the others, decide again ─▶ doubly robust ─▶ swap, or leave

What is evaluated is the policy with the predictor, by the code that serves: every decision of the policy in force is
made again with the incumbent's and with the candidate's expectations, by an adapter that saw neither the decision
nor its prompt. The one that goes into force is fitted to all folds.

A decision is the choice of a first recipe, and its value is that of the whole path: what the delivered pictures are
worth, whichever recipe or try they came from, less what everything took that was made on the way. Since the log is
looked at again and again, the verdict also takes an interval that is valid at every look, from adapters that saw only
what was said before a decision was rated (`past_and_future`). What an artefact learned from is not used to judge
it again: its incumbency is judged by what was said after.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.offline.replay import Replay, chance_of_each, chances, worth
from deployments.store.decision_log import DecisionLog
from models.weights.revisions import revision
from policies import Policy
from router.errors import ArtifactError
from router.learning.feedback import DecisionRecord, Feedback, value_of_path
from router.learning.off_policy import ESTIMATORS, Comparison, LoggedChoices, compare, increments
from router.learning.ratings import MIN_PROMPTS
from router.learning.training import split_groups
from router.prompts.lexical import FEATURES
from router.quality.predictor import QualityPredictor
from router.quality.residual import Adapter, fit_adapter
from router.registry.artifact import Artifact, load_artifact
from router.registry.versions import succeed
from router.types import Catalogue, PromptView
from router.verification.recalibration import LabelledPictures, Recalibrated, calibration_files, recalibrate
from router.verification.score_calibration import load_score_reading
from router.verification.score_reading import ScoreReading

Array = NDArray[np.float64]
FOLDS = 5
MIN_RATED = 100  # decisions; with fewer no interval is narrow enough to say anything
FIRST, GROWTH = 50, 1.5  # rated decisions before the first candidate of the past, and between it and the next
DEAREST = 5.0  # a path counts at most as so many times what the most expensive option of any decision was expected to


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
    rated.sort(key=lambda one: one.said_at_s)
    until_s = float(incumbent.config.get("feedback", {}).get("until_s", -math.inf))
    judging = [one for one in rated if one.said_at_s > until_s]
    chosen = [one for one in judging if one.counts_for(policy)]
    _check_enough(log, source, policy, judging, chosen, len(rated) - len(judging))
    replay = Replay(policy, catalogue, _score_readings(Path(folder), incumbent, catalogue))
    lessons = Lessons.of(rated, predictor, policy, replay)
    comparison = compare_policies(chosen, lessons, predictor, policy, replay, seed)
    counts = {
        "rated": len(rated), "judged": len(chosen), "ratings": len(lessons.values),
        "other_policy_or_version": sum(not one.of_version(policy) for one in rated), "unknown_recipe": lessons.skipped,
        "later_tries": lessons.later, "learned_before": len(rated) - len(judging),
    }  # fmt: skip
    wins, why = comparison.verdict
    if not wins or dry_run:
        return Retrained(False, why, comparison, counts)
    adapter = lessons.fit(predictor)
    config: dict[str, Any] = {
        **copy.deepcopy(dict(incumbent.config)),
        "feedback": {**adapter.config, "until_s": rated[-1].said_at_s},
    }
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
        """The value of the path, 0..1; see `value_of_path`."""
        return value_of_path(self.record, self.said)

    @property
    def said_at_s(self) -> float:
        """When the last of it was said."""
        return max(f.at_s for f in self.said)

    def worth(self, policy: Policy, ceiling: float = math.inf) -> float:
        """The reward less the price of the whole path, as measured, at most `ceiling`."""
        record, reward = self.record, self.reward or 0.0
        price = reward - worth(policy, record.rules, reward, record.cost_usd, record.latency_s)
        return reward - min(price, ceiling)

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
    at_s (n,): when the last was said of the decision
    skipped: ratings of recipes that neither the artefact nor the policy knows
    later: of pictures that were only made because an earlier one of the same recipe had a low score. How many there are
           depends on what they are worth, so they would pull the mean of their recipe; the first picture does not
    """

    inputs: Array
    columns: NDArray[np.int64]
    expected: Array
    deviations: Array
    values: Array
    groups: tuple[str, ...]
    at_s: Array
    skipped: int
    later: int

    @classmethod
    def of(cls, rated: Sequence[Rated], predictor: QualityPredictor, policy: Policy, replay: Replay) -> Lessons:
        place = {key: k for k, key in enumerate(predictor.columns)}
        bare = predictor.with_adapter(None)
        rows: list[tuple[Array, int, float, float, float, str, float]] = []
        skipped = later = 0
        for one in rated:
            inputs, stds = predictor.inputs(one.view)[0], predictor.base_std(one.base)
            for said in one.said:
                key = one.record.keys.get(said.recipe, "")
                if said.attempt:
                    later += 1
                    continue
                if (column := place.get(key)) is not None and column < len(stds):
                    mean, std = float(one.base[column]), float(stds[column])
                elif said.recipe in policy.recipes and key and not key.startswith("given") and one.of_version(policy):
                    rules = one.record.rules
                    quality = replay.qualities(bare, one.view, one.base, rules, [said.recipe])[said.recipe]
                    mean, std = quality.mean, quality.std
                    column = place.setdefault(key, len(place))
                else:
                    skipped += 1
                    continue
                rows.append((inputs, column, mean, std, said.value, one.record.prompt_hash, one.said_at_s))
        inputs, columns, expected, deviations, values, groups, at_s = zip(*rows, strict=True) if rows else [()] * 7
        return cls(
            np.array(inputs), np.array(columns, np.int64), np.array(expected), np.array(deviations), np.array(values),
            tuple(groups), np.array(at_s), skipped, later,
        )  # fmt: skip

    def prompts_among(self, pictures: LabelledPictures) -> frozenset[str]:
        """The groups that are about prompts of `pictures`."""
        return frozenset(group for group, seen in zip(self.groups, pictures.among(self.inputs), strict=True) if seen)

    def fit(
        self, predictor: QualityPredictor, without: frozenset[str] = frozenset(), before_s: float = math.inf
    ) -> Adapter:
        """An adapter for the base of `predictor`, from all groups of prompts but those, and what was said before."""
        kept = np.array([group not in without for group in self.groups]) & (self.at_s < before_s)
        groups = [group for group, keep in zip(self.groups, kept.tolist(), strict=True) if keep]
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


@dataclass(frozen=True)
class Replayed:
    """n decisions made again by one or several predictors: chances and expected worth of each option, (n, m)."""

    chances: Array
    expected: Array


def compare_policies(
    chosen: Sequence[Rated],
    lessons: Lessons,
    predictor: QualityPredictor,
    policy: Policy,
    replay: Replay,
    seed: int = 0,
) -> Comparison:
    """The policy with the incumbent's expectations against the policy with those of adapters that did not see a row.

    chosen: in the order in which they were rated
    """
    groups = [one.record.prompt_hash for one in chosen]
    split = split_groups(groups, FOLDS, seed)

    def made_again(parts: Iterable[tuple[Sequence[int], QualityPredictor]]) -> Replayed:
        most = max(len(one.record.options) for one in chosen)
        found = Replayed(*(np.zeros((len(chosen), most)) for _ in range(2)))
        for rows, candidate in parts:
            for row in rows:
                _replayed(chosen[row], predictor, candidate, policy, replay, found.chances[row], found.expected[row])
        return found

    def of_folds() -> Iterator[tuple[Sequence[int], QualityPredictor]]:
        for fold in range(FOLDS):
            rows = np.flatnonzero(split == fold).tolist()
            seen = frozenset(groups[row] for row in rows)
            yield rows, predictor.with_adapter(lessons.fit(predictor, seen))

    def of_the_past() -> Iterator[tuple[Sequence[int], QualityPredictor]]:
        for rows in past_and_future(len(chosen)):
            seen, since_s = frozenset(groups[row] for row in rows), chosen[rows[0]].said_at_s
            if ((lessons.at_s < since_s) & [group not in seen for group in lessons.groups]).any():
                yield rows, predictor.with_adapter(lessons.fit(predictor, seen, since_s))
            else:
                yield rows, predictor

    records = [one.record for one in chosen]
    before = made_again([(range(len(chosen)), predictor)])
    after, past = made_again(of_folds()), made_again(of_the_past())
    taken = [list(record.options).index(record.recipe) for record in records]
    dearest = max(_price(policy, one, name) for one in chosen for name in one.record.options)
    ceiling = DEAREST * max(dearest, 0.0)
    logged = LoggedChoices(
        np.array(taken),
        np.array([record.propensity for record in records]),
        np.array([one.worth(policy, ceiling) for one in chosen]),
        after.expected,
        groups,
        _least(chosen, policy, predictor, before.chances),
        1.0 + ceiling,
    )
    judged = slice(min(FIRST, len(chosen)), None)
    said = increments(logged.rows(judged), before.chances[judged], past.chances[judged], past.expected[judged])
    return compare(logged, before.chances, after.chances, seed=seed, said=said)


def past_and_future(count: int) -> Iterator[range]:
    """The decisions that one candidate of the past decides again: those that came before are what it may have seen.

    Their ends do not depend on how many have come since, so that what was judged stays judged."""
    first, end = FIRST, FIRST
    while first < count:
        end = max(first + 1, int(end * GROWTH))
        yield range(first, min(end, count))
        first = end


def _replayed(
    one: Rated,
    incumbent: QualityPredictor,
    candidate: QualityPredictor,
    policy: Policy,
    replay: Replay,
    chance: Array,
    expected: Array,
) -> None:
    """Writes with which probability each option is taken, and the worth it is expected to have."""
    record = one.record
    estimates = replay.estimates(candidate, one.view, one.base, record.rules, record.options, incumbent)
    taken = chances(policy, record.rules, estimates, record.degradable)
    for k, (name, e) in enumerate(estimates.items()):
        chance[k] = taken[name]
        expected[k] = worth(policy, record.rules, e.quality.mean, e.cost_usd, e.latency_s)


def _least(chosen: Sequence[Rated], policy: Policy, predictor: QualityPredictor, before: Array) -> Array:
    """No option was taken with a smaller probability than that, (n, m): what chance gives it, and more if the incumbent
    decided then. Where nothing was left to chance, nothing is known of what was not taken."""
    least = np.zeros_like(before)
    for row, one in enumerate(chosen):
        record = one.record
        if record.propensity >= 1.0:
            continue
        own = record.artifact == predictor.digest
        by_chance = chance_of_each(policy, record.rules, record.options)
        for k, name in enumerate(record.options):
            least[row, k] = max(by_chance[name], before[row, k] if own else 0.0)
    return least


def _price(policy: Policy, one: Rated, option: str) -> float:
    """What an option was expected to cost, in quality."""
    estimate = one.record.options[option]
    return -worth(policy, one.record.rules, 0.0, estimate.cost_usd, estimate.latency_s)


def _score_readings(folder: Path, artifact: Artifact, catalogue: Catalogue) -> dict[str, ScoreReading]:
    """How scores are read beside the artefact, for searches."""
    return {
        model: load_score_reading(folder, artifact.digest, catalogue[model], revision(catalogue[model]))
        for model in catalogue.ids()
        if catalogue[model].role == "scorer"
    }


def _check_enough(
    log: DecisionLog, source: str, policy: Policy, rated: Sequence[Rated], chosen: Sequence[Rated], learned: int
) -> None:
    groups = len({one.record.prompt_hash for one in chosen})
    if len(chosen) >= MIN_RATED and groups >= MIN_PROMPTS:
        return
    sources = ", ".join(f"{name} ({count})" for name, count in log.counts()["feedback"].items()) or "none"
    named = sum(one.of_version(policy) and one.record.pinned for one in rated)
    raise ArtifactError(
        f"{log.path} has {len(chosen)} rated decisions (source {source!r}, {groups} prompts) of policy {policy.name!r} "
        f"as it is in force ({policy.digest}); at least {MIN_RATED} on {MIN_PROMPTS} prompts are needed. Left out: "
        f"{len(rated) - len(chosen) - named} of other policies or versions, {named} with a recipe asked for by name, "
        f"{learned} that the artefact in force has learned from already. Feedback by source: {sources}"
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

Valid at every look: {comparison.always[0]:+.4f} to {comparison.always[1]:+.4f}.
"""
