"""The log tells what drifted, and a refresh measures that anew, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.bootstrap.campaign import Budget, Campaign
from deployments.bootstrap.ledger import Ledger
from deployments.bootstrap.readings import AtItsWord
from deployments.bootstrap.refreshing import LEAST, fresh_cells, set_aside
from deployments.bootstrap.results import conclude
from deployments.bootstrap.study import load
from deployments.offline.drift import drift_of
from deployments.store.decision_log import DecisionLog
from models import load_catalogue
from policies import load_policy_text
from router.bootstrap.drift import Cell
from router.errors import ArtifactError, RequestError
from router.learning.feedback import Feedback
from router.registry.artifact import load_artifact
from router.types import Estimate, Quality
from tests.deployments.learning.test_bootstrap import EMBEDDER, POLICY, Eye, Painter, campaign, inputs  # noqa: F401
from tests.store.test_decision_log import decision

SHIPPED = Path(__file__).resolve().parents[3] / "router" / "artifacts" / "embedded"
NONE = load_catalogue({})


def logged(path: Path, off: float, count: int = 300) -> DecisionLog:
    """Decisions for `draft` by the shipped artefact, right as predicted, and from the middle on less by `off`."""
    log, rng = DecisionLog(path), np.random.default_rng(0)
    digest = load_artifact(SHIPPED).digest
    predicted = {"draft": Estimate("draft", Quality(0.7, 0.1), 0.1, 0.0, 0.1, 1e-5)}
    for k in range(count):
        one = replace(decision(f"r-{k}", at_s=1e9 + k), options=predicted, artifact=digest, made=("draft",), kept=(1,))
        found = float(rng.random() < 0.7 - off * (k >= count // 2))
        # The second try, which was looked at since the first one was bad, is no fair sample.
        said = [Feedback("scorer:eye", 0, "draft", found), Feedback("scorer:eye", 0, "draft", 1.0, attempt=1)]
        log.record(one, said)
        log.record(replace(one, id=f"former-{k}", artifact="f" * 64), [Feedback("scorer:eye", 0, "draft", 0.0)])
    return log


def test_the_log_tells_of_drift_by_first_pictures_of_the_artefact_in_force(tmp_path: Path) -> None:
    """Predictions that stay right are not told of, ones that became wrong are; other artefacts' decisions and later
    tries say nothing, and too few decisions are refused with what helps."""
    (right,) = [one for one in drift_of(logged(tmp_path / "a", 0.0), "scorer:eye", SHIPPED, NONE) if not one.skill]
    assert right.recipe == "sd15@8" and right.pictures == 300 and right.told is None
    (wrong,) = [one for one in drift_of(logged(tmp_path / "b", 0.5), "scorer:eye", SHIPPED, NONE) if not one.skill]
    assert wrong.told is not None and 150 < wrong.told < 260 and wrong.off[0] < -0.3
    with pytest.raises(ArtifactError, match=r"has 20 decisions .* at least 40 .*when: always"):
        drift_of(logged(tmp_path / "c", 0.0, 20), "scorer:eye", SHIPPED, NONE)


def test_the_command_shows_it_and_ends_with_one_if_it_drifted(
    triptych: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """`router drift` prints predicted and found over time; its exit code tells whether anything drifted."""
    logged(tmp_path / "right", 0.0), logged(tmp_path / "wrong", 0.5)
    code, out, err = triptych("router", "drift", tmp_path / "right", "--source", "scorer:eye")
    assert code == 0 and "no drift is told" in out + err and "0.70" in out
    code, out, err = triptych("router", "drift", tmp_path / "wrong", "--source", "scorer:eye", "--json")
    report = json.loads(out)
    assert code == 1 and report["drifted"] is True and report["cells"][0]["recipe"] == "sd15@8"


def drifted(recipe: str, skill: str = "") -> Cell:
    return Cell(recipe, skill, 100, (-0.3, -0.4, -0.2), 80, 40, 0.0, ())


def test_a_refresh_draws_what_drifted_and_sets_the_rest_aside(tmp_path: Path, inputs: np.ndarray) -> None:  # noqa: F811
    """Killed in the middle, it goes on; afterwards the drifted recipe's fresh pictures alone count, those of the others
    stay, and what is learned says that it became worse."""
    run = campaign(tmp_path, inputs, Painter())
    asyncio.run(run.run())
    study, policy = load(tmp_path), load_policy_text(POLICY)
    before = conclude(study, run.ledger, policy, AtItsWord("eye"), tmp_path, EMBEDDER)

    class Worse(Painter):
        async def draw(self, shot, recipe):  # type: ignore[no-untyped-def]
            drawn = await super().draw(shot, recipe)
            return replace(drawn, pixels=(drawn.pixels * 0.5).astype(np.uint8))

    cells = fresh_cells(study, run.ledger, [drifted("flux")], 50)
    assert {cell.recipe for cell in cells} == {study.keys.index("flux")} and len(cells) == 50
    painter = Worse(stop_after=10)
    for stop in (10, 10**9):
        painter.stop_after = stop
        ledger = Ledger(tmp_path)
        fresh = Campaign(study, ledger, painter, Eye(), Budget(1000), np.zeros((0, 0)), "uniform")
        if stop == 10:
            with pytest.raises(asyncio.CancelledError):
                asyncio.run(fresh.refresh(cells))
        else:
            asyncio.run(fresh.refresh(cells))
    assert set(painter.drawn.values()) == {1} and sum(painter.drawn.values()) == 50
    former = sum(entry.shot.recipe == "flux" for entry in run.ledger.entries.values())
    assert set_aside(study, ledger, [drifted("flux")], cells) == former > 0
    again = Ledger(tmp_path)
    assert again.rounds == 1
    assert {e.shot.id for e in again.current if e.shot.recipe == "flux"} == {study.shot(cell).id for cell in cells}
    after = conclude(study, again, policy, AtItsWord("eye"), tmp_path, EMBEDDER)
    assert after.levels["flux"] < 0.7 * before.levels["flux"] and after.levels["sd15"] == before.levels["sd15"]
    assert not {study.shot(c).id for c in fresh_cells(study, again, [drifted("flux")], 50)} & again.entries.keys()


def test_what_a_refresh_cannot_do_is_said(tmp_path: Path, inputs: np.ndarray) -> None:  # noqa: F811
    """A recipe that is none of the study's, and a budget that is too small, are refused."""
    run = campaign(tmp_path, inputs, Painter(), pictures=100)
    with pytest.raises(RequestError, match="no recipe of this study"):
        fresh_cells(load(tmp_path), run.ledger, [drifted("sd3")], 100)
    with pytest.raises(RequestError, match=f"needs {LEAST} at least"):
        fresh_cells(load(tmp_path), run.ledger, [drifted("flux")], LEAST - 1)
