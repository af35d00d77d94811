"""What shrinking the differences between recipes is worth: choices by raw and by shrunk predictions, on test prompts.

    python -m benchmarks.embedded_outcomes.contrasts [--quick] [--json benchmarks/embedded_outcomes/contrasts.json]

The shipped artefact was trained on `outcomes_train.csv`, its reliabilities too. For each price of a second, the recipe
with the highest predicted marks less its price is taken on every prompt of `outcomes_test.csv`, by the predictions as
they are served and by the same without shrinking; what it really had (four seeds) and took (`seconds.json`) is
averaged. The gain of one over the other is at the same price; the interval is a bootstrap over prompts. Random mixing
of the fixed recipes stands beside.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embedded_outcomes.train_router import ARTIFACT, HERE, read
from router.bootstrap.dial import height
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact

PRICES = (3.0, 1.0, 0.5, 0.3, 0.1, 0.03, 0.003)
RESAMPLES = 2_000
Array = NDArray[np.float64]


def measured(limit: int | None) -> tuple[Array, Array, Array, Array]:
    """(shrunk, raw, real) marks (prompts, recipes) and the recipes' seconds."""
    marks = read(HERE / "outcomes_test.csv")
    told = json.loads((HERE / "seconds.json").read_text())
    served = QualityPredictor(load_artifact(ARTIFACT))
    plain = QualityPredictor(load_artifact(ARTIFACT))
    plain._contrasts = None
    columns, embedder = [name for name in served.columns if name in told], MiniLMEmbedder()
    prompts = sorted({prompt for prompt, _ in marks})[:limit]
    found: list[list[list[float]]] = [[], [], []]
    for prompt, vector in zip(prompts, embedder.embed(prompts), strict=True):
        for place, predictor in enumerate((served, plain)):
            rated = predictor.rated(predictor.view(prompt, lexical_features(prompt), vector))
            found[place].append([rated[name].mean for name in columns])
        found[2].append([float(np.mean(marks[prompt, name])) for name in columns])
    shrunk, raw, real = (np.array(one) for one in found)
    return shrunk, raw, real, np.array([told[name]["median"] for name in columns])


def report(limit: int | None) -> dict[str, Any]:
    """Marks and seconds of both at every price, and the gain with its interval."""
    shrunk, raw, real, seconds = measured(limit)
    rows, marks = np.arange(len(real)), real.mean(axis=0)
    draws = np.random.default_rng(3).integers(0, len(real), (RESAMPLES, len(real)))
    lines = []
    for price in PRICES:
        line: dict[str, Any] = {"price_per_s": price}
        kept = {}
        for name, predicted in (("shrunk", shrunk), ("raw", raw)):
            taken = (predicted - price * seconds).argmax(axis=1)
            kept[name] = real[rows, taken]
            cost, mean = float(seconds[taken].mean()), float(kept[name].mean())
            mixed = float(height(seconds, marks, np.array([cost]))[0])
            line[name] = {"marks": mean, "seconds": cost, "over_mixing": mean - mixed}
        difference = kept["shrunk"] - kept["raw"]
        low, high = np.percentile(difference[draws].mean(axis=1), (2.5, 97.5))
        lines.append({**line, "gain": float(difference.mean()), "gain_95": [float(low), float(high)]})
    return {"prompts": len(real), "lines": lines}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    parser.add_argument("--quick", action="store_true", help="40 prompts, nothing is written")
    chosen = parser.parse_args(argv)
    found = report(40 if chosen.quick else None)
    for line in found["lines"]:
        parts = (f"{n} {line[n]['marks']:.4f} at {line[n]['seconds']:.3f} s" for n in ("raw", "shrunk"))
        low, high = line["gain_95"]
        print(f"{line['price_per_s']:6g}/s  {'   '.join(parts)}   gain {line['gain']:+.4f} [{low:+.4f}, {high:+.4f}]")
    if chosen.json and not chosen.quick:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
