"""Does it help to choose by the number of objects? On the pictures that benchmarks.embedded_outcomes has drawn.

    python -m benchmarks.fusion.voting

Of the pictures of SD1.5, SDXL and FLUX for the prompts with counts (one seed): the verifier chooses among all, among
those whose number of objects is the majority's, and among those with the number that the prompt asks for. Writes
`voting.json`.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.embedded_outcomes.run import BATCH, CACHE, SCORER, picture_file, prompts_of, shipped
from benchmarks.fusion.run import HERE, interval
from models.embedded.checker import check
from models.embedded.world import TIERS
from models.engine.scoring import ScoringEngine
from models.fusion.regions import segments
from router.prompts.phrases import object_phrases
from router.types import Generate

MODELS = ("sd15", "sdxl", "flux")
SEEDS = 4  # of the outcomes' test split; the batches are those of that run


def main() -> None:
    """Choose four ways, and store how often each is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=CACHE / "test")
    folder = parser.parse_args().outcomes
    scorer = ScoringEngine(shipped()[0][SCORER], threads=1).scorer
    by_tier = {tier: prompts_of("test", tier, 200) for tier in TIERS}
    ranks = range(max(map(len, by_tier.values())))
    drawn = iter([(t, by_tier[t][k], s) for k in ranks for t in TIERS if k < len(by_tier[t]) for s in range(SEEDS)])
    rows = []
    while batch := list(islice(drawn, BATCH)):
        pixels = {m: load_file(picture_file(folder, m, Generate(m), batch))["pixels"] for m in MODELS}
        for k, (tier, prompt, seed) in enumerate(batch):
            if seed or tier != "counts":
                continue
            pictures = [pixels[model][k] for model in MODELS]
            right = [float(check(picture, prompt.scene).exact) for picture in pictures]
            scores = np.array(scorer.score(pictures, prompt.text))
            counts = [len(segments(picture, 12)) for picture in pictures]
            # Without a majority, the strongest model's count.
            majority = max(counts, key=counts.count) if len(set(counts)) < len(counts) else counts[1]
            asked = sum(phrase.count for phrase in object_phrases(prompt.text))
            chosen = [
                int(np.argmax(scores - 10.0 * (np.array(counts) != want)))
                if want is not None
                else int(np.argmax(scores))
                for want in (None, majority, asked)
            ]
            rows.append([*right, *(right[place] for place in chosen)])
    table = np.array(rows)
    names = (*MODELS, "verifier", "majority, then verifier", "count of the prompt, then verifier")
    found = {
        "exact": {name: interval(table[:, k].tolist()) for k, name in enumerate(names)},
        "gained over the verifier": {
            name: interval((table[:, k] - table[:, 3]).tolist()) for k, name in enumerate(names) if k > 3
        },
    }
    (HERE / "voting.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
