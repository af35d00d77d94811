"""Public sets of people's ratings, read from gzipped tables: a row a prompt and metric, a column a model.

The tables are not part of Triptych; every script takes the folder that they are in. What may be learned from a set, and
what may only be used to judge, is `MAY`.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from router.learning.ratings import Rating
from router.quality.ratings_table import Scale


@dataclass(frozen=True)
class RatedSet:
    """file: its name; metric: the rows that are read ("" = all); models: columns; scale: what a score may be; may:
    "train" or "evaluate"; licence: of the ratings."""

    file: str
    metric: str
    models: tuple[str, ...]
    scale: Scale
    may: str
    licence: str


SETS = {
    "genai_bench": RatedSet(
        "genai_bench.tsv.gz", "human_alignment",
        ("sd_v2_1", "sdxl_base", "sdxl_turbo", "deepfloyd_if_xl", "midjourney_v6", "dalle3"),
        Scale(1, 5), "train", "Apache-2.0",
    ),
    "pqpp": RatedSet("pqpp.tsv.gz", "", ("glide", "sdxl_base"), Scale(-1, 2), "train", "CC BY 4.0"),
    "tifa160": RatedSet(
        "tifa160.tsv.gz", "human_alignment", ("sd_v1_5", "sd_v2_1"), Scale(1, 5), "train", "Apache-2.0",
    ),
    "agiqa3k": RatedSet(
        "agiqa3k.tsv.gz", "human_alignment_mos", ("sd_v1_5", "sdxl_2_2", "midjourney_v5"), Scale(0, 5), "train", "MIT",
    ),
    "geneval_human": RatedSet(
        "geneval_human.tsv.gz", "human_quality_task", ("sd_v2_1", "deepfloyd_if_xl"), Scale(1, 4), "train", "MIT",
    ),
    "evalmi50k": RatedSet(
        "evalmi50k.tsv.gz", "human_correspondence_mos", ("sd_v2_1", "sdxl_base", "flux_schnell"),
        Scale(0, 100), "evaluate", "none stated",
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
    for row in _table(folder / chosen.file):
        if chosen.metric and row["metric"] != chosen.metric:
            continue
        given = {model: float(row[model]) for model in chosen.models if row[model]}
        scores = {m: score for m, score in given.items() if chosen.scale.low <= score <= chosen.scale.high}
        categories = tuple(part for part in row.get("categories", "").split("|") if part)
        found.append(Row(row["prompt"], row.get("prompt_group", ""), categories, row.get("split", ""), scores))
    return found


def ratings(rows: list[Row]) -> list[Rating]:
    """One rating a prompt and model."""
    return [Rating(row.prompt, model, score, row.group) for row in rows for model, score in row.scores.items()]


def _table(file: Path) -> Iterator[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        yield from csv.DictReader(text, delimiter="\t")
