"""What is learned of paths: pictures that were tried, escalated and searched for, each credited to what it was."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deployments.assembly import catalogue_of
from deployments.offline.replay import Replay
from deployments.offline.retraining import FIRST, Lessons, Rated, past_and_future, retrain
from deployments.orchestration.recorder import kept, record_of, verdicts
from deployments.orchestration.results import Check, Made, Outcome, VerificationChoice
from deployments.orchestration.verifier import Verifier
from deployments.settings import AppSettings
from deployments.store.decision_log import DecisionLog
from deployments.workers.worker import OnProgress
from policies import Policy, load_policy_text
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.learning.feedback import DecisionRecord, Feedback
from router.learning.pairs import view_of
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.routing import Router
from router.types import (
    Context,
    GenerationRequest,
    Picture,
    Prices,
    Resources,
    Scores,
    Step,
    StepResult,
    Value,
    Verification,
)
from router.verification.options import Options
from router.verification.score_reading import ScoreModel, ScoreReading
from router.verification.value_of_information import Option
from tests.deployments.learning.test_retraining import KEYS
from tests.deployments.support.scripted import EMBEDDER, GREY, Script, scripted
from tests.deployments.support.use import POLICY, lived_policy
from tests.store.test_decision_log import decision

CHECKED = """
recipes:
  small: {generate: {model: sd15, steps: 1}}
  large: {generate: {model: flux, steps: 1}}
objective: {minimise: cost_usd}
verify: {scorer: alignment, accept_above: 0.95, retry: 1, escalate_to: [large]}
explore: {rate: 0.5}
"""
SEARCHING = """
version: 1
name: searching
recipes:
  draft:  {generate: {model: sd15, steps: 12, scheduler: dpmsolver++}}
  single: {generate: {model: sdxl}}
  many:   {best_of: {n: auto, most: 4, of: [draft, single], scorer: alignment, quality_per_s: 0.0001}}
objective: {maximise: quality}
explore: {rate: 0.3}
"""
SHARP = ScoreReading(ScoreModel(1.0, 1.0, 0.0, (3.0, 4.0), (-3.0, -4.0)), 2.0, True, "calibrated for this test")


class InTurn(Script):
    """A scorer whose scores come in this order, whatever it sees."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__(dict.fromkeys(GREY.values(), 0.5))
        self.left = list(scores)

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        if step.kind == "score":
            self.ran.append(f"score {step.model}")
            return StepResult(Scores((self.left.pop(0),)), self.took_s)
        return await super().run(step, inputs, deadline_s, on_progress)


@pytest.fixture(scope="module")
def predictor(settings: AppSettings) -> QualityPredictor:
    return QualityPredictor(load_artifact(settings.artifact_path), catalogue_of(settings))


def rated(predictor: QualityPredictor, record: DecisionRecord, *said: Feedback, prompt: str = "a red circle") -> Rated:
    view = view_of(predictor, EMBEDDER, prompt)
    return Rated(record, said, view, predictor.base_means(view))


def replay_of(policy: Policy, settings: AppSettings, **readings: ScoreReading) -> Replay:
    return Replay(policy, catalogue_of(settings), readings)


# ---------------------------------------------------------------------------------------------------------- each try


async def test_two_tries_of_one_recipe_are_two_rows(settings: AppSettings, tmp_path: Path) -> None:
    """Of two drafts with .9 (kept) and .1 and two others with .3 and .2, every score is in the log, the delivered
    try is known, and a person's rating goes to it."""
    log = DecisionLog(tmp_path / "log.sqlite")
    orchestrator, _ = scripted(settings, tmp_path, InTurn([0.9, 0.1, 0.3, 0.2]), {"checked": CHECKED}, log=log)
    await orchestrator.generate(GenerationRequest("a red circle", id="r"))
    ((record, said),) = log.rated("scorer:alignment")
    assert [(f.recipe, f.attempt, f.value) for f in said] == [
        ("large", 0, pytest.approx(0.3)),
        ("large", 1, pytest.approx(0.2)),
        ("small", 0, pytest.approx(0.9)),
        ("small", 1, pytest.approx(0.1)),
    ]
    assert (record.made, record.kept) == (("small",), (0,))
    assert Rated(record, said, None, None).reward == pytest.approx(0.9)  # type: ignore[arg-type]


