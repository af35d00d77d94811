"""Routers side by side on the free sets of ratings: the page docs/router-leaderboard.md.

    python -m benchmarks.leaderboard.run FOLDER            # judges every entry; writes results/ and the page
    python -m benchmarks.leaderboard.run FOLDER --only knn # judges one entry, and writes the page from all results
    python -m benchmarks.leaderboard.run --page            # only the page, from the results that are there
    python -m benchmarks.leaderboard.run --quick

FOLDER holds the rated sets (benchmarks/router_evaluation/sets.py). An entry is a file of `entries/` with `NAME`,
`ABOUT` (one line), and `learn(table)` or `carry(tasks, pair)` or both, which give a router (router/bench). Two columns:

within     `learn`: five folds of each set, near-duplicates together; of PQPP the validation part, its training part
           being learned from. APGR; a set's figure is the mean of its pairs (benchmarks/leaderboard/tasks.py)
left out   `carry`: learns from all sets that may be learned from but the one that judges

EvalMi may not be learned from, so it stands in the second column only. Intervals are 95 %, from resampling groups of
near-duplicates.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from benchmarks.leaderboard import entries
from benchmarks.leaderboard.tasks import LEARNED, PAIRS, task_of
from benchmarks.router_evaluation.sets import add_folder, tables
from router.bench import Judged, Task, crossed, judge, left_out, mean_of

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results", HERE.parents[1] / "docs" / "router-leaderboard.md"
SPOKEN = {
    "genai_bench": "GenAI-Bench", "pqpp": "PQPP", "agiqa3k": "AGIQA-3k", "tifa160": "TIFA160",
    "geneval_human": "GenEval", "drawbench": "DrawBench", "imagereward100": "ImageReward", "evalmi50k": "EvalMi",
}  # fmt: skip


def entries_there() -> dict[str, ModuleType]:
    """The entries by the names of their files."""
    names = sorted(found.name for found in pkgutil.iter_modules(entries.__path__))
    return {name: importlib.import_module(f"{entries.__name__}.{name}") for name in names}


def judged(entry: ModuleType, tasks: Sequence[Task]) -> dict[str, Any]:
    """Figures of an entry, by protocol and set."""
    report: dict[str, Any] = {"name": entry.NAME, "about": entry.ABOUT, "within": {}, "left out": {}}
    within: dict[str, Judged] = {}
    across: dict[str, Judged] = {}
    for task in tqdm(tasks, desc=entry.NAME, disable=None):
        if task.learn and hasattr(entry, "learn"):
            scores, split = crossed(task, entry.learn)
            within[task.name] = mean_of([judge(task, pair, scores, split) for pair in task.pairs])
        if hasattr(entry, "carry"):
            said = left_out(tasks, entry.carry, task.name)
            across[task.name] = mean_of([judge(task, pair, gain) for pair, gain in said.items()])
    for protocol, found in (("within", within), ("left out", across)):
        report[protocol] = {k: {"apgr": one.apgr.rounded, "lift": one.lift.rounded} for k, one in found.items()}
        if learned := [one for name, one in found.items() if name in LEARNED]:
            report[f"mean lift, {protocol}"] = mean_of(learned).lift.rounded
    return report


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """The page in Markdown, best first."""
    parts = [
        "# Routers side by side",
        "",
        "For whoever has an idea for a router, or wonders how good the one here is: the same questions to all, on the "
        "sets "
        "of ratings that are free to use. This page is written by `python -m benchmarks.leaderboard.run FOLDER` "
        "([script](../benchmarks/leaderboard/run.py), [raw results](../benchmarks/leaderboard/results)); the sets are "
        "not "
        "part of Triptych. What is known beyond that: [evidence for the router](router-evidence.md).",
        "",
        "APGR is .5 for random mixing at the same cost and 1 for having all of the gap at no call; intervals are 95 %. "
        "*Lift* is the same area over random mixing in standard deviations of the gain, which does not divide "
        "by the gap: "
        "where the "
        "expensive model is hardly better (TIFA160, ImageReward), APGR is mostly noise. The mean counts each set once.",
    ]
    for protocol, title, about in (
        ("within", "Learned from ratings of the same models",
         "Five folds of each set, near-duplicates together (of PQPP: training part, judged on the validation part)."),
        ("left out", "Learned from other sets only",
         "What a router knows before the first rating of one's own models. EvalMi may not be learned from: it only "
         "judges, and is not in the mean."),
    ):  # fmt: skip
        mean = f"mean lift, {protocol}"
        rows = sorted((one for one in found if mean in one), key=lambda one: -one[mean][0])
        sets = [name for name in PAIRS if any(name in one[protocol] for one in rows)]
        parts += ["", f"## {title}", "", about, ""]
        parts.append("| router | mean lift | " + " | ".join(SPOKEN[name] for name in sets) + " |")
        parts.append("| --- " * (len(sets) + 2) + "|")
        for one in rows:
            cells = [_apgr(one[protocol][name]["apgr"]) if name in one[protocol] else "" for name in sets]
            value, low, high = one[mean]
            parts.append(f"| {one['name']} | **{value:.3f}** [{low:.3f}, {high:.3f}] | " + " | ".join(cells) + " |")
    parts += ["", "## Who they are", ""]
    parts += [f"- **{one['name']}**: {one['about']}" for one in sorted(found, key=lambda one: str(one["name"]))]
    parts += [
        "",
        "## Add one",
        "",
        "A router is any object with one method, `score(prompts)`, which gives a matrix: prompts by recipes, "
        "the higher "
        "the better. Put one file into [`benchmarks/leaderboard/entries`](../benchmarks/leaderboard/entries):",
        "",
        "```python",
        EXAMPLE.strip(),
        "```",
        "",
        "`learn` gets a table (`prompts`, `groups`, `columns`, `scores` on 0 to 1 with NaN where nothing is rated); "
        "`carry`, if there is one, gets other sets and a cheap and a strong model that it has not seen. Then",
        "",
        "```",
        "python -m benchmarks.leaderboard.run FOLDER --only shouting",
        "```",
        "",
        "writes its results and this page anew. The same kit judges any table of one's own:",
        "",
        "```python",
        OWN.strip(),
        "```",
    ]
    return "\n".join(parts) + "\n"


EXAMPLE = """
import numpy as np

