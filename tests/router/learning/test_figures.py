"""Figures by which routers, scorers and searches are judged, as `tests/golden/figures.json` has them to six digits:
`python -m tests.router.learning.test_figures` renews it.

A change there is a change of what is believed of a model: read it, and renew the file only if it is meant.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.evaluation import (
    apgr,
    calls_at,
    curve,
    hull_area,
    pearson,
    shuffled,
)
from router.learning.intervals import EveryLook, at_every_look, resampled
from router.learning.new_model import fit_weights
from router.learning.off_policy import Comparison, Estimated, LoggedChoices, compare, effective_size, increments
from router.learning.pairs import named_pair, widest_pair
from router.learning.training import HeldOutScores
from router.quality.ratings_table import RatingsTable
from router.types import ModelCard, Prices, Resources, Turn
from router.verification.best_of_n import plan_search
from router.verification.score_calibration import (
    LabelledPicture,
    calibrate_scores,
    fit_score_model,
    fit_strength,
    load_score_reading,
    read_content,
    read_labelled,
    save_calibration,
    sealed,
)
from router.verification.score_reading import UNCALIBRATED, ScoreModel, ScoreReading, expit, logit, read_score
from router.verification.search_plan import follow
from router.verification.value_of_information import Option, value_of_a_look, weigh

WRITTEN = Path(__file__).parents[2] / "golden/figures.json"
MODEL = ScoreModel(1.5, 0.8, -0.2, (0.5, 1.0, 2.0, 3.0), (-2.0, -1.0, 0.0, 0.7))
CARD = ModelCard("alignment", "verifier", "scorer", {"local": "-"})


def logged(n: int = 60) -> tuple[LoggedChoices, np.ndarray, np.ndarray]:
    """Decisions among three, some explored, one option that chance could not take; before and after."""
    rng = np.random.default_rng(4)
    before = np.tile([0.9, 0.08, 0.02], (n, 1))
    before[::5] = [1.0, 0.0, 0.0]
    after = before.copy()
    after[n // 3 :] = [0.02, 0.9, 0.08]
    after[3] = [0.0, 0.0, 1.0]
    chosen = np.array([rng.choice(3, p=row) for row in before])
    chosen[n // 2 :: 3] = 1
    before[n // 2 :: 3] = [0.3, 0.6, 0.1]
    reward = np.clip(0.4 + 0.3 * (chosen == 1) + rng.normal(0, 0.1, n), 0, 1)
    modelled = np.tile([0.4, 0.65, 0.5], (n, 1)) + rng.normal(0, 0.02, (n, 3))
    least = before.copy()
    groups = [f"g{k // 2}" for k in range(n)]
    propensity = before[np.arange(n), chosen]
    return LoggedChoices(chosen, propensity, reward, modelled, groups, least, 1.0), before, after


def table(n: int = 45) -> tuple[RatingsTable, HeldOutScores]:
    """Three models on prompts of three lengths, a few cells unrated."""
    rng = np.random.default_rng(5)
    hard = rng.random(n)
    scores = np.stack([0.8 - 0.6 * hard, 0.85 - 0.1 * hard, 0.5 + 0 * hard], 1) + rng.normal(0, 0.08, (n, 3))
    scores = scores.clip(0, 1).round(1)
    scores[:5, 2] = np.nan
    mean = np.stack([0.78 - 0.5 * hard, 0.84 - 0.15 * hard, 0.5 + 0.05 * hard], 1) + rng.normal(0, 0.03, (n, 3))
    prompts = tuple(f"prompt {k} " + "very " * int(9 * h) + "odd" for k, h in enumerate(hard))
    groups = tuple(f"g{k // 2}" for k in range(n))
    rated = RatingsTable(prompts, groups, ("small", "large", "plain"), scores, np.isfinite(scores).astype(float))
    return rated, HeldOutScores(mean, np.full_like(mean, 0.1), np.arange(n) % 3)


def labelled(n: int = 160) -> tuple[list[LabelledPicture], np.ndarray]:
    rng = np.random.default_rng(6)
    chance = rng.uniform(0.2, 0.9, n // 2).repeat(2)
    right = rng.random(n) < chance
    right[1::4] = right[::4]
    score = np.asarray(expit(rng.normal(np.where(right, 1.2, -0.8), 1.0)))
    pictures = [
        LabelledPicture(f"p{k // 2}", "sd15" if k % 8 < 4 else "sdxl", float(s), bool(r))
        for k, (s, r) in enumerate(zip(score, right, strict=True))
    ]
    return pictures, chance


def learning() -> dict[str, Any]:
    choices, before, after = logged()
    rated, held_out = table()
    compared = compare(choices, before, after, resamples=100)
    said = increments(choices, before, after)
    every = EveryLook(1.5)
    for x in said.x[:40]:
        every.add(float(np.clip(x, -1.4, 1.4)))
    points = curve(held_out.mean[:, 1] - held_out.mean[:, 0], rated.scores[:, 1] - rated.scores[:, 0], held_out.split)
    inputs = np.random.default_rng(8).normal(0, 0.2, (40, 3))
    level, weights = fit_weights(inputs, 0.4 + inputs @ [0.5, 0.2, 0.1], [f"g{k % 20}" for k in range(40)])
    return {
        "compared": asdict(compared),
        "verdict": compared.verdict,
        "clipped at 2": asdict(compare(choices, before, after, clip=2.0, resamples=50, seed=3)),
        "rows": asdict(compare(choices.rows(slice(10, 30)), before[10:30], after[10:30], resamples=50)),
        "increments": [said.x.tolist(), said.bound, said.unsupported, said.interval()],
        "other model": increments(choices, before, after, choices.modelled * 0.5).x.tolist(),
        "wider span": increments(LoggedChoices(*list(vars(choices).values())[:-1], 2.0), before, after).bound,
        "effective": effective_size(np.array([1.0, 2.0, 3.0])),
        "every look": [every.count, every.mean, every.interval(), EveryLook(2.0).interval(), EveryLook(2.0).mean],
        "at every look": [at_every_look(said.x, said.bound), at_every_look(said.x[:1], said.bound)],
        "resampled": [
            resampled(30, lambda rows: float(rows.mean()), resamples=100),
            resampled(np.arange(30) // 3, lambda rows: float(rows.mean()), seed=2, resamples=100),
            resampled(1, lambda rows: 7.0),
            resampled(5, lambda rows: float("nan"), resamples=20),
        ],
        "curve": [points.tolist(), apgr(points), calls_at(points, 0.5), calls_at(points, 1.0), hull_area(points)],
        "no gain": [apgr(-points), calls_at(-points, 0.5), apgr(0 * points), calls_at(0 * points, 0.5)],
        "constant": [pearson(np.ones(3), np.arange(3.0)), pearson(np.arange(3.0), np.ones(3))],
        "pairs": [named_pair("small:large", rated.columns), widest_pair(rated), named_pair("a:b:c", ("a:b", "c"))],
        "shuffled": shuffled(rated, 1).scores.tolist(),
        "weights": [level, weights.tolist()],
    }


def searching() -> dict[str, Any]:
    options = [
        Option("a", 0.3, 3.0, Resources(0.2, 0.3, 0.001)),
        Option("b", 0.6, 5.0, Resources(1.0, 1.5, 0.01)),
        Option("c", 0.55, 2.0, Resources(0.5, 0.6, 0.004)),
        Option("d", 0.55, 2.0, Resources(0.5, 0.6, 0.004)),
    ]
    found: dict[str, Any] = {}
    for name, prices in (("cheap", Prices(0.001, 0.1)), ("dear", Prices(0.05, 2.0)), ("free", Prices(0.0, 0.0))):
        for count in (1, 2, 3, 4):
            some = options[:count]
            planned = plan_search(some, MODEL, prices, 5)
            found[f"{name}, {count}"] = [
                asdict(planned), planned.pictures, planned.expected({one.recipe: one.takes.cost_usd for one in some}),
                asdict(plan_search(some, UNCALIBRATED, prices, 4, Resources(2.0, 2.0, 0.02))),
                value_of_a_look(options[0], some, MODEL, prices), value_of_a_look(options[0], (), MODEL, prices),
                asdict(weigh(some, {"a": [0.2, 0.4], "b": [0.5]}, MODEL, prices, 2) or options[0]),
                asdict(weigh(some, {}, MODEL, prices) or options[0]),
                weigh(some[:1], {"a": [0.2, 0.4]}, MODEL, prices, 2),
            ]  # fmt: skip
    turns = [
        Turn(name, bar, 1.5, 0.1 * k, 0.5)
        for k, (name, bar) in enumerate((("a", 1.0), ("b", 0.7), ("a", 0.6), ("c", 0.5)))
    ]
    found["followed"] = [follow(turns[:count], options, MODEL) for count in (1, 2, 3, 4)]
    found["followed, of four"] = follow([*turns, Turn("d", 0.4, 1.5, 0.0, 0.5)], options, MODEL)
    found["sure"] = follow(
        turns, [Option(o.recipe, 0.9995 if o.recipe == "a" else 0.0, 2.0, o.takes) for o in options], MODEL
    )
    return found


def scoring() -> dict[str, Any]:
    pictures, chance = labelled()
    score = np.array([one.score for one in pictures])
    right = np.array([one.right for one in pictures])
    model, strength, report = calibrate_scores(pictures, chance)
    found = {
        "calibrated": [asdict(model), strength, report],
        "fitted": asdict(fit_score_model(chance, score, right)),
        "strength": [fit_strength(chance, right, pairs)
                     for pairs in ([], [(0, 1), (2, 3)], [(0, 9)], [(k, k) for k in range(99)])],
        "logit": [logit(x) for x in (0.0, 0.001, 0.25, 0.5, 0.9995, 1.0)],
        "logits": np.asarray(logit(np.array([0.0, 0.3, 1.0]))).tolist(),
        "expit": [expit(x) for x in (-31.0, -30.0, -1.0, 0.0, 2.0, 31.0)],
        "read": [read_score((0.2, 0.9), {"slope": 1.5, "offset": -0.5}), read_score((0.2,), {"slope": 1.5}),
                 read_score((0.2,), {"offset": 1.5}), read_score((0.2,), {})],
    }  # fmt: skip
    for name, law in (("model", MODEL), ("uncalibrated", UNCALIBRATED)):
        values, weights = law.outlook(np.array([0.2, 0.7]))
        found[name] = [
            values.tolist(), weights.tolist(), law.verdict(0.3, 0.6), law.offset(0.3), law.reservation(0.4, 0.01),
            np.asarray(law.reservation(np.array([0.4, 0.9]), np.array([0.1, 0.0]))).tolist(), law.gain(0.4, 0.3),
            np.asarray(law.gain(np.array([0.4, 0.9]), np.array([0.9, 0.1]))).tolist(),
        ]  # fmt: skip
    return found


PARTS = {"learning": learning, "searching": searching, "scoring": scoring}


def same(now: Any, before: Any) -> bool:
    """To six digits."""
    if isinstance(before, dict) and isinstance(now, dict):
        return now.keys() == before.keys() and all(same(now[key], before[key]) for key in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(now) == len(before) and all(same(a, b) for a, b in zip(now, before, strict=True))
    if isinstance(before, float) and isinstance(now, int | float):
        return math.isclose(now, before, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(now) and math.isnan(before))
    return type(now) is type(before) and now == before


@pytest.mark.parametrize("part", PARTS)
def test_figures_are_those_that_are_written_down(part: str) -> None:
    """Comparisons of policies, evaluations, calibrations and searches on made-up data come out as before."""
    before = json.loads(WRITTEN.read_text("utf-8"))[part]
    now = json.loads(json.dumps(PARTS[part]()))
    assert now.keys() == before.keys()
    assert [name for name in before if not same(now[name], before[name])] == []


def verdict(**changes: Any) -> tuple[bool, str]:
    """Of a comparison that speaks for the candidate, but for `changes`."""
    low = changes.pop("low", 0.01)
    dr = Estimated(0.5, 0.6, (0.4, 0.6), (0.5, 0.7), 0.1, (low, 0.2))
    given: dict[str, Any] = {
        "decisions": 100, "groups": 100, "by_chance": 10, "otherwise": 50, "evidence": 30, "effective": (90.0, 40.0),
        "clipped": 0, "estimates": {"dr": dr}, "effective_evidence": 20.0, "always": (0.001, 0.3),
    }  # fmt: skip
    return Comparison(**(given | changes)).verdict


@pytest.mark.parametrize(
    ("changes", "taken", "why"),
    [
        ({}, True, "valid at every look is +0.0010"),
        ({"by_chance": 0}, False, "none of the 100 rated decisions was left to chance"),
        ({"otherwise": 0}, False, "as the incumbent does"),
        ({"effective_evidence": 19.9}, False, "and 20 are needed"),
        ({"low": 0.0}, False, "does not rule out"),
        ({"low": -0.1}, False, "does not rule out"),
        ({"always": (0.0, 0.3)}, False, "valid at every look"),
        ({"always": (-0.1, 0.3)}, False, "valid at every look"),
    ],
)
def test_a_candidate_is_taken_only_if_every_bound_is_above_nothing(
    changes: dict[str, Any], taken: bool, why: str
) -> None:
    """Chance, a difference, enough evidence, and both intervals above 0, not at it; the reason names what lacks."""
    found, words = verdict(**changes)
    assert found is taken and why in words


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("small", "write cheap:expensive"),
        ("small:big", "no model 'big'"),
        ("small:small", "not compared with itself"),
        ("x:large", "no model 'x'"),
    ],
)
def test_a_pair_that_cannot_be_compared_is_named(text: str, why: str) -> None:
    """What is wrong with `--pair` is told in words."""
    with pytest.raises(ArtifactError, match=why):
        named_pair(text, ("small", "large"))


def test_calibrating_takes_twenty_pictures_of_each_kind() -> None:
    """With nineteen right ones it is refused, with twenty done."""
    chance, score = np.full(60, 0.5), np.linspace(0.1, 0.9, 60)
    with pytest.raises(ArtifactError, match="only 19 pictures"):
        fit_score_model(chance, score, np.arange(60) >= 41)
    with pytest.raises(ArtifactError, match="only 19 pictures"):
        fit_score_model(chance, score, np.arange(60) < 41)
    assert fit_score_model(chance, score, np.arange(60) >= 40).slope > 0
    assert len(fit_score_model(chance, score, np.arange(60) >= 40).on_right) == 16


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (",sd15,0.5,1", "prompt is empty"), ("p,,0.5,1", "recipe is empty"), ("p,sd15,1.01,1", "lies in 0..1"),
        ("p,sd15,-0.01,1", "lies in 0..1"), ("p,sd15,0.5,0.5", "0 or 1"), ("p,sd15,0.5,2", "0 or 1"),
        ("p,sd15,0,1", ""), ("p,sd15,1,0", ""),
    ],
)  # fmt: skip
def test_a_labelled_picture_is_read_or_refused_with_its_line(tmp_path: Path, row: str, why: str) -> None:
    """Scores from 0 to 1 and marks of 0 or 1, both ends included; what is wrong is told with the line."""
    file = tmp_path / "table.csv"
    file.write_text(f"prompt,recipe,score,right\nfirst,sdxl,0.25,0\n{row}\n")
    if why:
        with pytest.raises(ArtifactError, match=rf":3:.*{why}"):
            read_labelled(file)
    else:
        first, second = read_labelled(file)
        assert first == LabelledPicture("first", "sdxl", 0.25, False)
        assert second.right is (row[-1] == "1") and second.score == float(row.split(",")[2])


def test_a_calibration_is_read_for_its_artefact_and_weights_and_not_if_it_was_changed(tmp_path: Path) -> None:
    """Other weights or another artefact get the default with the reason; a changed file is refused."""
    report = {"pictures": 160.0, "brier": 0.123}
    file = save_calibration(tmp_path, "digest", CARD, "rev", MODEL, 2.5, report, "test")
    assert load_score_reading(tmp_path, "digest", CARD, "rev") == ScoreReading(
        MODEL, 2.5, True, "calibrated on 160 pictures; held out, its verdicts have a Brier score of 0.123"
    )
    assert load_score_reading(tmp_path / "elsewhere", "digest", CARD, "rev") == ScoreReading()
    pictures = file.with_suffix(".safetensors")
    pictures.write_bytes(b"those of before")
    save_calibration(tmp_path, "digest", CARD, "rev", MODEL, 0.25, report, "test")  # pictures that fail together
    assert not pictures.exists()
    assert load_score_reading(tmp_path, "digest", CARD, "rev").strength == 0.25
    for digest, revision, what in (("other", "rev", "artefact"), ("digest", "other", "weights")):
        reading = load_score_reading(tmp_path, digest, CARD, revision)
        assert not reading.calibrated and f"not calibrated for this {what}" in reading.note
        assert reading.score_model == UNCALIBRATED
    content = read_content(file)
    for change in ({"version": 2}, {"format": "other"}):
        file.write_text(sealed({**content, **change}))
        with pytest.raises(ArtifactError, match="of another version"):
            read_content(file)
    judge = content["judge"]
    for change in (
        {"strength": 0.0}, {"strength": -1.0}, {"strength": math.inf}, {"judge": {**judge, "on_right": []}},
        {"judge": {**judge, "on_wrong": []}}, {"judge": {**judge, "slope": math.nan}},
        {"judge": {**judge, "on_wrong": [math.inf]}},
    ):  # fmt: skip
        file.write_text(sealed({**content, **change}))
        with pytest.raises(ArtifactError, match="no calibration gives"):
            load_score_reading(tmp_path, "digest", CARD, "rev")
    for change in ({"judge": {}}, {"strength": "much"}, {"judge": None}):
        file.write_text(sealed({**content, **change}))
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_score_reading(tmp_path, "digest", CARD, "rev")
    file.write_text(json.dumps({**content, "digest": "0"}))
    with pytest.raises(ArtifactError, match="was changed"):
        read_content(file)


if __name__ == "__main__":
    told = {part: make() for part, make in PARTS.items()}
    lines = [
        f'"{part}": {{\n' + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in of.items())
        for part, of in told.items()
    ]
    WRITTEN.write_text("{\n" + "\n},\n".join(lines) + "\n}\n}\n", "utf-8")
