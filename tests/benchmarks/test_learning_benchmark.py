"""The benchmarks of learning from use: they run, and what is committed is what the page says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning_from_use.sequential import HERE, LIVES, LOOKS, WORLDS, World, looked_at

ROOT = Path(__file__).resolve().parents[2]


def test_the_simulation_runs_quickly_and_elsewhere(tmp_path: Path) -> None:
    """`--quick` writes both files where it is told to."""
    command = [sys.executable, "-m", "benchmarks.learning_from_use.sequential", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"sequential.json", "sequential.svg"}
    assert "right or wrong" in (tmp_path / "sequential.svg").read_text() or "ratings" in done.stdout


def test_the_committed_simulation_keeps_the_promise() -> None:
    """In 2,000 lives of 30 looks a candidate that is no better is taken in at most 2.5 %, upper end of the interval
    included, and by the interval of one look in more than 15 %."""
    found = json.loads((HERE / "sequential.json").read_text(encoding="utf-8"))
    assert (found["lives"], found["looks"]) == (LIVES, LOOKS) == (2000, 30)
    null = [entry for entry in found["worlds"] if entry["world"].startswith("null")]
    assert len(null) == 4
    assert max(entry["always"]["looks"]["high"] for entry in null) <= 0.025
    assert max(entry["always"]["long"]["high"] for entry in null) <= 0.025
    assert min(entry["fixed"]["looks"]["share"] for entry in null) > 0.15


@pytest.mark.parametrize("steps", [1, 4])
def test_cells_of_a_world_are_all_that_may_be(steps: int) -> None:
    """The probabilities sum to one, and what the cells say has the mean of the true difference."""
    for gains in WORLDS.values():
        world = World.of(gains, steps)
        assert world.probability.sum() == pytest.approx(1.0)
        assert (world.probability * world.x).sum() == pytest.approx(sum(gains) / 4 * 0.98)
        assert np.abs(world.x).max() < world.bound


def test_lives_are_the_same_for_the_same_seed() -> None:
    """Two runs of thirty lives agree look by look."""
    world = World.of((0.1, 0.1), 4)
    one, other = (looked_at(world, 30, 20, np.random.default_rng(5)) for _ in range(2))
    assert (one.always == other.always).all() and one.always.any()
