"""Measures exported folders through their real pipelines: marks per tier, seconds per picture, sheets of samples."""

import random
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, LCMScheduler
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts, mark_images, wilson
from models.embedded.tokenizers import T5_LENGTH
from models.embedded.training.architectures import MODELS
from models.embedded.training.export import PIPELINES
from models.embedded.training.few_steps import FILE
from models.embedded.training.latents import AutoencoderKL, decode, encode
from models.embedded.world import SIZE, TIERS, render, sample_scene

EVALUATION_SEED = 2027


@dataclass(frozen=True)
class Settings:
    """How a model is asked by default: denoising steps, guidance scale, and for the refiner where it takes over."""

    steps: int
    guidance: float
    takes_over: float | None = None


SETTINGS: dict[str, Settings] = {
    "sd15": Settings(6, 3.0),
    "sd15-lcm": Settings(1, 1.0),
    "sdxl": Settings(5, 3.0),
    "sdxl-turbo": Settings(1, 0.0),
    "sdxl-refiner": Settings(10, 2.0, takes_over=0.8),
    "flux": Settings(24, 4.0),
    "flux-schnell": Settings(4, 1.0),
}

WEARERS = {"sd15-lcm": "sd15"}
"""LoRAs that are measured as models are, each with the model that wears it."""


def load(folder: Path, name: str) -> DiffusionPipeline:
    """The pipeline of a folder of weights, float32, silent; for a LoRA that of its model, which wears it."""
    wearer = WEARERS.get(name)
    if wearer is not None:
        pipe = load(folder.parent / wearer, wearer)
        pipe.load_lora_weights(folder, weight_name=FILE)
        pipe.fuse_lora()
        pipe.unload_lora_weights()  # they are in the weights now, and adapters would slow each layer down
        pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
        return pipe
    pipe = PIPELINES[name].from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def reconstruction(model: AutoencoderKL, n: int) -> dict[str, float]:
    """The share of `n` fresh pictures a tier that are still exact after encoding and decoding."""
    marks = {}
    for tier in TIERS:
        rng = random.Random(f"reconstruction {tier}")
        drawn = [sample_scene(rng, tier) for _ in range(n)]
        coded = encode(model, np.stack([render(scene) for scene in drawn]))
        pictures = decode(model, coded)
        marks[tier] = float(np.mean([check(p, s).exact for p, s in zip(pictures, drawn, strict=True)]))
    return marks


def generate(
    pipe: DiffusionPipeline,
    name: str,
    prompts: list[str],
    seeds: list[int],
    settings: Settings | None = None,
    **extra: Any,
) -> NDArray[np.uint8]:
    """One picture a prompt, uint8 (N, 64, 64, 3), each from its own seed. `extra` goes to the pipeline."""
    chosen = settings or SETTINGS[name]
    asked: dict[str, Any] = {
        "prompt": prompts,
        "num_inference_steps": chosen.steps,
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        "output_type": "np",
    }
    if MODELS[WEARERS.get(name, name)].kind == "flux":
        asked |= {"guidance_scale": 1.0, "max_sequence_length": T5_LENGTH, "height": SIZE, "width": SIZE}
        asked |= {"true_cfg_scale": chosen.guidance, "negative_prompt": [""] * len(prompts)}
    else:
        asked |= {"guidance_scale": chosen.guidance}
    if name in ("sd15", "sd15-lcm", "sdxl", "sdxl-turbo"):
        asked |= {"height": SIZE, "width": SIZE}
    with torch.no_grad():
        pictures = pipe(**(asked | extra)).images
    return pictures if extra.get("output_type") == "latent" else np.rint(np.asarray(pictures) * 255).astype(np.uint8)


def refined(
    base: DiffusionPipeline, refiner: DiffusionPipeline, prompts: list[str], seeds: list[int]
) -> NDArray[np.uint8]:
    """SDXL up to the hand-over, then the refiner on its latents: uint8 (N, 64, 64, 3)."""
    share = SETTINGS["sdxl-refiner"].takes_over
    latents = generate(base, "sdxl", prompts, seeds, denoising_end=share, output_type="latent")
    return generate(refiner, "sdxl-refiner", prompts, seeds, image=latents, denoising_start=share)


def measure(
    name: str, weights: Path, n: int, settings: Settings | None = None, batch: int = 20, tiers: tuple[str, ...] = TIERS
) -> dict[str, Any]:
    """Marks on `n` held-out prompts a tier, one seed each, plus new colour-shape pairs, and seconds at batch 1.

    Keys: tiers (exact, low, high, partial, n), new_pairs, cpu_s_per_picture, settings, parameters. The refiner is
    measured after the base.
    """
    pipe = load(weights / name, name)
    base = load(weights / "sdxl", "sdxl") if name == "sdxl-refiner" else None

    def draw(prompts: list[str], seeds: list[int]) -> NDArray[np.uint8]:
        if base is not None:
            return refined(base, pipe, prompts, seeds)
        return generate(pipe, name, prompts, seeds, settings)

    def marks(prompts: list[Prompt]) -> dict[str, float]:
        found = []
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            pictures = draw([p.text for p in part], [EVALUATION_SEED + start + i for i in range(len(part))])
            found += mark_images(list(pictures), [p.scene for p in part])
        exact = sum(mark.exact for mark in found)
        low, high = wilson(exact, len(found))
        partial = float(np.mean([mark.partial for mark in found]))
        return {"exact": exact / len(found), "low": low, "high": high, "partial": partial, "n": len(found)}

    result: dict[str, Any] = {
        "tiers": {tier: marks(held_out_prompts(tier, n, EVALUATION_SEED)) for tier in tiers},
        "new_pairs": marks(held_out_prompts("one", n, EVALUATION_SEED, new_pairs=True)) if tiers == TIERS else None,
        "settings": asdict(settings or SETTINGS[name]),
        "parameters": {
            part: sum(p.numel() for p in module.parameters())
            for part, module in pipe.components.items()
            if isinstance(module, torch.nn.Module)
        },
    }
    draw(["a red circle"], [0])
    times = []
    for seed in range(5):
        start = time.process_time()
        draw(["a red circle above a blue square"], [seed])
        times.append(time.process_time() - start)
    return result | {"cpu_s_per_picture": float(np.median(times))}


def sheet(pictures: NDArray[np.uint8], texts: list[str], columns: int = 5, scale: int = 2) -> Image.Image:
    """Pictures (N, 64, 64, 3) in a grid, each over its prompt, whole."""
    side = SIZE * scale
    labels = [textwrap.wrap(text, side * 23 // 128) for text in texts]
    line = 4 + 11 * max(map(len, labels))
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (side + 12) + 12, rows * (side + line + 10) + 10), (225, 225, 230))
    pen = ImageDraw.Draw(page)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = 12 + (i % columns) * (side + 12), 10 + (i // columns) * (side + line + 10)
        page.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (x, y))
        for row, part in enumerate(label):
            pen.text((x, y + side + 1 + 11 * row), part, fill=(20, 20, 20), font_size=10)
    return page


def sample_prompts(per_tier: int) -> list[Prompt]:
    """The prompts of a sheet, tier by tier."""
    return [prompt for tier in TIERS for prompt in held_out_prompts(tier, per_tier, 7)]
