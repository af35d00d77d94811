"""A bootstrap from nothing to a page of truth, on painters and judges that the tests make up."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.bootstrap.campaign import Budget, Campaign
from deployments.bootstrap.labelling import AGAIN, Answer, Labels, next_pair, report, used
from deployments.bootstrap.ledger import FILE, Ledger, Shot
from deployments.bootstrap.making import Drawn, ServerMaker
from deployments.bootstrap.page import write_page
from deployments.bootstrap.readings import AtItsWord, Places
from deployments.bootstrap.results import conclude
from deployments.bootstrap.study import begin, different, load
from deployments.cli.bootstrap.label_page import server_of
from deployments.settings import AppSettings
from policies import load_policy_text
from router.errors import ArtifactError, PolicyError, StepError
from router.learning.ratings import read_ratings
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features
from router.prompts.scaling import Scaler
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import prompts_of
from router.registry.artifact import load_artifact
from tests.deployments.support.served import served
from tests.router.conftest import synthetic_prompts

RECIPES = {"sd15": "draft", "sdxl": "single", "flux": "direct"}
TAKES = {"draft": 0.1, "single": 0.3, "direct": 0.9}
POLICY = """version: 1
name: mine
recipes: {draft: {generate: {model: sd15}}, single: {generate: {model: sdxl}}, direct: {generate: {model: flux}}}
objective: {maximise: quality, weight: {latency_s: 0.3}}
"""
PROMPTS = tuple(synthetic_prompts(96))
EMBEDDER = MiniLMEmbedder()


def hardness(prompt: str) -> float:
    """0..1, by how many things the prompt names."""
    return min(1.0, lexical_features(prompt)["distinct_colours"] / 3)


@dataclass
class Painter:
    """Paints one grey, which says how good the picture is: the harder the prompt, the worse, least so `direct`."""

    knows: bool = True
    stop_after: int = 10**9
    broken: str = ""
    drawn: Counter[str] = field(default_factory=Counter)

    async def draw(self, shot: Shot, recipe: str) -> Drawn:
        await asyncio.sleep(0)
        if recipe == self.broken:
            raise StepError("no paint")
        if sum(self.drawn.values()) >= self.stop_after:
            raise asyncio.CancelledError
        self.drawn[shot.id] += 1
        loss = {"draft": 0.9, "single": 0.5, "direct": 0.1}[recipe] * hardness(shot.prompt) if self.knows else 0.3
        noise = np.random.default_rng(shot.seed).normal(0, 0.08)
        grey = np.clip(255 * (0.95 - loss + noise), 0, 255)
        return Drawn(np.full((8, 8, 3), grey, np.uint8), TAKES[recipe], TAKES[recipe] / 1000)


@dataclass
class Eye:
    """Reads the grey; stumbles over prompts that `fails` says."""

    name: str = "eye"
    probability: bool = True
    fails: Callable[[str], bool] = lambda prompt: False

    def score(self, picture: np.ndarray, prompt: str) -> float:
        if self.fails(prompt):
            raise ValueError("stumbled")
        return float(picture[0, 0, 0]) / 255


def wanted(**changed: Any) -> dict[str, Any]:
    base = {"policy": "mine", "digest": "d", "recipes": RECIPES, "prompts": PROMPTS, "judge": "eye", "judged_by": "1",
                "probability": True, "seeds": 2, "proof": 0.3, "seed": 0}  # fmt: skip
    return {**base, **changed}


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    """The prompts as the predictor's kernel sees them."""
    prompts = prompts_of(PROMPTS, EMBEDDER.embed(PROMPTS), load_skills())
    return np.asarray(Scaler.fit(prompts.features, 0.6).join(prompts.embeddings, prompts.features))


def campaign(
    folder: Path, inputs: np.ndarray, painter: Painter, eye: Eye | None = None, pictures: int = 330, **options: Any
) -> Campaign:
    study = begin(folder, wanted())
    return Campaign(study, Ledger(folder), painter, eye or Eye(), Budget(pictures), inputs, until=0.0, **options)