NAME, ABOUT = "shouting", "prompts in capitals get the strong model"


class Shouting:
    def __init__(self, strength):
        self.strength = strength  # of each recipe

    def score(self, prompts):
        loud = np.array([sum(map(str.isupper, prompt)) / max(1, len(prompt)) for prompt in prompts])
        return loud[:, None] * self.strength


def learn(table):
    return Shouting(np.nanmean(table.scores, axis=0))


def carry(tasks, pair):
    return Shouting(np.array([0.0, 1.0]))
"""
OWN = """
from router.bench import HandRule, Ridge, Task, crossed, difference, judge
from router.learning.ratings import read_ratings, tabulate

task = Task("mine", tabulate(read_ratings("ratings.csv")), (("sdxl", "flux"),))
found = {}
for kind in (HandRule, Ridge):
    scores, folds = crossed(task, kind.learn)
    found[kind] = judge(task, ("sdxl", "flux"), scores, folds)
    print(kind.__name__, found[kind].apgr, found[kind].lift)
print(difference(found[Ridge], found[HandRule]))
"""


def _apgr(figure: Sequence[float]) -> str:
    value, low, high = (f"{x:.2f}".removeprefix("0") for x in figure)
    return f"{value} [{low}, {high}]"


def kept(folder: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    made.add_argument("--only", metavar="ENTRY", action="append", help="judge only this entry; may be repeated")
    made.add_argument("--page", action="store_true", help="only write the page")
    chosen = made.parse_args(argv)
    if chosen.page:
        PAGE.write_text(page(kept(RESULTS)), encoding="utf-8")
        print(f"wrote {PAGE}")
        return
    there = entries_there()
    if unknown := set(chosen.only or ()) - there.keys():
        made.error(f"no entry {', '.join(sorted(unknown))}; there are: {', '.join(there)}")
    names = chosen.only or (["hand_rule", "ridge"] if chosen.quick else list(there))
    full = is_full(made, chosen, but=("only",))
    with tables(made, chosen, tuple(PAIRS)) as folder, results(chosen, RESULTS, full) as out:
        tasks = [task_of(folder, name) for name in (("genai_bench", "drawbench") if chosen.quick else PAIRS)]
        for name in names:
            report = judged(there[name], tasks)
            (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in report.items() if k.startswith("mean")))
        where = PAGE if out == RESULTS else out / PAGE.name
        where.write_text(page(kept(out)), encoding="utf-8")


if __name__ == "__main__":
    main()
