"""Draws frontier.svg from frontier.json: exact marks against CPU-seconds."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

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
    figure, axes = plt.subplots(figsize=(9, 5.6))
    points = found["points"]
    single = [p for p in points if p["curve"] == "always"]
    x, y = hull(np.array([p["cpu_s"] for p in single]), np.array([p["exact"] for p in single]))
    axes.plot(x, y, color="black", lw=1.2, ls=(0, (1, 1)), label="random mixing of recipes")
    for curve, (colour, line, label) in STYLES.items():
        mine = [p for p in points if p["curve"] == curve]
        x, y = hull(np.array([p["cpu_s"] for p in mine]), np.array([p["exact"] for p in mine]))
        axes.plot(x, y, color=colour, ls=line, lw=1.8, marker="o", ms=2.5, label=label)
    for p in single:
        axes.plot(p["cpu_s"], p["exact"], "s", color="black", ms=5)
        axes.annotate(p["setting"], (p["cpu_s"], p["exact"]), xytext=(6, -10), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("CPU-seconds a picture (one thread, log scale; checks included)")
    axes.set_ylabel("share of pictures with an exact mark")
    axes.set_title(f"{found['prompts']} held-out prompts, {found['seeds']} seeds each")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="center right")
    figure.tight_layout()
    figure.savefig(HERE / "frontier.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
