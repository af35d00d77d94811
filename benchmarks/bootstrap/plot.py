"""Draws what the simulation found: share of the full artefact's gain against pictures, chosen and swept.

python -m benchmarks.bootstrap.plot      # reads run.json, writes run.svg; --quick: of made-up figures
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bootstrap.run import HERE, SIZES
from benchmarks.command import is_full, parser, results

STYLES = {
    ("value", ""): ("#0b6e4f", "-"), ("value", ", labelled"): ("#0b6e4f", "--"),
    ("uniform", ""): ("#c77b0a", "-"), ("uniform", ", labelled"): ("#c77b0a", "--"),
}  # fmt: skip
WORDS = {"": "by the verifier", ", labelled": "by the verifier and 100 labels"}


def draw(found: Mapping[str, Any], file: Path) -> None:
    """One panel a world: points over random mixing, with the bars of 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "triptych"  # same figures, same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(found), figsize=(5.4 * len(found), 3.9), layout="constrained", squeeze=False
    )
    for axes, (name, world) in zip(panels[0], found.items(), strict=True):
        rows = world["found"]
        for k, ((how, judged), (colour, line)) in enumerate(STYLES.items()):
            at = [size for size in SIZES if f"{how}, {size}{judged}" in rows]
            values = [rows[f"{how}, {size}{judged}"]["mixing"] for size in at]
            middle = [one["value"] for one in values]
            bars = [[v["value"] - v["low"] for v in values], [v["high"] - v["value"] for v in values]]
            axes.errorbar(
                [size * (1 + 0.02 * (k - 1.5)) for size in at], middle, yerr=bars, color=colour, linestyle=line,
                marker="o", markersize=3, linewidth=1.5, elinewidth=0.7, label=f"{how}, {WORDS[judged]}",
            )  # fmt: skip
        for what, line in (("full, exact marks", "-"), ("full, judged", ":")):
            axes.axhline(rows[what]["mixing"]["value"], color="black", linewidth=1, linestyle=line, label=what)
        axes.axhline(0, color="#999999", linewidth=0.7)
        axes.set_title(f"{name} ({world['prompts']} prompts, {world['parts']} partings)", fontsize=10)
        axes.set(xscale="log", xlabel="pictures", ylabel="points of exact marks over random mixing")
        axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7, frameon=False, handlelength=3.5)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def made_up() -> dict[str, Any]:
    """Figures of the form of `run.json`."""
    one = {"mixing": {"value": 1.0, "low": 0.5, "high": 1.5}}
    names = [f"{how}, {size}{judged}" for how, judged in STYLES for size in SIZES]
    rows = dict.fromkeys([*names, "full, exact marks", "full, judged"], one)
    return {"made up": {"prompts": 1, "parts": 1, "found": rows}}


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    asked = made.parse_args(argv)
    with results(asked, HERE, is_full(made, asked)) as out:
        figures = HERE / "run.json"
        if not asked.quick and not figures.is_file():
            raise SystemExit(f"{figures} is not there; python -m benchmarks.bootstrap.run writes it")
        found = made_up() if asked.quick else json.loads(figures.read_text(encoding="utf-8"))
        draw(found, out / "run.svg")
    print("drew run.svg")


if __name__ == "__main__":
    main()
