"""What the models learn: denoising losses over cached latents, with text encoders trained jointly.

Two auxiliary heads make learning fast and are not shipped. One reads the scene's attributes off the text states (which
colour, shape, size and count each thing has, which relation, position and background), so that words mean something
within seconds rather than hours. The other reads the layout of the clean picture off the denoiser's middle states
(which object stands at each of 8x8 places): what REPA (https://arxiv.org/abs/2410.06940) takes from a pretrained
vision encoder, a rendered world knows exactly.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.embedded.captions import caption
from models.embedded.tokenizers import T5_LENGTH, Encoder, clip_tokenizer, t5_tokenizer
from models.embedded.training.architectures import ModelCard, build_clip, build_denoiser, build_t5
from models.embedded.world import (
    BACKGROUNDS,
    COLOURS,
    EXTENT,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZE,
    SIZES,
    TIERS,
    Scene,
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
"""As SD1.5 and SDXL."""
WEIGHT_CEILING = 50.0
FLOW_SHIFT = 1.5
DROPOUT = 0.1
"""The share of captions replaced by "", for classifier-free guidance."""
AUXILIARY_WEIGHT = 0.1
LAYOUT_WEIGHT = 0.2
GRID = 8
"""Places a side at which the layout is read: the middle of the UNets, the tokens of the transformer."""

_SLOT_SIZES = (len(COLOURS) + 1, len(SHAPES) + 1, len(SIZES) + 1, 4)
_GLOBAL_SIZES = (len(RELATIONS) + 1, len(POSITIONS) + 1, len(BACKGROUNDS) + 1)
_SIZES = _SLOT_SIZES * 3 + _GLOBAL_SIZES


def attributes(scene: Scene) -> list[int]:
    """The scene's claims as 15 class numbers: four for each of three things, then relation, position, background."""
    row: list[int] = []
    for slot in range(3):
        thing = scene.things[slot] if slot < len(scene.things) else None
        row += [
            1 + list(COLOURS).index(thing.colour) if thing else 0,
            1 + SHAPES.index(thing.shape) if thing else 0,
            1 + SIZES.index(thing.size) if thing and thing.size else 0,
            thing.count if thing else 0,
        ]
    claims = ((scene.relation, RELATIONS), (scene.position, POSITIONS), (scene.background, tuple(BACKGROUNDS)))
    return row + [1 + names.index(claim) if claim else 0 for claim, names in claims]


class Placed(Protocol):
    """An object on the canvas: of a sampled scene, or found in a picture (without a shape when it has no clear one)."""

    @property
    def colour(self) -> str: ...
    @property
    def shape(self) -> str | None: ...
    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def radius(self) -> float: ...


def layout(placed: Iterable[Placed]) -> NDArray[np.float32]:
    """What stands at each of 8x8 places, float32 (64, 5): colour and shape as class numbers (0: nothing, or none that
    has a name), then the way to the object's centre (right, down) and its radius, in eighths of the picture."""
    cell = SIZE / GRID
    middles = (np.arange(GRID, dtype=np.float32) + 0.5) * cell
    rows = np.zeros((GRID, GRID, 5), np.float32)
    for spot in placed:
        if spot.colour not in COLOURS:
            continue
        right, down = spot.x - middles[None, :], spot.y - middles[:, None]
        near = np.hypot(right, down) < spot.radius * EXTENT.get(spot.shape or "", 1.0) + cell / 4
        rows[near, 0] = 1 + list(COLOURS).index(spot.colour)
        rows[near, 1] = 1 + SHAPES.index(spot.shape) if spot.shape else 0
        rows[near, 2] = np.broadcast_to(right / cell, near.shape)[near]
        rows[near, 3] = np.broadcast_to(down / cell, near.shape)[near]
        rows[near, 4] = spot.radius / cell
    return rows.reshape(GRID * GRID, 5)


