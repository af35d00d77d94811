"""A LoRA from captioned pictures: low-rank additions to the layers of one network, by peft.

A run goes on where it was ended: beside the style `NAME.safetensors`, `NAME.state.safetensors` has the additions and
the optimizer's memory, with the step and the last losses in its metadata. What a step sees follows from seed and step
alone, so a run that was ended and resumed comes to the same weights as one that was not. One that is resumed for more
steps goes on from there, at the pace of the longer run. A model is trained untuned, whatever tunes it for serving.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.styles.backbones import BACKBONES, Backbone
from models.styles.pictures import Example, read_pixels
from models.weights.loading import load_pipeline
from router.errors import RequestError
from router.types import ModelCard

DROPOUT = 0.1
"""The share of captions that are left out, so that guidance still has something to guide away from."""
WARM_UP, COOL_DOWN = 20, 0.4
SAVE_EVERY_S = 20.0
ENCODED_AT_ONCE = 16
ADAPTER = "style"
"""What peft calls the additions; the style's own id may have dots, which names of modules may not."""


@dataclass(frozen=True)
class Recipe:
    """How a style is trained. rank: of each addition;   rate: the highest learning rate;   batch: pictures a step"""

    rank: int = 8
    steps: int = 600
    rate: float = 2e-3
    batch: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What came of a run. loss: mean of the last tenth of its steps;   seconds: of this invocation"""

    path: Path
    step: int
    loss: float
    seconds: float


OnStep = Callable[[int, float], None]
"""(steps done, loss) after each step."""


def train_lora(
    card: ModelCard,
    pictures: Sequence[Example],
    folder: Path,
    name: str,
    recipe: Recipe,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> Trained:
    """Train or resume a LoRA for the model of `card`; written to `folder/name.safetensors` in diffusers' format.

    Raises `RequestError` if the family cannot be trained, or the folder holds a run of other settings.
    """
    import torch
    from peft import LoraConfig

    if card.family not in BACKBONES or card.role != "base":
        raise RequestError(
            f"model {card.id!r} is a {card.role} of family {card.family!r}; a LoRA can be trained for base models of "
            f"{', '.join(BACKBONES)}",
            "model",
        )
    backbone, state = BACKBONES[card.family], folder / f"{name}.state.safetensors"
    began = time.monotonic()
    pipe = load_pipeline(replace(card, tuning={}, tuned="", changes=""), device, "float32")
    network = getattr(pipe, FAMILIES[card.family].denoiser)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    latents, words = _encoded(pipe, card, pictures, backbone)
    torch.manual_seed(recipe.seed)
    layers = _layers(network, backbone)
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, init_lora_weights="gaussian", target_modules=layers)
    network.add_adapter(config, ADAPTER)
    trained = {key: p for key, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(list(trained.values()), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)
    asked = _fingerprint(card, recipe, pictures)
    step, losses = _resume(state, trained, optimizer, asked)
    saved = time.monotonic()
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * _pace(step, recipe.steps)
        loss = backbone.loss(pipe, *_batch(latents, words, recipe, step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
        step += 1
        losses = [*losses, loss.item()][-max(1, recipe.steps // 10) :]
        if on_step is not None:
            on_step(step, losses[-1])
        if time.monotonic() - saved > SAVE_EVERY_S or step == recipe.steps:
            _save(state, trained, optimizer, {"asked": asked, "step": step, "losses": losses})
            saved = time.monotonic()
    network.requires_grad_(False)
    path = _export(pipe, network, folder, name)
    return Trained(path, step, sum(losses) / len(losses), time.monotonic() - began)


def _layers(network: Any, backbone: Backbone) -> list[str]:
    """The layers of the network's blocks that a style may change, by their whole names."""
    import torch

    return [
        name
        for name, part in network.named_modules()
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)
        and "block" in name
        and any(name.endswith("." + end) for end in backbone.layers)
    ]


