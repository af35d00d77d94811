"""Does it help to choose by the number of objects? On the pictures that benchmarks.embedded_outcomes has drawn.

    python -m benchmarks.fusion.voting [--quick]

Of the pictures of SD1.5, SDXL and FLUX for the prompts with counts (one seed): the verifier chooses among all, among
those whose number of objects is the majority's, and among those with the number that the prompt asks for. Writes
`voting.json`. `--quick` draws what it needs itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.run import CACHE, SCORER, drawn_before, shipped
from benchmarks.fusion.run import HERE, interval
from models.embedded.checker import check
from models.engine.scoring import ScoringEngine
from models.fusion.regions import segments
from router.prompts.phrases import object_phrases
from router.types import Generate

MODELS = ("sd15", "sdxl", "flux")


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--outcomes", type=Path, default=CACHE / "test", help="pictures (default: %(default)s)")
    chosen = made.parse_args(argv)
    with results(chosen, HERE, is_full(made, chosen, but=("outcomes",))) as out:
        study(out / "pictures" if chosen.quick else chosen.outcomes, out, chosen.quick)


def study(folder: Path, out: Path, quick: bool) -> None:
    """Choose four ways, and store how often each is right."""
    scorer = ScoringEngine(shipped()[0][SCORER], threads=1).scorer
    rows = []
    for batch, files in drawn_before(folder, {model: Generate(model) for model in MODELS}, quick):
        pixels = {model: load_file(files[model])["pixels"] for model in MODELS}
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
    (out / "voting.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
