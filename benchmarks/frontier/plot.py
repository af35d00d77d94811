"""Draws frontier.svg from frontier.json: exact marks against CPU-seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks.frontier.run import hull

HERE = Path(__file__).resolve().parent
STYLES = {
    "oracle": ("#999999", "--", "per-prompt oracle (one picture)"),
    "router + verify and escalate": ("#b3261e", "-", "router + verify and escalate"),
    "verify and escalate, no router": ("#e08a00", "-", "verify and escalate, no router"),
    "router": ("#1f5fbf", "-", "router"),
    "cascade": ("#2b8a3e", "-", "cascade (cheap, then a better recipe)"),
    "best of n": ("#8e44ad", "-", "best of n"),
    "prompt length": ("#00838f", ":", "prompt length"),
}


def main() -> None:
    found = json.loads((HERE / "frontier.json").read_text(encoding="utf-8"))
    plt.rcParams["svg.hashsalt"] = "triptych"
    figure, (whole, top) = plt.subplots(1, 2, figsize=(14, 5.6))
    for axes in (whole, top):
        draw(axes, found["points"])
    single = [p for p in found["points"] if p["curve"] == "always"]
    top.set_ylim(max(p["exact"] for p in single) - 0.1, 1.0)
    # The crowded ones are named where there is room.
    for p in single:
        axes, (low, high) = (top, top.get_ylim()) if p["exact"] > top.get_ylim()[0] else (whole, whole.get_ylim())
        if low < p["exact"] < high:
            axes.annotate(
                p["setting"], (p["cpu_s"], p["exact"]), xytext=(6, -11), textcoords="offset points", fontsize=8
            )
    whole.set_ylabel("share of pictures with an exact mark")
    whole.set_title(f"{found['prompts']} held-out prompts, {found['seeds']} seeds each")
    top.set_title("the upper end, enlarged")
    whole.legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(HERE / "frontier.svg", metadata={"Date": None})


def draw(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Every strategy's hull and every recipe alone."""
    single = [p for p in points if p["curve"] == "always"]
    x, y = hull(np.array([p["cpu_s"] for p in single]), np.array([p["exact"] for p in single]))
    axes.plot(x, y, color="black", lw=1.2, ls=(0, (1, 1)), label="random mixing of recipes")
    for curve, (colour, line, label) in STYLES.items():
        mine = [p for p in points if p["curve"] == curve]
        x, y = hull(np.array([p["cpu_s"] for p in mine]), np.array([p["exact"] for p in mine]))
        axes.plot(x, y, color=colour, ls=line, lw=1.8, marker="o", ms=2.5, label=label)
    axes.plot([p["cpu_s"] for p in single], [p["exact"] for p in single], "s", color="black", ms=5)
    axes.set_xscale("log")
    axes.set_xlabel("CPU-seconds a picture (one thread, log scale; checks included)")
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    main()