async def test_the_try_that_was_kept_is_the_one_that_is_rated(settings: AppSettings, tmp_path: Path) -> None:
    """If the second draft is the one that is delivered, a rating and the reward are the second's."""
    log = DecisionLog(tmp_path / "log.sqlite")
    orchestrator, _ = scripted(settings, tmp_path, InTurn([0.1, 0.9, 0.3, 0.2]), {"checked": CHECKED}, log=log)
    outcome = await orchestrator.generate(GenerationRequest("a red circle", id="r"))
    assert kept(outcome.made[0]) == 1
    log.attach("r", "rating", 0.75)
    assert [(f.recipe, f.attempt) for f in log.rated("rating")[0][1]] == [("small", 1)]
    ((record, said),) = log.rated("scorer:alignment")
    assert Rated(record, said, None, None).reward == pytest.approx(0.9)  # type: ignore[arg-type]


def test_an_unchecked_picture_is_the_first_try() -> None:
    """Where nothing was scored there are no verdicts, and what was delivered is the first of its recipe."""
    assert kept(Made(Picture(np.zeros((1, 1, 3), np.uint8)), 7, "", (), "small")) == 0
    checks = tuple(Check("small", score, (), seed=seed) for seed, score in ((7, 0.2), (8, 0.3)))
    assert kept(Made(Picture(np.zeros((1, 1, 3), np.uint8)), 8, "", (), "small", checks)) == 1


def test_searching_until_it_is_good_does_not_change_what_is_learned(
    settings: AppSettings, predictor: QualityPredictor
) -> None:
    """Over 2,000 searches that go on until a score reaches .6, at most four tries, what is learned of the recipe has
    the true mean .5 within 3.5 standard errors, while the mean of each search's tries is off by more than .03."""
    rng, policy = np.random.default_rng(0), lived_policy(0.4)
    entries, means = [], []
    record = decision()
    record = DecisionRecord(**{**vars(record), "keys": KEYS, "made": ("draft",), "kept": (0,)})
    for _ in range(2000):
        scores: list[float] = []
        while len(scores) < 4 and (not scores or scores[-1] < 0.6):
            scores.append(float(rng.uniform(0, 1)))
        means.append(np.mean(scores))
        said = [Feedback("scorer:alignment", 0, "draft", score, 1.0, k) for k, score in enumerate(scores)]
        entries.append(Rated(record, tuple(said), *_view(predictor)))
    lessons = Lessons.of(entries, predictor, policy, replay_of(policy, settings))
    assert len(lessons.values) == 2000 and lessons.later == sum(len(e.said) - 1 for e in entries) > 1000
    error = lessons.values.std() / np.sqrt(2000)
    assert abs(lessons.values.mean() - 0.5) < 3.5 * error
    assert np.mean(means) - 0.5 > 0.03


_VIEW: list[object] = []


def _view(predictor: QualityPredictor):  # type: ignore[no-untyped-def]
    if not _VIEW:
        view = view_of(predictor, EMBEDDER, "a red circle")
        _VIEW.extend((view, predictor.base_means(view)))
    return _VIEW


# ---------------------------------------------------------------------------------------------------------- the path


def test_an_escalated_picture_is_credited_to_what_was_delivered(
    settings: AppSettings, predictor: QualityPredictor
) -> None:
    """The draft was chosen, premium delivered and rated .8: premium's column learns .8, and the choice of the draft is
    worth .8 less what the whole path took, as measured: .8 - 1 * .02 - .001 * 3."""
    policy = lived_policy(0.4)
    record = DecisionRecord(
        **{
            **vars(decision()), "keys": KEYS, "recipe": "draft", "made": ("premium",), "kept": (0,),
            "latency_s": 3.0, "cost_usd": 0.02, "rules": (),
        }
    )  # fmt: skip
    one = rated(predictor, record, Feedback("rating", 0, "premium", 0.8, 5.0))
    assert one.reward == pytest.approx(0.8)
    assert one.worth(policy) == pytest.approx(0.8 - 0.02 - 0.003)
    assert one.worth(policy, ceiling=0.01) == pytest.approx(0.8 - 0.01)
    lessons = Lessons.of([one], predictor, policy, replay_of(policy, settings))
    assert [predictor.columns[k] for k in lessons.columns] == [KEYS["premium"]]
    assert lessons.values.tolist() == [0.8]
    assert lessons.expected == pytest.approx([one.base[lessons.columns[0]]])


