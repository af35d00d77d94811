"""Public sets of people's ratings, read from gzipped tables: a row a prompt and metric, a column a model.

The tables are not part of Triptych; every script takes the folder that they are in, and says which it lacks and where
they are from. With `--quick` and no folder, it makes small tables up (`made_up`), whose figures mean nothing. What may
be learned from a set, and what may only be used to judge, is in its row of `SETS`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from router.learning.ratings import Rating
from router.learning.tables.table import Table, read_table
from router.quality.ratings_table import Scale


@dataclass(frozen=True)
class RatedSet:
    """file: its name; metric: the rows that are read ("" = all); models: columns; scale: what a score may be; may:
    "train" or "evaluate"; licence: of the ratings; source: where they are published."""

    file: str
    metric: str
    models: tuple[str, ...]
    scale: Scale
    may: str
    licence: str
    source: str


SETS = {
    "genai_bench": RatedSet(
        "genai_bench.tsv.gz", "human_alignment",
        ("sd_v2_1", "sdxl_base", "sdxl_turbo", "deepfloyd_if_xl", "midjourney_v6", "dalle3"),
        Scale(1, 5), "train", "Apache-2.0", "GenAI-Bench, github.com/linzhiqiu/t2v_metrics",
    ),
    "pqpp": RatedSet(
        "pqpp.tsv.gz", "", ("glide", "sdxl_base"), Scale(-1, 2), "train", "CC BY 4.0",
        "PQPP, github.com/Eduard6421/PQPP",
    ),
    "tifa160": RatedSet(
        "tifa160.tsv.gz", "human_alignment", ("sd_v1_5", "sd_v2_1"), Scale(1, 5), "train", "Apache-2.0",
        "TIFA160, github.com/Yushi-Hu/tifa",
    ),
    "agiqa3k": RatedSet(
        "agiqa3k.tsv.gz", "human_alignment_mos", ("sd_v1_5", "sdxl_2_2", "midjourney_v5"), Scale(0, 5), "train", "MIT",
        "AGIQA-3k, github.com/lcysyzxdxc/AGIQA-3k-Database",
    ),
    "geneval_human": RatedSet(
        "geneval_human.tsv.gz", "human_quality_task", ("sd_v2_1", "deepfloyd_if_xl"), Scale(1, 4), "train", "MIT",
        "GenEval, github.com/djghosh13/geneval",
    ),
    "drawbench": RatedSet(
        "drawbench.tsv.gz", "gpt4v_correct_share_of_4", ("dalle2", "sdxl_refined", "dalle3"), Scale(0, 1), "train",
        "MIT", "DrawBench by GPT-4V, github.com/openai/dalle3-eval-samples",
    ),
    "imagereward100": RatedSet(
        "imagereward100.tsv.gz", "imagereward-v1.0_mean_of_10",
        ("sd1_4", "sd2_1", "openjourney", "dalle2", "cogview2", "versatile_diffusion"), Scale(-3, 3), "train",
        "Apache-2.0", "ImageReward's benchmark, github.com/THUDM/ImageReward",
    ),
    "evalmi50k": RatedSet(
        "evalmi50k.tsv.gz", "human_correspondence_mos", ("sd_v2_1", "sdxl_base", "flux_schnell"),
        Scale(0, 100), "evaluate", "none stated", "EvalMi-50K, github.com/IntMeGroup/LMM4LMM",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A prompt, its group of near-duplicates, its categories, its part ("train", "validation", "test" or ""), and the
    score of each model."""

    prompt: str
    group: str
    categories: tuple[str, ...]
    part: str
    scores: Mapping[str, float]


