"""Held-out calibration: no fold sees itself, and the curve that predicts better is taken."""

from __future__ import annotations

import numpy as np
import pytest

from router.quality.calibration import fit_calibration, linear_curve


def test_no_fold_sees_its_own_scores() -> None:
    """Where one fold has only scores of .1 and the other only .9, each is predicted to have what the other has."""
    raw = np.tile(np.linspace(0.2, 0.8, 30), 2)
    folds = np.repeat([0, 1], 30)
    _, held_out = fit_calibration(raw, np.where(folds == 0, 0.1, 0.9), np.ones(60), folds)
    assert held_out.mean[folds == 0] == pytest.approx(np.full(30, 0.9))
    assert held_out.mean[folds == 1] == pytest.approx(np.full(30, 0.1))


def test_no_fold_sees_its_own_errors() -> None:
    """Where one fold has errors of .3 and the other none, the deviation of each is what the other's errors say."""
    raw = np.tile(np.linspace(0.2, 0.8, 40), 2)
    folds = np.repeat([0, 1], 40)
    noise = np.where(folds == 0, 0.0, np.tile([0.3, -0.3, -0.3, 0.3], 20))
    _, held_out = fit_calibration(raw, 0.5 + noise, np.ones(80), folds)
    assert held_out.std[folds == 0].min() > 0.15
    assert held_out.std[folds == 1].max() < 0.08


def test_a_step_is_followed_by_the_curve_that_can() -> None:
    """Scores of .1 below one half and .9 above are followed by the isotonic curve, where a line is .3 off."""
    raw = np.linspace(0, 1, 400)
    score = np.where(raw < 0.5, 0.1, 0.9)
    calibration, held_out = fit_calibration(raw, score, np.ones(400), np.arange(400) % 5)
    assert calibration.mean(np.array([0.4, 0.6])) == pytest.approx([0.1, 0.9], abs=0.01)
    line = linear_curve(raw, score, np.ones(400))
    assert abs(np.interp(0.4, line[:, 0], line[:, 1]) - 0.1) > 0.2
    assert np.abs(held_out.mean - score).mean() < 0.01


def test_a_line_is_taken_where_steps_would_follow_the_noise() -> None:
    """Forty noisy scores around a line are calibrated by the line: two knots, and a held-out error no larger than that
    of the steps."""
    rng = np.random.default_rng(3)
    raw = np.linspace(0, 1, 40)
    score = np.clip(0.2 + 0.5 * raw + rng.normal(0, 0.15, 40), 0, 1)
    calibration, _ = fit_calibration(raw, score, np.ones(40), np.arange(40) % 4)
    assert len(calibration.knots) == 2
    assert calibration.mean(np.array([0.0, 1.0])) == pytest.approx([0.2, 0.7], abs=0.1)