def test_whoever_is_killed_goes_on_and_draws_nothing_twice(tmp_path: Path, inputs: np.ndarray) -> None:
    """Stopped again and again in the middle, with lines torn off, a study ends with each picture drawn once."""
    painter = Painter()
    for stop in (5, 90, 160):
        painter.stop_after = stop
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(campaign(tmp_path, inputs, painter, pictures=240).run())
        lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
        last_made = max(k for k, line in enumerate(lines) if line.startswith('{"made"'))
        # The process dies while it says that a picture is there: its line is torn, what came after was never written.
        (tmp_path / FILE).write_text("".join(lines[:last_made]) + lines[last_made][:30])
    painter.stop_after = 10**9
    asyncio.run(campaign(tmp_path, inputs, painter, pictures=240).run())
    assert set(painter.drawn.values()) == {1}
    ledger = Ledger(tmp_path)
    assert len(ledger) == len(painter.drawn) == 240
    assert all("eye" in entry.scores for entry in ledger.entries.values())


def test_a_judge_that_stumbles_does_not_end_the_run(tmp_path: Path, inputs: np.ndarray) -> None:
    """Pictures that cannot be judged are counted, kept, and judged by the next run; one that can judge none is told."""
    eye = Eye(fails=lambda prompt: hash_of(prompt) % 5 == 0)
    run = campaign(tmp_path / "some", inputs, Painter(), eye, pictures=150)
    asyncio.run(run.run())
    failed = [entry for entry in run.ledger.entries.values() if entry.unjudged]
    assert failed and all(entry.unjudged == "stumbled" and not entry.scores for entry in failed)
    again = campaign(tmp_path / "some", inputs, Painter(stop_after=0), Eye(), pictures=150)
    asyncio.run(again.run())
    assert all(entry.scores and not entry.unjudged for entry in Ledger(tmp_path / "some").entries.values())
    with pytest.raises(StepError, match="fails on every picture: stumbled"):
        asyncio.run(campaign(tmp_path / "none", inputs, Painter(), Eye(fails=lambda prompt: True)).run())


def hash_of(prompt: str) -> int:
    return sum(prompt.encode())


def test_a_recipe_that_cannot_be_drawn_is_left_out(tmp_path: Path, inputs: np.ndarray) -> None:
    """The others are measured, and it is said why."""
    told: list[str] = []
    run = campaign(tmp_path, inputs, Painter(broken="direct"), pictures=120, note=told.append)
    asyncio.run(run.run())
    assert told == ["warning: direct is left out, since it cannot be drawn: no paint"]
    made = Counter(entry.shot.recipe for entry in run.ledger.entries.values() if not entry.failed)
    assert set(made) == {"sd15", "sdxl"} and sum(made.values()) == 120


@pytest.mark.parametrize("choose", ["value", "uniform"])
def test_nothing_is_learned_from_proof_prompts(tmp_path: Path, inputs: np.ndarray, choose: Any) -> None:
    """The proof has its share of the budget, and prompts of its own, which every contender drew."""
    run = campaign(tmp_path, inputs, Painter(), choose=choose, at_once=1)
    asyncio.run(run.run())
    learning, proof = run.study.split()
    assert not set(learning.tolist()) & set(proof.tolist())
    held_out = {PROMPTS[row] for row in proof}
    counts = Counter(entry.shot.prompt in held_out for entry in run.ledger.entries.values())
    assert counts == {False: 231, True: 99}
    rows, _ = run.beliefs()
    assert rows is not None and set(rows.seen.prompt.tolist()) <= set(learning.tolist())


