"""What a sweep found, as a plot and as the entry of the serve config that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.sweep.standings import Aim, Standing, front, well_seen
from models.sweep.ways import Way, as_it_is
from router.types import ModelCard


def entry(given: Mapping[str, Any], card: ModelCard, way: Way, graphs: Path | None) -> dict[str, Any]:
    """The model's entry of the serve config, changed so that it runs in a way.

    given: the entry as it is;   graphs: the folder of the way's graphs, if it has some
    """
    made = {key: value for key, value in given.items() if key not in ("overrides", "tuning")}
    overrides, present = dict(given.get("overrides") or {}), as_it_is(card)
    if way.steps != present.steps:
        overrides["steps"] = way.steps
    if way.scheduler != present.scheduler:
        overrides["scheduler"] = way.scheduler
    if graphs is not None:
        overrides["source"] = {"onnx": str(graphs.absolute())}
        made.pop("dtype", None)
    tuning = dict(way.build.tuning)
    return {**made, **({"overrides": overrides} if overrides else {}), **({"tuning": tuning} if tuning else {})}


def plot(standings: Sequence[Standing], taken: Standing | None, aim: Aim, file: Path, title: str, clock: str) -> None:
    """Mean score against seconds: all ways, the front, the present way (the first), the one that was chosen."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "triptych"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    seen = well_seen(standings)
    for some, alpha, label in (
        ([one for one in standings if one not in seen], 0.25, "left out early"),
        (seen, 0.9, "drawn to the end"),
    ):
        axes.scatter(
            [one.seconds for one in some], [one.change for one in some], s=18, c="#888888", alpha=alpha, label=label
        )
    whole = front(seen)
    axes.step(
        [one.seconds for one in whole], [one.change for one in whole], where="post", color="#0b6e4f", label="front"
    )
    marked = [(standings[0], "as it is", "#222222", "s")]
    if taken is not None and taken != standings[0]:
        marked.append((taken, taken.way, "#c0392b", "o"))
    for one, label, colour, shape in marked:
        axes.errorbar(
            one.seconds, one.change, 1.96 * one.doubt, fmt=shape, color=colour, capsize=3, label=label, zorder=3
        )
    axes.axhline(-aim.within, color="#c0392b", linewidth=0.8, linestyle=":")
    if aim.latency_s is not None:
        axes.axvline(aim.latency_s, color="#c0392b", linewidth=0.8, linestyle=":")
    axes.set_xlim(left=0)
    # What lost most of its quality would press the rest together.
    axes.set_ylim(bottom=max(min(one.change for one in standings), -0.35) - 0.02)
    axes.set_xlabel(f"{clock} seconds a picture")
    axes.set_ylabel("mean score against as it is")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, loc="lower right")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