class LayoutHead(nn.Module):
    """Reads colour, shape, and where the object's centre is, off the states of 8x8 places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, len(COLOURS) + len(SHAPES) + 5)

    def forward(self, states: Tensor, wanted: Tensor) -> Tensor:
        """Mean loss over the places; `states` (B, 64, width), `wanted` (B, 64, 5) as `layout` gives it."""
        colour, shape, place = self.read(self.norm(states)).split((len(COLOURS) + 1, len(SHAPES) + 1, 3), -1)
        classes = wanted[..., :2].long()
        loss = F.cross_entropy(colour.flatten(0, 1), classes[..., 0].flatten())
        loss = loss + F.cross_entropy(shape.flatten(0, 1), classes[..., 1].flatten())
        there = classes[..., 0] > 0
        return loss + F.smooth_l1_loss(place[there], wanted[there][:, 2:]) if there.any() else loss


class AttributeHead(nn.Module):
    """Attends over the text states with four learned queries, and reads the pooled state as well."""

    def __init__(self, width: int, pooled: int | None) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(4, width))
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(4 * width, sum(_SIZES))
        self.read_pooled = nn.Linear(pooled, sum(_SIZES)) if pooled else None

    def forward(self, hidden: Tensor, pooled: Tensor | None, wanted: Tensor) -> Tensor:
        """Mean cross entropy of all attributes; `hidden` (B, T, width), `wanted` int64 (B, 15)."""
        states = self.norm(hidden)
        looks = torch.softmax(self.queries @ states.transpose(1, 2) / states.shape[-1] ** 0.5, -1)
        logits = [self.read((looks @ states).flatten(1))]
        if self.read_pooled is not None and pooled is not None:
            logits.append(self.read_pooled(pooled))
        losses = [F.cross_entropy(part, wanted[:, i]) for one in logits for i, part in enumerate(one.split(_SIZES, 1))]
        return torch.stack(losses).mean()


@dataclass(frozen=True)
class Batch:
    """What one update sees: scaled latents (B, C, 16, 16), captions, which of them were dropped bool (B,), the scenes'
    attributes int64 (B, 15) and layouts float32 (B, 64, 5)."""

    latents: Tensor
    captions: list[str]
    dropped: Tensor
    attributes: Tensor
    layouts: Tensor


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser reads of a prompt: states (B, T, width) and, but for SD, a pooled vector (B, width)."""

    hidden: Tensor
    pooled: Tensor | None