def test_it_stops_when_pictures_no_longer_change_decisions(tmp_path: Path, inputs: np.ndarray) -> None:
    """Where all recipes are alike there is nothing to decide: learning ends early and says why, the proof follows."""
    study = begin(tmp_path, wanted())
    run = Campaign(study, Ledger(tmp_path), Painter(knows=False), Eye(), Budget(2000), inputs, until=0.01)
    assert asyncio.run(run.run()).startswith("more pictures would hardly change decisions")
    assert 150 < len(run.ledger) < 350


@pytest.mark.parametrize(
    ("budget", "limit"), [(Budget(pictures=80), 80), (Budget(usd=0.03), 90), (Budget(pictures=500, usd=0.03), 90)]
)
def test_no_budget_is_exceeded_by_more_than_what_is_under_way(
    tmp_path: Path, inputs: np.ndarray, budget: Budget, limit: int
) -> None:
    """Pictures and dollars stay within what was given, but for the last few that were begun."""
    study = begin(tmp_path, wanted())
    run = Campaign(study, Ledger(tmp_path), Painter(), Eye(), budget, inputs, until=0.0)
    asyncio.run(run.run())
    assert len(run.ledger) <= limit + run.at_once
    if budget.usd:
        assert budget.usd <= run.ledger.cost_usd <= budget.usd + run.at_once * 0.9e-3


def test_another_study_is_not_mixed_in(tmp_path: Path) -> None:
    """A folder goes on with the study that it was begun with, and refuses another, naming what differs."""
    first = begin(tmp_path, wanted())
    assert begin(tmp_path, wanted()) == first == load(tmp_path)
    with pytest.raises(ArtifactError, match="another judge \\(eye, not ear\\)"):
        begin(tmp_path, wanted(judge="ear"))
    with pytest.raises(ArtifactError, match="12 different prompts"):
        begin(tmp_path / "few", wanted(prompts=PROMPTS[:12]))
    assert different(["A cat ", "a  cat", "", "a dog"]) == ("A cat ", "a dog")


def concluded(folder: Path, inputs: np.ndarray, painter: Painter, pictures: int) -> tuple[Any, str]:
    run = campaign(folder, inputs, painter, pictures=pictures)
    asyncio.run(run.run())
    policy = load_policy_text(POLICY)
    found = conclude(run.study, run.ledger, policy, AtItsWord("eye"), folder, EMBEDDER)
    page, _ = write_page(folder, run.study, found, AtItsWord("eye"), "the budget is used")
    return found, page.read_text(encoding="utf-8")


def test_where_prompts_tell_what_recipe_they_need_it_pays(tmp_path: Path, inputs: np.ndarray) -> None:
    """The page says so with intervals, beside its baselines; table and artefact are what `router train` reads and
    makes."""
    found, page = concluded(tmp_path, inputs, Painter(), 420)
    assert found.truth is not None and found.truth.pays
    assert page.startswith("# Is routing worth it?") and "**Routing pays here: " in page
    for word in ("random mixing", "prompt length", "oracle", "direct", "intraclass correlation", "objective"):
        assert word in page, word
    assert set(load_artifact(tmp_path / "artefact").config["columns"]) == set(RECIPES)
    ratings = read_ratings(tmp_path / "outcomes.csv")
    assert len(ratings) == found.pictures and {rating.recipe for rating in ratings} == set(RECIPES)
    assert json.loads((tmp_path / "costs.json").read_text())["seconds"]["flux"] == pytest.approx(0.9)


def test_where_pictures_do_not_differ_it_ends_with_no(tmp_path: Path, inputs: np.ndarray) -> None:
    """All recipes equally good, scores noise: the page says that routing is not worth it here, and claims nothing."""
    found, page = concluded(tmp_path, inputs, Painter(knows=False), 300)
    assert found.truth is not None and not found.truth.pays
    assert "**Routing is not worth it here: " in page and "pays here" not in page


