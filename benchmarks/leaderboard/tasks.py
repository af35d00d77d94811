"""The free sets of ratings as tasks of the kit for routers (router/bench), with the pairs that are judged on each.

The pairs were written down before anything was fitted: the models of a set by tier, cheap to strong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.router_evaluation.sets import SETS, ratings, rows_of
from router.bench import Task
from router.learning.ratings import tabulate

PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "genai_bench": (("sd_v2_1", "dalle3"), ("sdxl_base", "dalle3"), ("sdxl_base", "midjourney_v6")),
    "pqpp": (("glide", "sdxl_base"),),
    "agiqa3k": (("sd_v1_5", "midjourney_v5"), ("sdxl_2_2", "midjourney_v5")),
    "tifa160": (("sd_v1_5", "sd_v2_1"),),
    "geneval_human": (("sd_v2_1", "deepfloyd_if_xl"),),
    "drawbench": (("dalle2", "dalle3"), ("sdxl_refined", "dalle3")),
    "imagereward100": (("sd1_4", "sd2_1"), ("versatile_diffusion", "dalle2")),
    "evalmi50k": (("sd_v2_1", "flux_schnell"), ("sdxl_base", "flux_schnell")),
}
LEARNED = tuple(name for name in PAIRS if SETS[name].may == "train")


def task_of(folder: Path, name: str) -> Task:
    """A set as a task. Of PQPP the official test part is left alone, and the validation part judges."""
    rows = [row for row in rows_of(folder, name) if row.part != "test"]
    table = tabulate(ratings(rows), SETS[name].scale)
    parts = {row.prompt: row.part for row in rows}
    judged = np.array([parts[prompt] == "validation" for prompt in table.prompts])
    return Task(name, table, PAIRS[name], SETS[name].may == "train", judged if judged.any() else None)
