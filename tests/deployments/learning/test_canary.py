"""Canaries and shadows: what is said of them holds whenever one looks."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.offline.canary import compare_canary
from deployments.settings import AppSettings
from deployments.store.decision_log import DecisionLog
from router.errors import ArtifactError
from router.learning.intervals import EveryLook, at_every_look
from router.types import GenerationRequest
from tests.deployments.support.scripted import GREY, Script, scripted
from tests.store.test_decision_log import decision

SMALL = "recipes: {small: {generate: {model: sd15, steps: 1}}}\nobjective: {minimise: cost_usd}\n"
LARGE = "recipes: {large: {generate: {model: flux, steps: 1}}}\nobjective: {minimise: cost_usd}\n"


def lived(path: Path, gain: float, decisions: int, seed: int = 0) -> DecisionLog:
    """A log in which one decision of five is the canary's, whose ratings (1 to 5) are better by `gain`; and before it,
    what an earlier version and a recipe asked for by name were rated."""
    log, rng = DecisionLog(path), np.random.default_rng(seed)
    one = replace(decision(), made=("draft",), kept=(0,))
    for k in range(30):
        log.record(replace(one, id=f"old-{k}", policy="next", policy_digest="old"))
        log.record(replace(one, id=f"pinned-{k}", policy="next", pinned=True))
        for kind in ("old", "pinned"):
            log.attach(f"{kind}-{k}", "rating", 0.0)
    for k in range(decisions):
        canary = k % 5 == 0
        log.record(
            replace(one, id=f"r-{k}", policy="next" if canary else "balanced", cost_usd=0.02 if canary else 0.01)
        )
        log.attach(f"r-{k}", "rating", rng.binomial(4, 0.6 + gain * canary) / 4)
    return log


def test_a_canary_is_better_only_once_that_is_proven(tmp_path: Path) -> None:
    """A canary that is .2 better is found so after 1,000 rated decisions, a fifth of them its own; after 100, and if it
    is no better, nothing is proven. Earlier versions and recipes asked for by name do not count."""
    found = compare_canary(lived(tmp_path / "a", 0.2, 1000), "rating", "balanced", "next")
    assert (found.policy.decisions, found.canary.decisions) == (800, 200)
    assert found.verdict[0] and found.interval[0] > 0 and "it is better" in found.verdict[1]
    assert found.canary.cost_usd == pytest.approx(0.02)
    early = compare_canary(lived(tmp_path / "b", 0.2, 100), "rating", "balanced", "next")
    assert not early.verdict[0] and early.interval[0] < 0 < early.difference
    equal = compare_canary(lived(tmp_path / "c", 0.0, 1000), "rating", "balanced", "next")
    assert not equal.verdict[0] and "nothing is proven yet" in equal.verdict[1]
    worse = compare_canary(lived(tmp_path / "a2", 0.2, 1000), "rating", "next", "balanced")
    assert not worse.verdict[0] and "it is worse" in worse.verdict[1]
    with pytest.raises(ArtifactError, match=r"has 12 rated decisions .* of policy 'next'; at least 20"):
        compare_canary(lived(tmp_path / "d", 0.0, 60), "rating", "balanced", "next")


def test_summands_that_are_not_kept_give_the_same_interval() -> None:
    """One by one, 300 differences have the interval that they have together, but for the hundredth of the grid, never
    narrower; of nothing, nothing is known."""
    x = np.random.default_rng(0).normal(0.1, 0.2, 300).clip(-1, 1)
    running = EveryLook(1.0)
    assert running.interval() == (-1.0, 1.0)
    for value in x.tolist():
        running.add(value)
    low, high = at_every_look(x, 1.0)
    found = running.interval()
    assert low - 0.01 <= found[0] <= low and high <= found[1] <= high + 0.01
    assert (running.count, running.mean) == (300, pytest.approx(x.mean()))


async def test_a_shadow_sums_up_what_it_would_have_gained(
    settings: AppSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each line about a shadow has the mean expected gain so far, over how many requests, and its interval."""
    script = Script(dict.fromkeys(GREY.values(), 0.9))
    policies = {"main": SMALL + "shadow: {policy: other, share: 1.0}\n", "other": LARGE}
    orchestrator, _ = scripted(settings, tmp_path, script, policies)
    with caplog.at_level(logging.INFO, "triptych.shadow"):
        for _ in range(2):
            await orchestrator.generate(GenerationRequest("a red circle"))
            await orchestrator._shadows.settle()
    lines = [record.message for record in caplog.records if record.name == "triptych.shadow"]
    for count, line in enumerate(lines, start=1):
        gain, low, high = map(float, re.search(rf"average (\S+) over {count} \((\S+) to (\S+), 95 %", line).groups())  # type: ignore[union-attr]
        assert -1 <= low < -0.5 < gain < 0.5 < high <= 1, "two requests prove nothing"
    assert len(lines) == 2
