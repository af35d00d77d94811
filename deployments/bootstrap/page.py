"""The page of truth at the end of a bootstrap: Markdown, and one plot."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deployments.bootstrap.readings import Reading
from deployments.bootstrap.results import Conclusion
from deployments.bootstrap.study import Study
from router.bootstrap.dial import hull
from router.bootstrap.truth import Curve, Truth
from router.learning.intervals import Figure

STYLES = {
    "router": ("#0b6e4f", "-", 2.2),
    "prompt length": ("#888888", ":", 1.6),
    "oracle": ("#5b5ea6", "-.", 1.2),
}


def write_page(folder: Path, study: Study, found: Conclusion, reading: Reading, ended: str) -> tuple[Path, Path | None]:
    """`page.md` and, with matplotlib, `page.svg` in `folder`; the place of each."""
    plot = None
    if found.truth is not None and importlib.util.find_spec("matplotlib") is not None:
        plot = draw(found.truth, folder / "page.svg", study.policy)
    file = folder / "page.md"
    file.write_text("\n".join(_lines(study, found, reading, ended, plot)) + "\n", encoding="utf-8")
    return file, plot


def summary(truth: Truth | None, reading: Reading) -> str:
    """What the page says first."""
    if truth is None:
        return (
            "Whether routing is worth it here is not known: there were too few proof prompts with a picture of every "
            "contender. Give a larger budget; the same command goes on."
        )
    return truth.verdict + reading.caveat


def _lines(study: Study, found: Conclusion, reading: Reading, ended: str, plot: Path | None) -> Iterator[str]:
    yield f"# Is routing worth it? Policy `{study.policy}`, measured here"
    yield ""
    yield f"**{summary(found.truth, reading)}**"
    yield ""
    yield (
        f"{found.pictures} pictures of {len(study.prompts)} prompts, judged by `{study.judge}`: {reading.words}. It "
        f"ended because {ended}."
    )
    if found.unjudged:
        yield f"The judge failed on {found.unjudged} pictures, which count for nothing."
    yield ""
    truth = found.truth
    if truth is not None:
        yield from _strategies(truth)
        if plot is not None:
            yield f"![Quality against seconds]({plot.name})"
            yield ""
    yield from _recipes(study, found)
    yield "## How to read it"
    yield ""
    yield (
        f"Nothing was learned from the {len(truth.proof.prompts) if truth else 0} proof prompts, on which every "
        "contender drew a picture; what is served afterwards has learned from them, too. Intervals are 95 %, from "
        "resampling prompts. A point is a hundredth of quality. Seconds are of work, without waiting."
    )


def _strategies(truth: Truth) -> Iterator[str]:
    yield f"## What choosing buys, on {len(truth.proof.prompts)} proof prompts"
    yield ""
    yield (
        "Points over mixing the recipes at random at the same seconds: on average between the cheapest contender and "
        "the best one, and at half of that way."
    )
    yield ""
    yield "| choosing by | over random mixing | at half |"
    yield "| --- | --- | --- |"
    yield "| chance (random mixing) | 0 | 0 |"
    for curve in truth.curves.values():
        yield f"| {curve.name} | {_points(curve.gain)} | {_points(curve.half)} |"
    yield ""
    if (served := truth.served) is not None:
        shares = ", ".join(f"{100 * share:.0f} % {name}" for name, share in served.shares.items())
        yield (
            f"The policy's objective as it stands comes to {_figure(served.quality)} for {served.seconds:.3g} s, "
            f"{_points(served.gain)} points over random mixing there ({shares}). Its rules, limits and verification "
            "are not part of this."
        )
        yield ""
    if truth.alike is not None:
        yield (
            f"Pictures of one prompt by one recipe have an intraclass correlation of {truth.alike:.2f}: the rest is "
            "the seed's, which no prompt foretells. The oracle chose by one picture of "
            "each recipe and is judged by another, on the prompts that have two."
        )
        yield ""


def _recipes(study: Study, found: Conclusion) -> Iterator[str]:
    yield "## The recipes"
    yield ""
    yield "| recipe | key | quality on proof prompts | seconds | USD | pictures |"
    yield "| --- | --- | --- | --- | --- | --- |"
    fixed = found.truth.fixed if found.truth else {}
    for key in study.keys:
        mean = f"no contender; {found.levels[key]:.3f} on its own pictures" if key in found.levels else "-"
        quality = _figure(fixed[key]) if key in fixed else found.left_out.get(key, mean)
        seconds = f"{found.costs.seconds[key]:.3g}" if key in found.costs.seconds else "-"
        usd = f"{found.costs.usd[key]:.2g}" if key in found.costs.usd else "-"
        best = " (best)" if found.truth and key == found.truth.best else ""
        shown = key.replace("|", "\\|")
        name, pictures = f"{study.recipes[key]}{best}", found.costs.pictures[key]
        yield f"| {name} | `{shown}` | {quality} | {seconds} | {usd} | {pictures} |"
    yield ""


def _figure(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _points(figure: Figure) -> str:
    return f"{100 * figure.value:+.1f} ({100 * figure.low:+.1f} to {100 * figure.high:+.1f})"


def draw(truth: Truth, file: Path, title: str) -> Path:
    """Quality over seconds: every strategy's curve, every recipe with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "triptych"  # same figures, same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    seconds = truth.proof.seconds
    means = np.array([truth.fixed[key].value for key in truth.proof.recipes])
    axes.plot(*hull(seconds, means), color="black", linewidth=1, label="random mixing")
    for name, (colour, line, width) in STYLES.items():
        curve: Curve = truth.curves[name]
        order = np.argsort(curve.seconds, kind="stable")
        axes.plot(
            curve.seconds[order], curve.quality[order], color=colour, linestyle=line, linewidth=width,
            label=f"{name} ({_points(curve.gain)} points)",
        )  # fmt: skip
    ends = np.array([[truth.fixed[key].low, truth.fixed[key].high] for key in truth.proof.recipes])
    bars = np.maximum(np.abs(ends - means[:, None]).T, 0)
    axes.errorbar(seconds, means, yerr=bars, fmt="s", color="black", markersize=4, linewidth=0.8)
    for x, y, key in zip(seconds, means, truth.proof.recipes, strict=True):
        axes.annotate(key[:32], (x, y), textcoords="offset points", xytext=(4, -9), fontsize=6)
    if (served := truth.served) is not None:
        axes.plot([served.seconds], [served.quality.value], "*", color="#0b6e4f", markersize=11, label="as served")
    axes.set(xlabel="seconds a picture", ylabel="quality (judged)")
    axes.set_title(f"{title}, {len(truth.proof.prompts)} proof prompts", fontsize=10)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file
