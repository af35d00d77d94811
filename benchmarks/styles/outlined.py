"""Whether the style `outlined` outlines, and what it costs in right pictures; by the exact checkers.

    python -m benchmarks.styles.outlined [--style FILE] [--quick]

Held-out prompts of four tiers in equal parts, one seed each, drawn at several weights. Two measures of the style:

- `outlined`: every object of the picture is nearer to its shape's outlined rendering than to the filled one
  (`models.embedded.outlines.outlined_objects`). Asked are prompts whose objects would look otherwise in outlines
  (`shows_outlines`), which the prompt's own scene says, not the picture.
- `hollow`: less than half of what lies deep inside the contours has a colour (`fill_share`), of prompts without rings,
  as it was measured until 0.2. It is blind where lines leave no inside (`no_inside`), and counts that as filled.

Weight 0 is marked by the checker of filled shapes, weight 1 and more by that of outlined ones, weights between by
either, whichever is kinder. `control` is what the autoencoder leaves of true outlined pictures: no style can be better
than that. `lost` is how many fewer pictures are right than without the style at the card's guidance, of the same
prompts and seeds, with an interval by resampling prompts. The last row has two styles at once.

The weight of the card, by which those that are asked for are multiplied, was chosen on the prompts of the first seed of
`STUDIES`; those of the others chose nothing. The rows of a weight of the card that is not the shipped one are of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import is_full, parser, results
from benchmarks.styles.drawing import draw_all
from models import load_card, load_engine
from models.embedded.checker import check, find_objects
from models.embedded.outcomes import Prompt, held_out_prompts, wilson
from models.embedded.outlines import check_outlined, fill_share, outlined_objects, render_outlined, shows_outlines
from models.embedded.world import TIERS, Scene, sample_scene
from models.styles.cards import load_styles
from router.types import Style, spelled, wearing

HOME = Path(__file__).resolve().parent
SEED = 9107
STUDIES = (
    (9001, 220, (0.6, 0.7, 0.8, 0.9, 1.0, 1.2)),
    (SEED, 440, (0.85, 0.9, 1.0)),
    (5147, 440, (0.85, 0.9, 1.0)),
)
"""Seeds of prompts and pictures, how many prompts of four tiers, and weights of the card that are tried on them."""
FURTHER = ((0.5, 1.5), (1.0, 3.0))
"""Weights that are asked for of the shipped card, each with the guidance at which it is drawn; 3 is the model's."""
GUIDANCE = 1.5
RESAMPLED = 4000
ASKED = TIERS[:-1]  # the model gets counts wrong in any style


def drawn(
    engine: Any, prompts: Sequence[Prompt], styles: Mapping[str, float], guidance: float, first: int
) -> list[NDArray[np.uint8]]:
    """One picture a prompt, with seeds from `first`, in styles with their weights."""
    told = {"guidance_scale": guidance, "style": spelled(wearing(styles)) or None}
    return draw_all(engine, [{"prompt": one.text, "seed": first + k, **told} for k, one in enumerate(prompts)])


@dataclass(frozen=True)
class Seen:
    """What was drawn of each scene.

    right: is it as the scene says;   outlined: is each of its objects, of scenes that are asked
    fills: what is filled deep inside, of scenes without rings, None where there is no inside
    """

    right: NDArray[np.bool_]
    outlined: list[bool]
    fills: list[float | None]


def looked(pictures: Sequence[NDArray[np.uint8]], scenes: Sequence[Scene], weight: float) -> Seen:
    """Mark pictures of a style of this weight."""
    right, outlined, fills = [], [], []
    for picture, scene in zip(pictures, scenes, strict=True):
        filled = weight < 1 and check(picture, scene).exact
        right.append(filled or (weight > 0 and check_outlined(picture, scene).exact))
        if shows_outlines(scene):
            objects = outlined_objects(picture, scene)
            outlined.append(bool(objects) and all(objects))
        if all(thing.shape != "ring" for thing in scene.things):
            fills.append(fill_share(picture))
    return Seen(np.array(right), outlined, fills)


