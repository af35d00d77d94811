"""Students that draw in few steps without guidance what their teachers draw in many with it.

Trajectories of the teacher are drawn first, and only those whose picture the checker finds exactly right are learned
from. The student's one Euler step has to land where the teacher's several steps do: progressive distillation
(https://arxiv.org/abs/2202.00512) of a guided model (https://arxiv.org/abs/2210.03142). For SDXL in two stages: eight
guided steps become two without guidance, and these two become one. For FLUX in one: eight guided steps become four.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.embedded.captions import caption
from models.embedded.checker import check
from models.embedded.training import latents
from models.embedded.training.diffusion import BETAS, FLOW_SHIFT, Denoising
from models.embedded.world import TIERS, Scene, sample_scene

CHUNK = 128
"""Trajectories of one file."""
BATCH = 32


@dataclass(frozen=True)
class Distillation:
    """`steps` of the student stand for `grid` steps of the teacher, a multiple; at guidance 1 that is not guided.

    `flow`: latents and noise are mixed as in flow matching, whose mixtures keep unit size, and not added.
    """

    steps: int
    grid: int
    guidance: float
    flow: bool = False

    def sigmas(self) -> Tensor:
        """Noise of the teacher's grid in its scheduler's terms, (grid + 1,), falling to 0."""
        return self._scheduler().sigmas

    def times(self) -> Tensor:
        """What the denoiser is told at each step of the grid, (grid,): sigmas in flow matching, else timesteps."""
        made = self._scheduler()
        return made.sigmas[:-1] if self.flow else made.timesteps

    def size(self, sigmas: Tensor) -> Tensor:
        """The deviation of noisy latents, by which they are divided for the denoiser."""
        return torch.ones_like(sigmas) if self.flow else (1 + sigmas**2).sqrt()

    def _scheduler(self) -> EulerDiscreteScheduler | FlowMatchEulerDiscreteScheduler:
        if self.flow:
            flow = FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT)
            flow.set_timesteps(sigmas=np.linspace(1, 1 / self.grid, self.grid))  # as FluxPipeline does
            return flow
        made = EulerDiscreteScheduler(**BETAS, prediction_type="epsilon", timestep_spacing="trailing")
        made.set_timesteps(self.grid)
        return made


@dataclass(frozen=True)
class Trajectories:
    """States (N, K + 1, C, 16, 16), evenly on the teacher's grid, of unit size, and their captions."""

    states: Tensor
    captions: list[str]


def asked(chunk: int, mix: tuple[float, ...]) -> list[tuple[Scene, str]]:
    """Scenes and captions of a chunk; they depend on its number only. Every fourth is of small stars and rings."""
    rng = random.Random(f"trajectories {chunk}")
    scenes = [sample_scene(rng, tier) for tier in rng.choices(TIERS, mix, k=CHUNK)]
    if chunk % 4 == 3:
        scenes = [scene if _fine(scene) else next(_fine_scenes(rng, mix)) for scene in scenes]
    return [(scene, caption(scene, rng)) for scene in scenes]


def _fine(scene: Scene) -> bool:
    """Does it ask for a small star or ring? The teacher draws few of them right, so they need more tries."""
    return any(thing.size == "small" and thing.shape in ("star", "ring") for thing in scene.things)


def _fine_scenes(rng: random.Random, mix: tuple[float, ...]) -> Iterator[Scene]:
    while True:
        scene = sample_scene(rng, rng.choices(TIERS, mix)[0])
        if _fine(scene):
            yield scene


@torch.no_grad()
def guided(teacher: Denoising, how: Distillation, captions: list[str], start: Tensor) -> Tensor:
    """The teacher's way from unit noise `start` (N, C, 16, 16): all its states (N, grid + 1, C, 16, 16)."""
    passes = 1 if how.guidance == 1 else 2
    n = len(captions)
    sigmas, sizes = how.sigmas(), how.size(how.sigmas())
    read = teacher.read(captions + [""] * (n * (passes - 1)))
    assert read.pooled is not None
    state = start * sigmas[0]
    kept = [state / sizes[0]]
    for k, t in enumerate(how.times()):
        seen = kept[-1].repeat(passes, 1, 1, 1)
        guess = teacher.denoise(seen, t.expand(passes * n), read.hidden, read.pooled)
        if passes == 2:
            with_, without = guess.chunk(2)
            guess = without + how.guidance * (with_ - without)
        state = state + (sigmas[k + 1] - sigmas[k]) * guess
        kept.append(state / sizes[k + 1])
    return torch.stack(kept, 1)


def write_chunk(
    teacher: Denoising, vae: AutoencoderKL, how: Distillation, mix: tuple[float, ...], chunk: int, folder: Path
) -> float:
    """Draw one chunk and keep the trajectories of exact pictures in its file; their share."""
    pairs = asked(chunk, mix)
    start = torch.randn(
        (CHUNK, vae.config.latent_channels, 16, 16), generator=torch.Generator().manual_seed(2_000_000 + chunk)
    )
    parts = []
    for k in range(0, CHUNK, BATCH):
        captions = [said for _, said in pairs[k : k + BATCH]]
        parts.append(guided(teacher, how, captions, start[k : k + BATCH]))
    states = torch.cat(parts)
    pictures = latents.decode(vae, latents.raw(vae, states[:, -1]))
    right = torch.tensor([check(p, scene).exact for p, (scene, _) in zip(pictures, pairs, strict=True)])
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{chunk:05d}.part"
    said = {"captions": json.dumps([text for (_, text), kept in zip(pairs, right.tolist(), strict=True) if kept])}
    save_file({"states": states[right][:, :: how.grid // how.steps].half().contiguous()}, part, said)
    part.rename(part.with_suffix(".safetensors"))
    return float(right.float().mean())


def read_chunks(folder: Path) -> Trajectories:
    """All trajectories of a folder. Raises FileNotFoundError naming the command that draws them."""
    states, captions = [], []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as stored:
            states.append(stored.get_tensor("states"))
            captions += json.loads(stored.metadata()["captions"])
    if not states:
        raise FileNotFoundError(f"{folder}: no trajectories yet; run `python -m models.embedded.train trajectories`")
    return Trajectories(torch.cat(states), captions)


def batches(trajectories: Trajectories, how: Distillation, size: int, rng: random.Random) -> Iterator[list[int]]:
    """Endless batches of numbers trajectory * steps + step; every pair once before any comes again."""
    total = len(trajectories.captions) * how.steps
    while True:
        order = rng.sample(range(total), total)
        for k in range(0, total - size + 1, size):
            yield order[k : k + size]


def distillation_loss(student: Denoising, how: Distillation, known: Trajectories, pairs: list[int]) -> Tensor:
    """How far the student's steps land from the teacher's, in units of the noisy latents there."""
    every = how.grid // how.steps
    sigmas, times = how.sigmas()[::every], how.times()[::every]
    index = torch.from_numpy(np.array(pairs))
    which, step = index // how.steps, index % how.steps
    states = known.states[:, :: (known.states.shape[1] - 1) // how.steps]
    here, there = states[which, step].float(), states[which, step + 1].float()
    now, then = sigmas[step].view(-1, 1, 1, 1), sigmas[step + 1].view(-1, 1, 1, 1)
    # The text encoders stay those of the teacher: what words mean need not be learned again.
    with torch.no_grad():
        read = student.read([known.captions[k] for k in which.tolist()])
    assert read.pooled is not None
    guess = student.denoise(here, times[step], read.hidden, read.pooled)
    landed = here * how.size(now) + (then - now) * guess
    return ((landed / how.size(then) - there) ** 2).mean()
