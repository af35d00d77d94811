"""Whether the style `outlined` outlines, and what it costs in right pictures; by the exact checkers.

    python -m benchmarks.styles.outlined [--prompts 120] [--style FILE.safetensors] [--quick]

Held-out prompts of four tiers in equal parts, one seed each, drawn at several weights. A picture is outlined if less
than half of what lies deep inside its contours has a colour (`models.embedded.outlines.fill_share`); prompts with rings
are not asked, since a ring has a hole in any style. Weight 0 is marked by the checker of filled shapes, weight 1 and
more by that of outlined ones, weights between by either, whichever is kinder. `outlined.json` has a row a weight.
`control` is what the autoencoder leaves of true outlined pictures: no style can be better than that.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import is_full, parser, results
from models import load_card, load_engine
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts, wilson
from models.embedded.outlines import check_outlined, fill_share, render_outlined
from models.embedded.world import TIERS, Scene, sample_scene
from models.styles.cards import load_styles
from router.types import Picture, Scalar, Step, spelled, wearing

HOME = Path(__file__).resolve().parent
SEED = 4711
WAYS = ((0.0, 3.0), (0.0, 1.5), (0.25, 1.5), (0.5, 1.5), (0.75, 1.5), (1.0, 1.5), (1.0, 3.0))
"""Weights, each with the guidance at which it is drawn; 3 is the card's."""
ASKED = TIERS[:-1]  # the model gets counts wrong in any style


def drawn(engine: Any, prompts: Sequence[Prompt], weight: float, guidance: float) -> list[NDArray[np.uint8]]:
    """One picture a prompt, by its place as seed."""
    made = []
    for seed, prompt in enumerate(prompts):
        settings: dict[str, Scalar] = {"prompt": prompt.text, "seed": SEED + seed, "guidance_scale": guidance}
        settings["style"] = spelled(wearing({"outlined": weight})) or None
        value = engine.run(Step("made", "generate", "sd15", (), "image", settings)).value
        assert isinstance(value, Picture)
        made.append(value.pixels)
    return made


def row(name: str, pictures: Sequence[NDArray[np.uint8]], scenes: Sequence[Scene], weight: float) -> dict[str, Any]:
    """Shares of right and of outlined pictures, with 95 % intervals."""
    marked = []
    for picture, scene in zip(pictures, scenes, strict=True):
        filled = weight < 1 and check(picture, scene).exact
        marked.append(filled or (weight > 0 and check_outlined(picture, scene).exact))
    plain = [p for p, s in zip(pictures, scenes, strict=True) if all(thing.shape != "ring" for thing in s.things)]
    fills = [fill_share(picture) for picture in plain]
    outlined = sum(fill is not None and fill < 0.5 for fill in fills)
    known = [fill for fill in fills if fill is not None]
    told = {"what": name, "weight": weight, "exact": sum(marked) / len(marked), "n": len(marked)}
    told |= {"exact_95": [round(end, 3) for end in wilson(sum(marked), len(marked))]}
    told |= {"outlined": outlined / max(1, len(fills)), "asked": len(fills), "no_inside": len(fills) - len(known)}
    told |= {"outlined_95": [round(end, 3) for end in wilson(outlined, len(fills))]}
    told |= {"mean_fill": float(np.mean(known)) if known else None}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in told.items()}


def control(vae: Any, n: int) -> dict[str, Any]:
    """True outlined pictures after encoding and decoding."""
    from models.embedded.training.latents import decode, encode

    rng = random.Random(SEED)
    scenes = [sample_scene(rng, ASKED[number % len(ASKED)]) for number in range(n)]
    coded = decode(vae, encode(vae, np.stack([render_outlined(scene) for scene in scenes])))
    return row("control", list(coded), scenes, 1.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=120, help="in all, of four tiers")
    made.add_argument("--style", type=Path, help="other weights than those that are shipped")
    asked = made.parse_args(argv)
    count, ways = (4, WAYS[:1] + WAYS[-1:]) if asked.quick else (asked.prompts, WAYS)
    styles = load_styles()
    if asked.style is not None:
        styles["outlined"] = replace(styles["outlined"], source={"file": str(asked.style.resolve())})
    engine = load_engine(replace(load_card("embedded/sd15"), styles=styles), threads=1)
    prompts = [prompt for tier in ASKED for prompt in held_out_prompts(tier, count // len(ASKED), SEED)]
    scenes = [prompt.scene for prompt in prompts]
    with results(asked, HOME, is_full(made, asked)) as out:
        rows = [control(engine._pipe.vae, len(prompts))]  # type: ignore[attr-defined]
        for weight, guidance in ways:
            rows.append(row(f"guidance {guidance:g}", drawn(engine, prompts, weight, guidance), scenes, weight))
            print(json.dumps(rows[-1]), flush=True)
        (out / "outlined.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")


if __name__ == "__main__":
    main()