def row(name: str, seen: Seen, weight: float, usual: Seen | None = None) -> dict[str, Any]:
    """Shares of right and of outlined pictures, with 95 % intervals."""
    known = [fill for fill in seen.fills if fill is not None]
    told: dict[str, Any] = {"what": name, "weight": weight}
    hollow = [fill is not None and fill < 0.5 for fill in seen.fills]
    for key, answers in (("exact", seen.right.tolist()), ("outlined", seen.outlined), ("hollow", hollow)):
        told |= {key: sum(answers) / max(1, len(answers)), f"{key}_n": len(answers)}
        told |= {f"{key}_95": [round(end, 3) for end in wilson(sum(answers), len(answers))]}
    told |= {"no_inside": len(seen.fills) - len(known), "mean_fill": float(np.mean(known)) if known else None}
    if usual is not None:
        fewer = usual.right.astype(float) - seen.right
        drawn = np.random.default_rng(SEED).integers(0, len(fewer), (RESAMPLED, len(fewer)))
        ends = np.quantile(fewer[drawn].mean(1), (0.025, 0.975))
        told |= {"lost": float(fewer.mean()), "lost_95": [round(float(end), 3) for end in ends]}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in told.items()}


def composed(engine: Any, prompts: Sequence[Prompt], first: int) -> dict[str, Any]:
    """Of prompts that say no background: how many are outlined, have the black one of `dusk`, and both, in both."""
    free = [one for one in prompts if one.scene.background is None and shows_outlines(one.scene)]
    made: dict[str, list[bool]] = {"outlined": [], "black": [], "both": []}
    for one, picture in zip(free, drawn(engine, free, {"outlined": 1, "dusk": 1}, 1.5, first), strict=True):
        objects, black = outlined_objects(picture, one.scene), find_objects(picture)[0] == "black"
        lines = bool(objects) and all(objects)
        for key, answer in (("outlined", lines), ("black", black), ("both", lines and black)):
            made[key].append(answer)
    told: dict[str, Any] = {"what": "outlined and dusk, guidance 1.5", "n": len(free)}
    for key, answers in made.items():
        share = round(sum(answers) / max(1, len(answers)), 4)
        told |= {key: share, f"{key}_95": [round(end, 3) for end in wilson(sum(answers), len(answers))]}
    return told


def control(vae: Any, n: int) -> Seen:
    """True outlined pictures after encoding and decoding."""
    from models.embedded.training.latents import decode, encode

    rng = random.Random(SEED)
    scenes = [sample_scene(rng, ASKED[number % len(ASKED)]) for number in range(n)]
    coded = decode(vae, encode(vae, np.stack([render_outlined(scene) for scene in scenes])))
    return looked(list(coded), scenes, 1.0)


def weighed(engine: Any, style: Style, seed: int, count: int, weights: Sequence[float]) -> list[dict[str, Any]]:
    """A row without the style, and one for each weight of its card; of the shipped one, also for what else may be asked
    of it."""
    prompts = [one for tier in ASKED for one in held_out_prompts(tier, count // len(ASKED), seed)]
    scenes, rows = [one.scene for one in prompts], []
    usual = looked(drawn(engine, prompts, {}, 3.0, seed), scenes, 0.0)
    ways = [(weight, 1.0, GUIDANCE) for weight in weights]
    if seed == SEED:
        ways += [(style.weight, *way) for way in FURTHER]
    for card, weight, guidance in [(style.weight, 0.0, 3.0), *ways]:
        engine.card = replace(engine.card, styles={**engine.card.styles, style.id: replace(style, weight=card)})
        seen = looked(drawn(engine, prompts, {style.id: weight}, guidance, seed), scenes, weight) if weight else usual
        rows.append({"seed": seed, "card": card, **row(f"guidance {guidance:g}", seen, weight, usual)})
        print(json.dumps(rows[-1]), flush=True)
    engine.card = replace(engine.card, styles={**engine.card.styles, style.id: style})
    if seed == SEED:
        rows.append({"seed": seed, "card": style.weight, **composed(engine, prompts, seed)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--style", type=Path, help="other weights than those that are shipped")
    asked = made.parse_args(argv)
    styles = load_styles()
    if asked.style is not None:
        styles["outlined"] = replace(styles["outlined"], source={"file": str(asked.style.resolve())})
    engine: Any = load_engine(replace(load_card("embedded/sd15"), styles=styles), threads=1)
    studies = ((SEED, len(ASKED), (1.0,)),) if asked.quick else STUDIES
    with results(asked, HOME, is_full(made, asked)) as out:
        rows = [row("control", control(engine._pipe.vae, studies[-1][1]), 1.0)]
        for seed, count, weights in studies:
            rows += weighed(engine, styles["outlined"], seed, count, weights)
        (out / "outlined.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")


if __name__ == "__main__":
    main()
