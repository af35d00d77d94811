"""A LoRA with which SD1.5 draws in one step, or two, without guidance, used as an LCM-LoRA is
(https://arxiv.org/abs/2311.05556).

It is worn by the same pipeline with diffusers' `LCMScheduler`: each step says what the finished picture is, and all
but the last add fresh noise to that. What it learns from is not LCM's consistency between neighbouring noise levels,
though, but the ends of the teacher's own guided ways, as for the other students (`distilling.py`), and of these only
the pictures that the checker finds exactly right. Both steps are unrolled in training, so the second sees what the
first really says.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, LCMScheduler, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.embedded.checker import check
from models.embedded.training import latents
from models.embedded.training.diffusion import BETAS, Denoising
from models.embedded.training.distilling import BATCH, CHUNK, asked

RANK = 32
"""Of the additions, at most: the layers have 32 to 128 channels, so this is nearly all that could be changed."""
STEPS = 2
"""That are unrolled in training. The first alone is nearly as good, and is what the recipes of the presets take."""
TEACHER_STEPS, GUIDANCE = 6, 3.0
MIX = (0.15, 0.22, 0.25, 0.23, 0.15)
"""Of the tiers that the teacher is asked for; those it gets wrong are not learned from."""
FILE = "lcm.safetensors"


class LowRank(nn.Module):
    """A parametrization of a layer's weight: what it was, and a sum of low rank that begins at nothing."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, rows, columns)
        self.shape = weight.shape
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view(self.shape)


def added(network: nn.Module, rank: int = RANK) -> dict[str, LowRank]:
    """Put a `LowRank` onto every linear and convolutional layer; the rest of the network is frozen. By layer's name."""
    network.requires_grad_(False)
    layers = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)}
    found = {}
    for name, layer in layers.items():
        found[name] = LowRank(layer.weight, rank)
        parametrize.register_parametrization(layer, "weight", found[name])
    return found


def write_lora(additions: dict[str, LowRank], folder: Path) -> None:
    """The additions in half precision, as diffusers writes a LoRA."""
    state = {}
    for name, part in additions.items():
        rank, tail = len(part.down), part.shape[1:]
        state[f"{name}.lora_A.weight"] = part.down.detach().view(rank, *tail).half().contiguous()
        up = part.up.detach().half()
        state[f"{name}.lora_B.weight"] = (up[..., None, None] if len(tail) == 3 else up).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state, weight_name=FILE)


@torch.no_grad()
def read_lora(additions: dict[str, LowRank], folder: Path) -> None:
    """Take the additions over from a file of `write_lora`."""
    stored = load_file(folder / FILE)
    for name, part in additions.items():
        part.down.copy_(stored[f"unet.{name}.lora_A.weight"].flatten(1))
        part.up.copy_(stored[f"unet.{name}.lora_B.weight"].flatten(1))


@torch.no_grad()
def guided(teacher: Denoising, captions: list[str], start: Tensor) -> Tensor:
    """The latents (N, C, 16, 16) to which unit noise `start` comes by the teacher's guided steps."""
    solver = DPMSolverMultistepScheduler(
        **BETAS, steps_offset=1, timestep_spacing="trailing", algorithm_type="dpmsolver++", solver_order=2
    )
    solver.set_timesteps(TEACHER_STEPS)
    n = len(captions)
    hidden = teacher.read(captions + [""] * n).hidden
    state = start
    for t in solver.timesteps:
        with_, without = teacher.denoise(state.repeat(2, 1, 1, 1), t.expand(2 * n), hidden, None).chunk(2)
        state = solver.step(without + GUIDANCE * (with_ - without), t, state).prev_sample
    return state


def write_endings(teacher: Denoising, vae: AutoencoderKL, chunk: int, folder: Path) -> float:
    """Draw one chunk; keep noise, latents and captions of the exact pictures in its file. Their share."""
    pairs = asked(chunk, MIX)
    start = torch.randn((CHUNK, 4, 16, 16), generator=torch.Generator().manual_seed(3_000_000 + chunk))
    said = [text for _, text in pairs]
    made = torch.cat([guided(teacher, said[k : k + BATCH], start[k : k + BATCH]) for k in range(0, CHUNK, BATCH)])
    pictures = latents.decode(vae, latents.raw(vae, made))
    right = [check(picture, scene).exact for picture, (scene, _) in zip(pictures, pairs, strict=True)]
    kept = torch.tensor(right)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{chunk:05d}.part"
    tensors = {"start": start[kept].half(), "end": made[kept].half()}
    save_file(tensors, part, {"captions": json.dumps([text for text, one in zip(said, right, strict=True) if one])})
    part.rename(part.with_suffix(".safetensors"))
    return sum(right) / len(right)


@dataclass(frozen=True)
class Endings:
    """Unit noise and the latents that the teacher makes of it, (N, 4, 16, 16) each, with their captions."""

    start: Tensor
    end: Tensor
    captions: list[str]


def read_endings(folder: Path) -> Endings:
    """All that were drawn so far."""
    start, end, captions = [], [], []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as stored:
            start.append(stored.get_tensor("start"))
            end.append(stored.get_tensor("end"))
            captions += json.loads(stored.metadata()["captions"])
    return Endings(torch.cat(start), torch.cat(end), captions)


def batches(known: Endings, size: int, rng: random.Random) -> Iterator[list[int]]:
    """Endless batches of numbers of endings; each once before any comes again."""
    total = len(known.captions)
    while True:
        order = rng.sample(range(total), total)
        for k in range(0, total - size + 1, size):
            yield order[k : k + size]


def few_steps_loss(student: Denoising, known: Endings, chosen: list[int], steps: int = STEPS) -> Tensor:
    """How far from the teacher's latents each step of the student says that the picture ends; the mean over steps."""
    scheduler = LCMScheduler(**BETAS)
    scheduler.set_timesteps(steps)
    state, end = known.start[chosen].float(), known.end[chosen].float()
    with torch.no_grad():
        hidden = student.read([known.captions[k] for k in chosen]).hidden
    losses = []
    with parametrize.cached():
        for place, t in enumerate(scheduler.timesteps):
            kept = student.alphas[t]
            guess = student.denoise(state, t.expand(len(chosen)), hidden, None)
            said = (state - (1 - kept).sqrt() * guess) / kept.sqrt()
            losses.append((said - end).square().mean())
            if place + 1 < steps:
                then = student.alphas[scheduler.timesteps[place + 1]]
                state = then.sqrt() * said.detach() + (1 - then).sqrt() * torch.randn_like(said)
    return torch.stack(losses).mean()
