"""Does the edge ControlNet of the embedded SD1.5 place shapes where its map has them?

    python -m benchmarks.styles.control [--prompts 100] [--quick]

Held-out prompts, one seed each. The map has the edges of a true render of the prompt's scene, so it says where and of
what shape, and the words say the colours. `overlap` is the intersection over union of what is drawn and of what the
render has, in pixels that are not background; `placed` the share of the render's objects at whose place (centre within
4 pixels) an object of the same shape and colour is found. Both stand beside those of the same prompts and seeds
without the map, and with a map that belongs to another prompt. `control.json` has a row a way, with 95 % intervals
over prompts. `--quick` takes a ControlNet that learned nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from numpy.typing import NDArray

from benchmarks.command import is_full, parser, results
from benchmarks.fusion.run import interval
from models.embedded.checker import check, find_objects
from models.embedded.evaluate import SETTINGS, load
from models.embedded.outcomes import Prompt, held_out_prompts
from models.embedded.train import WEIGHTS
from models.embedded.training.control import as_input, edges, new_control
from models.embedded.world import SIZE, TIERS, Scene, render

HOME = Path(__file__).resolve().parent
SEED, BATCH, NEAR = 5150, 20, 4.0
WAYS = {"no map": 0.0, "map, half": 0.5, "map": 1.0, "another prompt's map": 1.0}
Pixels = NDArray[np.uint8]


def pipeline(folder: Path, untrained: bool = False) -> StableDiffusionControlNetPipeline:
    """SD1.5-tiny with the ControlNet of a folder, float32, silent; `untrained`: with one that says nothing.

    Raises SystemExit if the folder has none, with the command that trains it.
    """
    base = load(WEIGHTS / "sd15", "sd15")
    if untrained:
        guide = new_control(base.unet)
    elif (folder / "config.json").exists():
        guide = ControlNetModel.from_pretrained(folder, dtype=torch.float32)
    else:
        raise SystemExit(f"{folder} has no ControlNet: train it with `python -m models.embedded.train control`")
    made = StableDiffusionControlNetPipeline(**base.components, controlnet=guide, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def drawn(pipe: Any, prompts: Sequence[Prompt], maps: Sequence[Pixels], scale: float) -> list[Pixels]:
    """One picture a prompt, by its place as seed."""
    made: list[Pixels] = []
    for start in range(0, len(prompts), BATCH):
        part = range(start, min(start + BATCH, len(prompts)))
        given = as_input([maps[k] for k in part])
        pictures = pipe(
            [prompts[k].text for k in part],
            image=given,
            height=SIZE,
            width=SIZE,
            num_inference_steps=SETTINGS["sd15"].steps,
            guidance_scale=SETTINGS["sd15"].guidance,
            controlnet_conditioning_scale=scale,
            generator=[torch.Generator().manual_seed(SEED + k) for k in part],
            output_type="np",
        ).images
        made += list(np.rint(pictures * 255).astype(np.uint8))
    return made


def filled(picture: Pixels) -> NDArray[np.bool_]:
    """Where a picture is not its background, (H, W)."""
    border = np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1])).astype(np.float32)
    return np.asarray(np.abs(picture - np.median(border, axis=0)).max(2) > 64)


def overlap(picture: Pixels, wanted: Pixels) -> float:
    """Intersection over union of what two pictures have before their backgrounds."""
    mine, other = filled(picture), filled(wanted)
    return float((mine & other).sum() / max(1, (mine | other).sum()))


def placed(picture: Pixels, scene: Scene) -> float:
    """The share of a scene's objects that a picture has at their places."""
    _, found = find_objects(picture)
    hits = [
        any(
            one.colour == spot.colour and one.shape == spot.shape and np.hypot(one.x - spot.x, one.y - spot.y) < NEAR
            for one in found
        )
        for spot in scene.placements
    ]
    return sum(hits) / len(hits)


def row(way: str, pictures: Sequence[Pixels], scenes: Sequence[Scene]) -> dict[str, Any]:
    """Means with intervals over prompts; with another prompt's map, `overlap` is with that prompt's render."""
    meant = scenes if way != "another prompt's map" else (*scenes[1:], scenes[0])
    told: dict[str, Any] = {"way": way, "scale": WAYS[way], "n": len(scenes)}
    told["overlap"] = interval([overlap(p, render(s)) for p, s in zip(pictures, meant, strict=True)])
    told["placed"] = interval([placed(p, s) for p, s in zip(pictures, scenes, strict=True)])
    told["exact"] = interval([float(check(p, s).exact) for p, s in zip(pictures, scenes, strict=True)])
    return told


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=200, help="in all, evenly of all tiers")
    made.add_argument("--weights", type=Path, default=WEIGHTS / "sd15-control-edges", help="another ControlNet")
    asked = made.parse_args(argv)
    count = len(TIERS) if asked.quick else asked.prompts
    prompts = [prompt for tier in TIERS for prompt in held_out_prompts(tier, count // len(TIERS), SEED)]
    scenes = [prompt.scene for prompt in prompts]
    maps = [edges(render(scene)) for scene in scenes]
    pipe = pipeline(asked.weights, untrained=asked.quick)
    with results(asked, HOME, is_full(made, asked)) as out:
        rows = []
        for way, scale in WAYS.items():
            given = [*maps[1:], maps[0]] if way == "another prompt's map" else maps
            rows.append(row(way, drawn(pipe, prompts, given, scale), scenes))
            print(json.dumps(rows[-1]), flush=True)
        (out / "control.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")


if __name__ == "__main__":
    main()
