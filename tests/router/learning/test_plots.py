"""What a plot of two models shows: every way of ranking, chance as a line, both names in words, the same file again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.evaluation import GRID
from router.learning.plots import STYLES, plot_pairs

pyplot: Any = pytest.importorskip("matplotlib.pyplot")


def figures(curve: np.ndarray, prompts: int = 40) -> dict[str, Any]:
    rankings = {name: {"apgr": 0.5 + 0.1 * k, "curve": (curve + 0.01 * k).tolist()} for k, name in enumerate(STYLES)}
    return {"ends": [0.2, 0.8], "prompts": prompts, "rankings": rankings}


def test_a_plot_has_a_line_for_each_ranking_and_one_for_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From always the cheap one to always the expensive one, with the figures in the legend and both names below."""
    shown = list[Any]()
    close = pyplot.close
    close("all")  # those that others left open
    monkeypatch.setattr(pyplot, "close", shown.append)
    curve = 0.2 + 0.6 * GRID
    report = {"pairs": {"sd15 -> flux": figures(curve), "a:b -> c": figures(curve, 7)}}
    files = plot_pairs(report, tmp_path / "new" / "folder", "my set")
    assert [file.name for file in files] == ["my-set-sd15-to-flux.svg", "my-set-a-b-to-c.svg"]
    (axes,) = shown[0].axes
    chance, *lines = axes.lines
    assert (list(chance.get_xdata()), list(chance.get_ydata()), chance.get_color()) == ([0, 1], [0.2, 0.8], "black")
    assert len(lines) == 4
    for k, (line, (name, (colour, style, width))) in enumerate(zip(lines, STYLES.items(), strict=True)):
        np.testing.assert_allclose(line.get_xdata(), GRID)
        np.testing.assert_allclose(line.get_ydata(), curve + 0.01 * k)
        assert (line.get_color(), line.get_linestyle(), line.get_linewidth()) == (colour, style, width)
        assert line.get_label() == f"{name} (APGR {0.5 + 0.1 * k:.3f})"
    widths = [line.get_linewidth() for line in (chance, *lines)]
    assert max(widths) == lines[0].get_linewidth() < 3 and min(widths) == 1  # what was learned stands out
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [line.get_label() for line in axes.lines] and not axes.get_legend().get_frame_on()
    assert axes.get_title() == "my set\nsd15 -> flux, 40 prompts"
    assert (
        axes.get_xlabel() == "share of prompts that go to flux (the rest: sd15)" and axes.get_ylabel() == "mean score"
    )
    assert [axes.spines[side].get_visible() for side in ("top", "right", "left", "bottom")] == [
        False,
        False,
        True,
        True,
    ]
    assert shown[1].axes[0].get_title() == "my set\na:b -> c, 7 prompts"
    written = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in plot_pairs(report, tmp_path / "again", "my set")] == written
    for figure in shown:
        close(figure)
    assert not pyplot.get_fignums()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """Before anything is drawn."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="no plots, since this folder cannot be made"):
        plot_pairs({"pairs": {}}, tmp_path / "file", "x")