def test_what_a_scorer_said_of_a_picture_that_was_not_kept_is_no_reward(predictor: QualityPredictor) -> None:
    """Of the verdicts on a path, only the one on the delivered picture is the path's."""
    record = DecisionRecord(**{**vars(decision()), "keys": KEYS, "made": ("premium",), "kept": (0,)})
    said = [Feedback("scorer:a", 0, "draft", 0.1), Feedback("scorer:a", 0, "premium", 0.7)]
    assert Rated(record, tuple(said), None, None).reward == pytest.approx(0.7)  # type: ignore[arg-type]
    assert Rated(record, (said[0],), None, None).reward is None  # type: ignore[arg-type]


def test_a_first_choice_is_judged_by_its_whole_path(
    settings: AppSettings, tmp_path: Path, predictor: QualityPredictor
) -> None:
    """Where drafts are always replaced by an expensive picture, what `retrain` says that the policy earns is the mean
    rating less what the paths took: a replaced draft costs as much as was measured, not what a draft would."""
    text = "objective: {maximise: quality, weight: {cost_usd: 1000, latency_s: 0}}"
    policy = load_policy_text(
        POLICY.format(rate=0.4).replace(
            "objective: {maximise: quality, weight: {cost_usd: 1, latency_s: 0.001}}", text
        ),
        "lived.yaml",
    )
    catalogue = catalogue_of(settings)
    router = Router(catalogue, EMBEDDER, predictor, Queues(CostModel(catalogue)))
    log, rng, paid = DecisionLog(tmp_path / "log.sqlite"), np.random.default_rng(0), []
    for k in range(160):
        request = GenerationRequest(f"a red circle and {k // 2 % 40} rings", id=f"r{k}")
        route = router.route(request, policy, Context(draw=float(rng.random())))
        name = route.decision.recipe
        path = ("draft", "premium") if name == "draft" else (name,)
        paid.append(sum(route.estimates[part].cost_usd for part in path))
        made = Made(Picture(np.zeros((1, 1, 3), np.uint8)), 0, "", (), path[-1])
        log.record(record_of(Outcome(route, (made,), 0.1, paid[-1]), policy.recipes, predictor, catalogue))
        log.attach(request.id, "rating", 0.9)
    folder = Path(shutil.copytree(settings.artifact_path, tmp_path / "serving"))
    found = retrain(log, "rating", folder, policy, catalogue, dry_run=True).comparison
    drafts = [one.recipe == "draft" for one, _ in log.rated("rating")]
    assert 20 < sum(drafts) < 160
    assert found.estimates["ips"].before == pytest.approx(0.9 - 1000 * np.mean(paid), abs=1e-6)


# ---------------------------------------------------------------------------------------------------------- searches


def test_a_search_is_replayed_by_the_code_that_serves(settings: AppSettings, predictor: QualityPredictor) -> None:
    """What replay expects of an `n: auto` recipe is what the router expected when it served, with a calibrated scorer
    and without; composition says something else."""
    catalogue, policy = catalogue_of(settings), load_policy_text(SEARCHING, "searching.yaml")
    for readings in ({}, {"alignment": SHARP}):
        router = Router(catalogue, EMBEDDER, predictor, Queues(CostModel(catalogue)), readings)
        replay = replay_of(policy, settings, **readings)
        for prompt in ("a red circle", "three small red circles above a large blue ring on a black background"):
            route = router.route(GenerationRequest(prompt, id="r"), policy)
            one = rated(predictor, decision(), prompt=prompt)
            found = replay.qualities(predictor, one.view, one.base, (), ("many", "single"))
            served = route.estimates["many"].quality
            assert found["many"].mean == pytest.approx(served.mean, abs=1e-6)
            assert found["many"].std == pytest.approx(served.std, abs=1e-6)
            composed = predictor.predict(one.view, policy.recipes, ["many"])["many"]
            assert abs(composed.mean - served.mean) > 0.005
            estimates = replay.estimates(predictor, one.view, one.base, (), route.estimates, predictor)
            assert estimates["many"].cost_usd == route.estimates["many"].cost_usd


