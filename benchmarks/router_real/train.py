"""Trains the artefact `real`: what is known, before any picture, of SD1.5, SDXL, SDXL-Turbo and FLUX.

    python -m benchmarks.router_real.train FOLDER
    python -m benchmarks.router_real.train --quick

FOLDER holds the rated sets (benchmarks/router_evaluation/sets.py). Only sets that may be learned from are read. No such
set rates FLUX, and none of useful size rates SD1.5, so two of the four columns stand on stand-ins:

    sdxl, sdxl-turbo   sdxl_base and sdxl_turbo in GenAI-Bench, as they are
    sd15   sd_v2_1 in GenAI-Bench, moved by what TIFA160's people saw between sd_v1_5 and sd_v2_1 on 160 prompts
    flux   the mean of midjourney_v6 and dalle3 in GenAI-Bench: the tier of strong models, not FLUX itself

All six models of GenAI-Bench are learned from; the columns are read off them (`SERVED`), so that to serve one more does
not change what is said of the others. The hyperparameters (`CHOICE`) are those that carry over best between the sets
that may be learned from (benchmarks/router_real/transfer.py), since the artefact is used on prompts of no set. Only
what a prompt does to all columns alike is taken from what was learned; a hand-written rule sets them apart, since
nothing that was learned from other sets does that surely better (benchmarks/router_real/priors.py). The deviations of
stand-ins are widened by `WIDEN`. Writes `router/artifacts/real/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command import is_full, parser, results
from benchmarks.router_evaluation.sets import SETS, add_folder, rows_of, tables
from router.learning.ratings import Rating
from router.learning.training import train
from router.quality.kernel_ridge import Hyperparameters

READS = ("genai_bench", "tifa160")
ARTIFACT = Path(__file__).resolve().parents[2] / "router" / "artifacts" / "real"
# The stand-in's own noise is in the deviation already; this is for not being the model that it stands for.
WIDEN = {"sd15": 1.15, "flux": 1.3}
STRONG = ("midjourney_v6", "dalle3")
OTHERS = ("deepfloyd_if_xl", *STRONG)  # rated, and served only as parts
SERVED = {
    "sdxl": {"sdxl": 1.0}, "sdxl-turbo": {"sdxl-turbo": 1.0}, "sd15": {"sd15": 1.0},
    "flux": dict.fromkeys(STRONG, 1 / len(STRONG)),
}  # fmt: skip
CHOICE = Hyperparameters(feature_weight=1.0, gamma=0.4, share=0.8)


def real_ratings(folder: Path) -> tuple[list[Rating], float]:
    """Ratings of six models on 1..5, and by how much SD1.5 was moved."""
    both = [row.scores for row in rows_of(folder, "tifa160") if len(row.scores) == 2]
    shift = float(np.mean([scores["sd_v1_5"] - scores["sd_v2_1"] for scores in both]))
    scale = SETS["genai_bench"].scale
    found = []
    for row in rows_of(folder, "genai_bench"):
        columns = {"sdxl": row.scores.get("sdxl_base"), "sdxl-turbo": row.scores.get("sdxl_turbo")}
        if "sd_v2_1" in row.scores:
            columns["sd15"] = min(scale.high, max(scale.low, row.scores["sd_v2_1"] + shift))
        columns |= {model: row.scores.get(model) for model in OTHERS}
        found += [Rating(row.prompt, key, score, row.group) for key, score in columns.items() if score is not None]
    return found, shift


def notes(shift: float) -> str:
    """What stands behind each column, for the card."""
    return f"""
## What sets the columns apart is a hand-written rule

How hard a prompt is for all of them is learned. Which prompts want the stronger model is **not**: written text, \
numbers,
places and several colours do, negation does not (`router/quality/rule.py`), in an amount that is hand-written,
too. On sets that were left out, nothing that was learned from the others was surely better than this rule
(benchmarks/router_real/priors.py, docs/router-evidence.md). In answers the `basis` of these columns is `rule`.

## What stands behind each column

- `sdxl`, `sdxl-turbo`: sdxl_base and sdxl_turbo themselves, rated by 3 people for alignment with the prompt, one
  picture a prompt.
- `sd15`: sd_v2_1, moved by {shift:+.2f}, the mean difference of sd_v1_5 on the 160 prompts of TIFA160. Which prompts
  are harder for SD1.5 than for SD2.1 is not known; deviations are {WIDEN["sd15"]} times as wide.
- `flux`: not FLUX, but the mean of midjourney_v6 and dalle3, a tier of strong models. That FLUX is strong on the same
  prompts is an assumption; deviations are {WIDEN["flux"]} times as wide.

Fitted together on all six models of GenAI-Bench, deepfloyd_if_xl included, of which these columns are read off. Kernel
and shares are those that carried over best between sets that may be learned from, by little
(benchmarks/router_real/transfer.py), not those with the least error on the folds above.

The figures above are of the stand-ins. A set that was not learned from and that rates FLUX.1-schnell says how far this
carries over: docs/router-evidence.md. Rate pictures of your own models and train on them to replace the assumption:
`triptych router train`, or `triptych router add-model` for one column.
"""


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    chosen = made.parse_args(argv)
    with tables(made, chosen, READS) as folder, results(chosen, ARTIFACT, is_full(made, chosen)) as out:
        fit(folder, out)


def fit(folder: Path, out: Path) -> None:
    """Train, save into `out`, print the card."""
    found, shift = real_ratings(folder)
    source = "GenAI-Bench (people's alignment ratings) and TIFA160 (one difference)"
    licence = "Apache-2.0 (GenAI-Bench, TIFA160)"
    scale = SETS["genai_bench"].scale
    artifact, _ = train(
        found, out, "real", source, licence,
        notes=notes(shift), scale=scale, widen=WIDEN, served=SERVED, choice=CHOICE, apart="rule",
    )  # fmt: skip
    print(artifact.card)


if __name__ == "__main__":
    main()