class Denoising(nn.Module):
    """A model of the table with its text encoders and loss; `denoiser`, `text` and `text_2` are what is shipped."""

    alphas: Tensor

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.card = card
        self.tokenizer = clip_tokenizer()
        self.tokenizer_2 = t5_tokenizer() if card.kind == "flux" else self.tokenizer
        self.encode, self.encode_2 = Encoder(self.tokenizer), Encoder(self.tokenizer_2)
        self.denoiser = build_denoiser(card)
        if card.kind != "flux":
            self.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.text: Any = build_clip(card.texts[0], self.tokenizer) if card.kind != "refiner" else None
        self.text_2: Any = None
        if card.kind == "flux":
            self.text_2 = build_t5(card.texts[1], self.tokenizer_2)
        elif card.kind != "sd":
            self.text_2 = build_clip(card.texts[-1], self.tokenizer)
        width = card.texts[-1].width if card.kind == "flux" else sum(text.width for text in card.texts)
        pooled = {"sd": None, "flux": card.texts[0].width}.get(card.kind, card.texts[-1].projection)
        self.head = AttributeHead(width, pooled)
        self.layout_head = LayoutHead(card.widths[-1])
        self._middle: Tensor | None = None
        blocks = self.denoiser.single_transformer_blocks if card.kind == "flux" else [self.denoiser.mid_block]
        middle = blocks[(len(blocks) - 1) // 2]
        middle.register_forward_hook(self._keep)
        self.register_buffer("alphas", DDPMScheduler(**BETAS).alphas_cumprod, persistent=False)
        self.places = torch.zeros(64, 3)
        self.places[:, 1], self.places[:, 2] = torch.arange(64) // 8, torch.arange(64) % 8

    def read(self, captions: list[str]) -> Conditioning:
        """Encode prompts exactly as the pipeline of this kind does."""
        if self.card.kind == "sd":
            return Conditioning(self.text(self.encode(captions)).last_hidden_state, None)
        if self.card.kind == "flux":
            pooled = self.text(self.encode(captions)).pooler_output
            return Conditioning(self.text_2(self.encode_2(captions)).last_hidden_state, pooled)
        ids = self.encode(captions)
        outs = [text(ids, output_hidden_states=True) for text in (self.text, self.text_2) if text is not None]
        return Conditioning(torch.cat([out.hidden_states[-2] for out in outs], -1), outs[-1].text_embeds)

    def _keep(self, _: nn.Module, __: Any, out: Any) -> None:
        """Remember the denoiser's middle states as (B, 64, width)."""
        self._middle = out[1] if isinstance(out, tuple) else out.flatten(2).transpose(1, 2)

    def forward(self, batch: Batch, text_only: bool = False) -> Tensor:
        """The training loss of one batch."""
        read, dropped = self.read(batch.captions), batch.dropped
        kept = ~dropped
        pooled = read.pooled[kept] if read.pooled is not None else None
        auxiliary = self.head(read.hidden[kept], pooled, batch.attributes[kept])
        if text_only:
            return auxiliary
        learn = self._flow if self.card.kind == "flux" else self._epsilon
        denoising = learn(batch.latents, read, dropped)
        assert self._middle is not None
        laid_out = self.layout_head(self._middle, batch.layouts)
        return denoising + AUXILIARY_WEIGHT * auxiliary + LAYOUT_WEIGHT * laid_out

    def _epsilon(self, latents: Tensor, read: Conditioning, dropped: Tensor) -> Tensor:
        noisy, noise, t, weight = noised(self.alphas, latents, self.card.noise_range)
        guess = self.denoise(noisy, t, read.hidden, read.pooled, dropped)
        return (weight * (guess - noise).square().mean((1, 2, 3))).mean() / 4

    def denoise(
        self, noisy: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor | None, dropped: Tensor | None = None
    ) -> Tensor:
        """What the denoiser predicts of latents (B, C, 16, 16) of unit size; `dropped` (B,): no caption.

        A UNet tells the noise, and `t` (B,) are timesteps; the transformer tells the velocity, and `t` are sigmas.
        """
        if self.card.kind == "flux":
            words = torch.zeros(T5_LENGTH, 3)
            return unpack(self.denoiser(pack(noisy), hidden, pooled, t, self.places, words).sample)
        added = None
        if self.card.kind == "sdxl":
            ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(len(noisy), 1)
            added = {"text_embeds": pooled, "time_ids": ids}
        elif self.card.kind == "refiner":
            ids = torch.tensor([[64.0, 64, 0, 0, 6.0]]).repeat(len(noisy), 1)
            ids[dropped, 4] = 2.5
            added = {"text_embeds": pooled, "time_ids": ids}
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return self.denoiser(noisy, t, hidden, added_cond_kwargs=added).sample

    def _flow(self, latents: Tensor, read: Conditioning, dropped: Tensor) -> Tensor:
        n = len(latents)
        u = (torch.arange(n) + torch.rand(n)) / n
        sigma = FLOW_SHIFT * u / (1 + (FLOW_SHIFT - 1) * u)
        noise = torch.randn_like(latents)
        mixed = torch.lerp(latents, noise, sigma.view(-1, 1, 1, 1))
        guess = self.denoise(mixed, sigma, read.hidden, read.pooled)
        return (guess - (noise - latents)).square().mean()


def noised(alphas: Tensor, latents: Tensor, levels: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents, the noise in them, the timesteps (B,) out of `levels`, and what each error counts (B,)."""
    low, high = levels
    n = len(latents)
    # Stratified: every batch holds all noise levels, which halves the variance of the loss.
    t = (low + (high - low) * (torch.arange(n) + torch.rand(n)) / n).long()
    alpha = alphas[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    # Plain epsilon loss hardly sees the picture at high noise (an error of 1 counts 0.005 there), so backgrounds
    # come out black or gray. Weigh as v-prediction would (https://arxiv.org/abs/2202.00512), up to a ceiling, and
    # low noise less, as min-SNR does (https://arxiv.org/abs/2303.09556).
    snr = alphas[t] / (1 - alphas[t])
    return noisy, noise, t, (snr.clamp(max=5) / snr) * (1 + 1 / snr).clamp(max=WEIGHT_CEILING)


def pack(latents: Tensor) -> Tensor:
    """(B, 16, 16, 16) to FLUX's tokens (B, 64, 64): 2x2 neighbours become one token, channel first."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(tokens: Tensor) -> Tensor:
    """FLUX's tokens (B, 64, 64) back to (B, 16, 16, 16)."""
    b, n, c = tokens.shape
    side = math.isqrt(n)
    return tokens.view(b, side, side, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, 2 * side, 2 * side)


class Batches:
    """Random batches out of the cached scenes, tiers weighted by a card's mix, captions phrased anew each time."""

    def __init__(self, drawn: list[Scene], latents: Tensor, mix: tuple[float, ...], size: int) -> None:
        self.scenes, self.latents, self.mix, self.size = drawn, latents, mix, size
        self.attributes = torch.tensor([attributes(scene) for scene in drawn])
        self.layouts = torch.from_numpy(np.stack([layout(scene.placements) for scene in drawn]).astype(np.float16))
        tiers = np.array([TIERS.index(scene.tier) for scene in drawn])
        self.members = [np.flatnonzero(tiers == i).tolist() for i in range(len(TIERS))]

    def __call__(self, rng: random.Random) -> Batch:
        """The next batch."""
        tiers = rng.choices(range(len(TIERS)), self.mix, k=self.size)
        chosen = [rng.choice(self.members[tier] or range(len(self.scenes))) for tier in tiers]
        dropped = [rng.random() < DROPOUT for _ in chosen]
        captions = ["" if drop else caption(self.scenes[i], rng) for i, drop in zip(chosen, dropped, strict=True)]
        index = torch.tensor(chosen)
        return Batch(
            self.latents[index].float(),
            captions,
            torch.tensor(dropped),
            self.attributes[index],
            self.layouts[index].float(),
        )
