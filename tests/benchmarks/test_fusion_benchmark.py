"""The measures of benchmarks/fusion tell right from wrong, and its raw results are complete."""

from __future__ import annotations

import csv
import json
import random

import cv2
import numpy as np

from benchmarks.fusion.edges import edge_marks, ideal
from benchmarks.fusion.run import HERE, interval, summary
from models.embedded.world import render, sample_scene


def test_an_ideal_render_is_sharp_and_without_error() -> None:
    """A true render is nearly its own ideal; blurred or shifted towards grey, it is marked down."""
    picture = render(sample_scene(random.Random(3), "two"))
    sharp, error = edge_marks(picture) or (0.0, 255.0)
    assert 0.95 < sharp < 1.05
    assert error < 6
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.2)
    softer, worse = edge_marks(blurred) or (1.0, 0.0)
    assert softer < 0.8 * sharp
    assert worse > 2 * error


def test_what_has_no_clear_shape_is_not_compared() -> None:
    """Noise and empty pictures have no ideal."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert ideal(noise) is None
    assert edge_marks(np.full((64, 64, 3), 255, np.uint8)) is None


def test_the_summary_is_that_of_the_committed_rows() -> None:
    """Nothing in summary.json was written by hand, and regions were compared on 150 prompts of several objects."""
    with (HERE / "marks.csv").open() as file:
        found = summary(list(csv.DictReader(file)))
    assert json.loads((HERE / "summary.json").read_text()) == json.loads(json.dumps(found))
    assert found["exact"]["regions of three"]["several"]["n"] >= 150  # type: ignore[index]


def test_intervals_hold_the_mean() -> None:
    """The bootstrap interval surrounds the mean and shrinks with more prompts."""
    few, many = interval([0.0, 1.0] * 10), interval([0.0, 1.0] * 200)
    assert few["low"] < few["mean"] == many["mean"] == 0.5 < few["high"]
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 2
    assert interval([]) == {"n": 0}