def rows_of(folder: Path, name: str) -> list[Row]:
    """The rows of a set. Scores outside the set's scale are typing errors of their source, and left out."""
    chosen = SETS[name]
    found = []
    table = read_table(folder / chosen.file)
    prompt, places = table.place("prompt"), {model: table.place(model) for model in chosen.models}
    decimals = table.decimals(tuple(places.values()))
    group, categories, part = (_optional(table, name) for name in ("prompt_group", "categories", "split"))
    for row in table.rows:
        fields = row[1]
        if chosen.metric and fields[table.place("metric")] != chosen.metric:
            continue
        given = {model: table.number(row, k, decimals) for model, k in places.items() if fields[k]}
        scores = {m: score for m, score in given.items() if chosen.scale.low <= score <= chosen.scale.high}
        parts = tuple(one for one in categories(fields).split("|") if one)
        found.append(Row(fields[prompt], group(fields), parts, part(fields), scores))
    return found


def ratings(rows: list[Row]) -> list[Rating]:
    """One rating a prompt and model."""
    return [Rating(row.prompt, model, score, row.group) for row in rows for model, score in row.scores.items()]


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The argument FOLDER of every script that reads rated sets."""
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER",
        help="where the tables of benchmarks/router_evaluation/sets.py are (with --quick: made up if it is not given)",
    )  # fmt: skip


@contextmanager
def tables(parser: argparse.ArgumentParser, chosen: argparse.Namespace, names: Collection[str]) -> Iterator[Path]:
    """The folder with the tables of these sets; one of made-up tables for `--quick` without FOLDER. Whatever is missing
    ends the run with what it is, what it must hold and where it is published."""
    if chosen.folder is None and chosen.quick:
        with tempfile.TemporaryDirectory(prefix="triptych-tables-") as folder:
            made_up(Path(folder), names)
            yield Path(folder)
        return
    if missing := [name for name in names if chosen.folder is None or not (chosen.folder / SETS[name].file).is_file()]:
        lines = "\n".join(needed(SETS[name]) for name in missing)
        told = "name the FOLDER of the rated tables" if chosen.folder is None else f"{chosen.folder} lacks"
        parser.error(f"{told}:\n{lines}\nThey are not part of Triptych. To see that it runs without them: --quick")
    yield chosen.folder


def needed(chosen: RatedSet) -> str:
    """What a table must hold, and where its contents are published."""
    metric = f", metric ({chosen.metric!r} is read)" if chosen.metric else ""
    return (
        f"  {chosen.file}: a gzipped TSV, a row a prompt, with the columns prompt{metric}, {', '.join(chosen.models)}; "
        f"optional: prompt_group (of near-duplicates), categories (joined by |), split\n"
        f"    from {chosen.source} (licence: {chosen.licence})"
    )


SUBJECTS = (
    "a dog", "two red cars", "a castle", "an old man", "three bowls", "a sign", "a fox", "a blue ring", "five boats",
    "a teapot", "a robot", "a violin",
)  # fmt: skip
PLACES = ("in the rain", "by a door", "at night", "without people", "under a bridge", "on a table", "at sea", "on Mars")
MADE_UP_CATEGORIES = ("negation", "counting", "spatial relation")


def made_up(folder: Path, names: Collection[str]) -> None:
    """Tables of 96 prompts in the form of these sets, for `--quick`: random scores, higher in later columns."""
    for name in names:
        chosen, rng = SETS[name], random.Random(name)
        low, span, last = chosen.scale.low, chosen.scale.high - chosen.scale.low, len(chosen.models) - 1
        with gzip.open(folder / chosen.file, "wt", encoding="utf-8", newline="") as text:
            writer = csv.writer(text, delimiter="\t")
            writer.writerow(["prompt", "prompt_group", "categories", "metric", "split", *chosen.models])
            for number, prompt in enumerate(f"{subject} {place}" for place in PLACES for subject in SUBJECTS):
                part = ("train", "train", "validation", "test")[number % 4]
                categories = "|".join(MADE_UP_CATEGORIES[k] for k in range(3) if number >> k & 1)
                scores = [f"{low + span * (rng.random() / 2 + k / last / 3):.3f}" for k in range(last + 1)]
                writer.writerow([prompt, prompt, categories, chosen.metric, part if name == "pqpp" else "", *scores])


def _optional(table: Table, name: str) -> Callable[[list[str]], str]:
    """What a row has in a column that a table may lack."""
    place = table.place(name) if table.has(name) else None
    return lambda fields: "" if place is None else fields[place]