def _encoded(pipe: Any, card: ModelCard, pictures: Sequence[Example], backbone: Backbone) -> tuple[Any, dict[str, Any]]:
    """Latents (N, C, h, w) and what is read of the captions (N + 1, ...), the last of which is no caption."""
    import torch

    width, height = card.native_size
    config = pipe.vae.config
    shift = getattr(config, "shift_factor", None) or 0.0
    latents, words = [], []
    captions = [one.caption for one in pictures] + [""]
    with torch.no_grad():
        for start in range(0, len(pictures), ENCODED_AT_ONCE):
            part = [one.path for one in pictures[start : start + ENCODED_AT_ONCE]]
            pixels = torch.from_numpy(read_pixels(part, width, height)).to(pipe.device)
            latents.append((pipe.vae.encode(pixels).latent_dist.mean - shift) * config.scaling_factor)
        for start in range(0, len(captions), ENCODED_AT_ONCE):
            words.append(backbone.words(pipe, captions[start : start + ENCODED_AT_ONCE]))
    return torch.cat(latents), {key: torch.cat([one[key] for one in words]) for key in words[0]}


def _batch(latents: Any, words: dict[str, Any], recipe: Recipe, step: int) -> tuple[Any, dict[str, Any], Any]:
    """What a step sees: latents, what is read of their captions, and the generator of its noise."""
    import torch

    rng = random.Random(f"{recipe.seed} {step}")
    n = len(latents)
    chosen = rng.sample(range(n), recipe.batch) if recipe.batch <= n else rng.choices(range(n), k=recipe.batch)
    read = [n if rng.random() < DROPOUT else number for number in chosen]
    generator = torch.Generator("cpu").manual_seed(recipe.seed * 1_000_003 + step)
    return latents[chosen], {key: value[read] for key, value in words.items()}, generator


def _pace(step: int, steps: int) -> float:
    """The share of the highest learning rate: a short warm-up, and a fall to a twentieth at the end."""
    left = (steps - step) / max(1.0, COOL_DOWN * steps)
    return min(1.0, (step + 1) / WARM_UP) * max(0.05, min(1.0, left))


def _fingerprint(card: ModelCard, recipe: Recipe, pictures: Sequence[Example]) -> dict[str, str]:
    """What a run must agree in with the one that it goes on from."""
    seen = hashlib.sha256()
    for one in pictures:
        for part in (one.path.name.encode(), one.caption.encode(), one.path.read_bytes()):
            seen.update(hashlib.sha256(part).digest())
    return {
        "model": f"{card.id} {card.source} {card.revision}",
        "recipe": f"{recipe.rank} {recipe.batch} {recipe.rate} {recipe.seed}",
        "pictures": f"{len(pictures)} {seen.hexdigest()}",
    }


def _resume(path: Path, trained: dict[str, Any], optimizer: Any, asked: dict[str, str]) -> tuple[int, list[float]]:
    """Steps done by an earlier run of this style, whose state is taken over, and their last losses; 0 if there is
    none."""
    import torch
    from safetensors import safe_open

    if not path.exists():
        return 0, []
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["run"])
        if told["asked"] != asked:
            other = ", ".join(key for key in asked if told["asked"].get(key) != asked[key])
            raise RequestError(
                f"{path} is of a run with another {other}; give another --out, or delete that file to begin anew", "out"
            )
        step, losses = int(told["step"]), [float(loss) for loss in told["losses"]]
        with torch.no_grad():
            for key, parameter in trained.items():
                parameter.copy_(file.get_tensor(f"weight.{key}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    **{m: file.get_tensor(f"{m}.{key}").to(parameter) for m in ("exp_avg", "exp_avg_sq")},
                }
    return step, losses


def _save(path: Path, trained: dict[str, Any], optimizer: Any, told: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    tensors = {f"weight.{key}": p.detach().contiguous() for key, p in trained.items()}
    for moment in ("exp_avg", "exp_avg_sq"):
        tensors |= {f"{moment}.{key}": optimizer.state[p][moment].contiguous() for key, p in trained.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    save_file(tensors, beside, {"run": json.dumps(told)})
    beside.replace(path)


def _export(pipe: Any, network: Any, folder: Path, name: str) -> Path:
    """The LoRA in half precision, as diffusers writes it."""
    import torch
    from peft.utils import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.to(torch.float16).contiguous()
        for key, value in get_peft_model_state_dict(network, adapter_name=ADAPTER).items()
    }
    part = "transformer_lora_layers" if hasattr(pipe, "transformer") else "unet_lora_layers"
    path = folder / f"{name}.safetensors"
    type(pipe).save_lora_weights(folder, **{part: state}, weight_name=path.name, safe_serialization=True)
    return path
