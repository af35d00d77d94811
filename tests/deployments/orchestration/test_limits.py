"""What a search may use, picture by picture, and what a request that fails gives back, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.orchestration.budgets import TenantBudgets
from deployments.orchestration.results import Made
from deployments.orchestration.verifier import Verifier
from deployments.settings import AppSettings
from router.errors import StepError
from router.types import Picture, Resources, StepResult, Verification
from router.verification.score_reading import ScoreReading
from tests.deployments.shipped.test_policy_effects import ASK, CHEAP, GOOD, RECIPES
from tests.deployments.support.scripted import Script, scripted

MADE = Made(Picture(np.zeros((8, 8, 3), np.uint8)), 1, "digest", (), "draft")


class Patient:
    """A bench on which nothing is ever late."""

    def in_time(self, timing: Resources) -> bool:
        return True

    def tell(self, found: object) -> None:
        pass


@pytest.mark.parametrize(
    ("bound", "share", "used", "more", "allowed"),
    [
        (10.0, 1, 0.0, 10.0, True),
        (10.0, 1, 0.0, 10.1, False),
        (10.0, 1, 6.0, 4.0, True),
        (10.0, 1, 6.0, 4.1, False),  # what was used counts
        (10.0, 4, 0.0, 2.5, True),
        (10.0, 4, 0.0, 2.6, False),  # one of four pictures has a fourth
        (10.0, 4, 1.0, 1.6, False),
        (None, 4, 1e9, 1e9, True),
    ],
)
@pytest.mark.parametrize("key", ["work_s", "cost_usd"])
def test_a_try_stays_within_the_share_of_its_picture(
    key: str, bound: float | None, share: int, used: float, more: float, allowed: bool
) -> None:
    """Seconds of work and dollars alike: what was used and what comes on top are at most the picture's part."""
    verify = Verification(scorer="alignment", accept_above=0.7, escalate_to=("premium",), **{key: bound})  # type: ignore[arg-type]
    search = Verifier(MADE, verify, ScoreReading(), Patient(), share)  # type: ignore[arg-type]
    assert (search.used_s, search.used_usd) == (0.0, 0.0)  # nothing was used yet
    search.used_s, search.used_usd = (used, 0.0) if key == "work_s" else (0.0, used)
    timing = Resources(1.0, more, 0.0) if key == "work_s" else Resources(1.0, 0.0, more)
    assert search._allowed("premium", timing) is allowed
    assert (search.out == {}) is allowed


async def test_a_request_that_fails_gives_back_what_it_had_reserved(settings: AppSettings, tmp_path: Path) -> None:
    """However a request ends, its budget counts what was used: after a failure, the whole is there again."""

    class Failing(Script):
        async def run(self, *_: Any, **__: Any) -> StepResult:
            raise StepError("out of memory")

    budgets = TenantBudgets(clock=lambda: 0.0)
    text = RECIPES + CHEAP + "budgets: [{name: b, window_s: 60, work_s: 1000, cost_usd: 5}]\n"
    orchestrator, _ = scripted(settings, tmp_path, Failing(GOOD), {"main": text}, tenant_budgets=budgets)
    for _ in range(3):
        with pytest.raises(StepError):
            await orchestrator.generate(ASK)
    (left,) = budgets.allowances(orchestrator.policies.default, "")
    assert (left.work_s, left.cost_usd) == (1000.0, 5.0)