def test_a_score_that_only_orders_is_no_probability() -> None:
    """CLIP's cosines become places among all pictures, whatever their range; ties share one."""
    scores, recipes = [0.61, 0.62, 0.60, 0.62], ["a"] * 4
    found = Places("clip").of(scores, recipes)
    assert found.tolist() == [0.375, 0.75, 0.125, 0.75]
    assert (Places("clip").of([7 + 0.1 * score for score in scores], recipes) == found).all()
    assert "no probability" in Places("clip").words and "only orders" in Places("clip").caveat


async def test_a_server_draws_no_picture_twice(settings: AppSettings, tmp_path: Path) -> None:
    """Asked again for a picture that it drew, a server answers with it, in the class batch."""
    async with served(settings, tmp_path) as app:
        maker = ServerMaker(app.http, "auto", "abc")
        shot = Shot("a red circle", "sd15", 5)
        first, again = [await maker.draw(shot, "draft") for _ in range(2)]
        assert (first.pixels == again.pixels).all() and first.seconds == again.seconds > 0
        assert len(app.script.ran) == 1
        await maker.draw(Shot("a red circle", "sd15", 6), "draft")
        assert len(app.script.ran) == 2
        with pytest.raises(PolicyError, match="not the one of --config"):
            await ServerMaker(app.http, "auto", "abc", "another").draw(shot, "draft")
        assert {record.priority for record in app.store.jobs()[0]} == {"batch"}


def studied(folder: Path, inputs: np.ndarray) -> Campaign:
    """A study of 150 pictures."""
    run = campaign(folder, inputs, Painter(), pictures=150)
    asyncio.run(run.run())
    return run


def answered(run: Campaign, labels: Labels, count: int) -> None:
    """A person who calls a picture right if it is light enough, and never slips."""
    while sum(map(len, labels.by_picture().values())) < count and (pair := next_pair(run.study, run.ledger, labels)):
        shows = [run.ledger.entries[id].scores["eye"] > 0.55 for id in (pair.left, pair.right)]
        labels.add(Answer(pair.left, pair.right, *shows, rater="me", again=pair.again))


def test_labels_are_asked_for_in_pairs_and_some_twice(tmp_path: Path, inputs: np.ndarray) -> None:
    """A pair is of one prompt, none is asked a third time, and an answer is kept at once."""
    run = studied(tmp_path, inputs)
    answered(run, Labels(tmp_path), 60)
    labels = Labels(tmp_path)
    entries = run.ledger.entries
    assert all(entries[a.left].shot.prompt == entries[a.right].shot.prompt for a in labels.answers)
    assert sum(a.again for a in labels.answers) == len(labels.answers) // AGAIN
    assert max(map(len, labels.by_picture().values())) == 2
    agreement = labels.agreement
    assert agreement.same == 1 and 0 < agreement.slip < 0.04
    assert used(labels)
    told = report(run.study, run.ledger, labels)
    assert told["brier"] < told["brier_before"] and told["coverage"] > 0.5


def test_the_page_takes_answers_and_shows_nothing_else(tmp_path: Path, inputs: np.ndarray) -> None:
    """Without its secret there is nothing; with it a pair, its pictures, and a place for the answer."""
    run = studied(tmp_path, inputs)
    labels = Labels(tmp_path)
    server = server_of(run.study, run.ledger, labels, 4, "me")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with httpx.Client(base_url=base) as http:
            assert http.get("/").status_code == http.get("/study.json").status_code == 404
            page = http.get(server.place).text
            left, right = re.findall(r'name="(?:left|right)" value="(\w+)"', page)
            assert http.get(server.place + left).headers["content-type"] == "image/png"
            assert http.get(f"{server.place}../{FILE}").status_code == 404
            assert http.post("/", data={"left": left, "right": right, "said": "both"}).status_code == 404
            http.post(server.place, data={"left": left, "right": "unknown", "said": "both"})
            http.post(server.place, data={"left": left, "right": right, "said": "both"})
    finally:
        server.shutdown()
        server.server_close()
    assert [(a.left_shows, a.right_shows, a.rater) for a in Labels(tmp_path).answers] == [(True, True, "me")]
