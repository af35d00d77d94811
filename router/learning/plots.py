"""Plots of an evaluation, as SVG: for each pair of models, quality over the share of expensive calls."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.errors import ArtifactError
from router.learning.evaluation import GRID

STYLES = {
    "learned": ("#0b6e4f", "-", 2.4),
    "hand rule": ("#c77b0a", "--", 1.4),
    "prompt length": ("#888888", ":", 1.6),
    "oracle": ("#5b5ea6", "-.", 1.2),
}


def needs_matplotlib() -> None:
    """Raises `ArtifactError` if matplotlib is not installed: to be asked before hours of work, not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ArtifactError(
            "plots need matplotlib; run: pip install -c constraints.txt -e '.[plots]', or leave --plots out"
        )


def plot_pairs(report: Mapping[str, Any], folder: str | Path, title: str) -> list[Path]:
    """One file a pair, named after it. Raises `ArtifactError` without matplotlib or such a folder."""
    needs_matplotlib()
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "triptych"  # same figures, same file
    from matplotlib import pyplot

    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{target}: no plots, since this folder cannot be made ({error.strerror})") from error
    files = []
    for pair, figures in report["pairs"].items():
        figure, axes = pyplot.subplots(figsize=(5.6, 3.9), layout="constrained")
        axes.plot([0, 1], figures["ends"], color="black", linewidth=1, label="random mixing (APGR .500)")
        for name, (colour, line, width) in STYLES.items():
            found = figures["rankings"][name]
            label = f"{name} (APGR {found['apgr']:.3f})"
            axes.plot(GRID, found["curve"], color=colour, linestyle=line, linewidth=width, label=label)
        cheap, strong = pair.split(" -> ")
        axes.set(xlabel=f"share of prompts that go to {strong} (the rest: {cheap})", ylabel="mean score")
        axes.set_title(f"{title}\n{pair}, {figures['prompts']} prompts", fontsize=10)
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        files.append(target / f"{re.sub('[^A-Za-z0-9_.-]+', '-', f'{title} {cheap} to {strong}')}.svg")
        figure.savefig(files[-1], metadata={"Date": None})
        pyplot.close(figure)
    return files