def test_a_search_that_would_end_earlier_costs_less_in_replay(
    settings: AppSettings, predictor: QualityPredictor
) -> None:
    """An adapter that expects more of every recipe is replayed with fewer pictures, so at a lower cost than logged."""
    from router.quality.residual import Adapter

    catalogue, policy = catalogue_of(settings), load_policy_text(SEARCHING, "searching.yaml")
    router = Router(catalogue, EMBEDDER, predictor, Queues(CostModel(catalogue)), {"alignment": SHARP})
    replay = replay_of(policy, settings, alignment=SHARP)
    prompt = "three small red circles above a large blue ring on a black background"
    logged = router.route(GenerationRequest(prompt, id="r"), policy).estimates
    one = rated(predictor, decision(), prompt=prompt)
    width, columns = predictor.inputs(one.view).shape[1], len(predictor.columns)
    adapter = Adapter(np.zeros((0, width)), np.zeros((0, columns)), np.full(columns, 0.4), predictor.gamma)
    found = replay.estimates(predictor.with_adapter(adapter), one.view, one.base, (), logged, predictor)
    assert found["many"].quality.mean > logged["many"].quality.mean
    assert found["many"].cost_usd < 0.95 * logged["many"].cost_usd
    assert found["single"].cost_usd == logged["single"].cost_usd


# ------------------------------------------------------------------------------------------------------------- looks


@pytest.mark.parametrize("count", [0, 49, 50, 51, 100, 300, 5000])
def test_what_was_judged_stays_judged(count: int) -> None:
    """Blocks follow one another without a gap from the fiftieth decision on, and do not move when more come in."""
    blocks, more = list(past_and_future(count)), list(past_and_future(count + 1000))
    assert [row for block in blocks for row in block] == list(range(FIRST, count))
    assert [block.start for block in blocks] == [block.start for block in more][: len(blocks)]
    assert blocks[:-1] == more[: max(0, len(blocks) - 1)]


class Bench:
    """One recipe with a chance of .6, worth two pictures, whose pictures get these scores."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.left = list(scores)

    async def score(self, made: Made, scorer: str) -> Check:
        return Check(made.recipe, self.left.pop(0), ())

    async def make(self, recipe: str, again: int) -> Made:
        return Made(Picture(np.zeros((1, 1, 3), np.uint8)), again, "", (), recipe)

    def next_options(self) -> Options:
        option = Option("draft", 0.6, 2.0, Resources())
        return Options(option, (option,), {"draft": Resources()}, Resources())

    def in_time(self, timing: Resources) -> bool:
        return True

    def tell(self, found: Check | VerificationChoice) -> None:
        pass


async def test_earlier_failures_count_in_a_look() -> None:
    """A draft with a chance of .6 (worth two pictures) and a score of .2 is right with .375 / 1.375 = .2727; the next
    one starts from (1.2 + .2727) / 3 = .4909, so a score of .3 makes it .2924, not .3913."""
    bench = Bench([0.2, 0.3])
    verify = Verification("alignment", retry=1, by="expected_gain", prices=Prices())
    search = Verifier(await bench.make("draft", 0), verify, ScoreReading(), bench)
    await search.look(search.made)
    await search.look(await bench.make("draft", 1))
    assert [check.probability for check in search.checks] == pytest.approx([0.272727, 0.292420], abs=1e-5)


def test_verdicts_without_verification_are_none(settings: AppSettings, predictor: QualityPredictor) -> None:
    """A decision that checks nothing leaves no scorer's feedback."""
    policy, catalogue = lived_policy(0.4), catalogue_of(settings)
    route = Router(catalogue, EMBEDDER, predictor, Queues(CostModel(catalogue))).route(
        GenerationRequest("a red circle", id="r"), policy
    )
    made = Made(Picture(np.zeros((1, 1, 3), np.uint8)), 0, "", (), route.decision.recipe)
    assert verdicts(Outcome(route, (made,), 0.1, 0.0)) == []
