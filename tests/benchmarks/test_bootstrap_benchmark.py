"""What is committed of the bootstrap's benchmarks is what the page says."""

from __future__ import annotations

import json

from benchmarks.bootstrap.labels import HERE, WORLDS


def test_a_hundred_labels_calibrate_the_verifier() -> None:
    """By raters who slip once in twenty, the calibration error is at most .03, upper end of the interval included, and
    pairs that teach most do better than random ones."""
    found = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
    assert set(found) == set(WORLDS)
    for world in found.values():
        chosen, random = (world[how]["calibration error"] for how in ("pairs that teach most", "random pairs"))
        assert chosen["high"] <= 0.03 < world["before"]["calibration error"]
        assert chosen["value"] < random["value"]
        assert world["pairs that teach most"]["brier"]["high"] < world["before"]["brier"]
