"""What the verifier learns from: pictures of every quality, held against right and slightly wrong prompts.

The checker labels each pair, so damaged pictures count as right exactly when a careful eye would still accept them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.embedded.captions import caption
from models.embedded.checker import CLAIMS, Found, find_objects, held
from models.embedded.training import latents
from models.embedded.training.diffusion import LayoutHead, layout
from models.embedded.verifier import Verifier
from models.embedded.world import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, TIERS, Scene, render, sample_scene

DRAWN_BATCH = 32
"""Pictures that a model draws at once."""
_OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}


@dataclass(frozen=True)
class Viewed:
    """A picture, the scene it was meant to show, and what the checker finds in it."""

    image: NDArray[np.uint8]
    scene: Scene
    background: str
    found: list[Found]

    def holds(self, scene: Scene) -> dict[str, bool]:
        """Which claims of a scene does the picture keep?"""
        return held(self.background, self.found, scene)

    def shows(self, scene: Scene) -> bool:
        """Is the picture exactly right for these claims?"""
        return all(self.holds(scene).values())


def view(image: NDArray[np.uint8], scene: Scene) -> Viewed:
    """Look at a picture once, to hold it against many prompts."""
    return Viewed(image, scene, *find_objects(image))


def gallery(n: int, seed: int, vaes: list[latents.AutoencoderKL]) -> list[Viewed]:
    """`n` pictures: a third clean, the rest blurred, noisy, decoded from disturbed latents, merged or damaged."""
    views: list[Viewed] = []
    rng, noise = random.Random(f"gallery {seed}"), np.random.default_rng(seed)
    while len(views) < n:
        drawn = [sample_scene(rng, tier) for tier in rng.choices(TIERS, (2, 3, 3, 3, 4), k=64)]
        images = np.stack([render(scene) for scene in drawn])
        way = rng.choices(("clean", "blurred", "decoded", "merged", "damaged"), (3, 1, 4, 1, 2))[0]
        if way == "blurred":
            soft = ndimage.gaussian_filter(
                images.astype(np.float32), (0, rng.uniform(0.3, 1.4), rng.uniform(0.3, 1.4), 0)
            )
            images = np.clip(soft + noise.normal(0, rng.uniform(0, 14), soft.shape), 0, 255).astype(np.uint8)
        elif way in ("decoded", "merged"):
            vae = rng.choice(vaes)
            coded = latents.encode(vae, images)
            if way == "merged":
                coded = torch.lerp(coded, coded.roll(1, 0), torch.rand(len(coded), 1, 1, 1) * 0.6)
            coarse = F.interpolate(torch.randn(len(coded), coded.shape[1], 4, 4), 16, mode="bilinear")
            amount = torch.rand(len(coded), 1, 1, 1) ** 2 / vae.config.scaling_factor
            coded = coded + amount * (0.6 * torch.randn_like(coded) + 0.8 * coarse * (rng.random() < 0.5))
            images = latents.decode(vae, coded)
        elif way == "damaged":
            images = np.stack([_damaged(scene, rng) for scene in drawn])
        views += [view(image, scene) for image, scene in zip(images, drawn, strict=True)]
    return views[:n]


def drawn_by(
    draw: Callable[[list[str], list[int]], NDArray[np.uint8]], n: int, seed: int, split: str = "train"
) -> list[Viewed]:
    """`n` pictures that a model drew for prompts of a split of phrasings: the mistakes it really makes.

    `draw` takes prompts and seeds; these seeds never meet those of an evaluation of the models.
    """
    views: list[Viewed] = []
    rng = random.Random(f"drawn {split} {seed}")
    with tqdm(total=n, desc="pictures to judge", unit="picture") as bar:
        while len(views) < n:
            scenes = [
                sample_scene(rng, tier)
                for tier in rng.choices(TIERS, (2, 3, 3, 3, 4), k=min(DRAWN_BATCH, n - len(views)))
            ]
            images = draw(
                [caption(scene, rng, split) for scene in scenes], [1_000_000 + rng.randrange(10**6) for _ in scenes]
            )
            views += [view(image, scene) for image, scene in zip(images, scenes, strict=True)]
            bar.update(len(scenes))
    return views[:n]


def _damaged(scene: Scene, rng: random.Random) -> NDArray[np.uint8]:
    """Erase, recolour, reshape or add one object: what half-trained models do."""
    spots = list(scene.placements)
    i = rng.randrange(len(spots))
    how = rng.choice(("erase", "recolour", "reshape", "add", "shift"))
    if how == "erase" and len(spots) > 1:
        spots.pop(i)
    elif how == "recolour":
        spots[i] = replace(spots[i], colour=rng.choice(tuple(COLOURS)))
    elif how == "reshape":
        spots[i] = replace(spots[i], shape=rng.choice(SHAPES), radius=spots[i].radius * rng.uniform(0.7, 1.3))
    elif how == "shift":
        spots[i] = replace(spots[i], x=rng.uniform(10, 54), y=rng.uniform(10, 54))
    else:
        spots.append(replace(rng.choice(spots), x=rng.uniform(8, 56), y=rng.uniform(8, 56), radius=rng.uniform(4, 9)))
    return render(replace(scene, placements=tuple(spots)))


def nearly(scene: Scene, rng: random.Random) -> Scene:
    """The same claims with one of them changed: the hardest negatives."""
    i = rng.randrange(len(scene.things))
    thing = scene.things[i]
    ways = ["colour", "shape", "count", "size"]
    ways += ["relation"] * 3 if scene.relation else []
    ways += ["swap"] * 2 if len(scene.things) > 1 else ["position"]
    ways += ["background"] if scene.background else []
    way = rng.choice(ways)
    if way == "relation" and scene.relation:
        return replace(scene, relation=_OPPOSITE[scene.relation])
    if way == "position":
        return replace(scene, position=rng.choice(POSITIONS))
    if way == "background":
        return replace(scene, background=rng.choice(tuple(BACKGROUNDS)))
    things = list(scene.things)
    if way == "colour":
        things[i] = replace(thing, colour=rng.choice(tuple(COLOURS)))
    elif way == "shape":
        things[i] = replace(thing, shape=rng.choice(SHAPES))
    elif way == "size":
        things[i] = replace(thing, size=rng.choice(SIZES))
    elif way == "count":
        things[i] = replace(thing, count=rng.choice((1, 2, 3)))
    else:
        j = rng.choice([k for k in range(len(things)) if k != i])
        part = rng.choice(("colour", "shape"))
        mine, other = getattr(things[i], part), getattr(things[j], part)
        things[i], things[j] = replace(things[i], **{part: other}), replace(things[j], **{part: mine})
    return replace(scene, things=tuple(things))


def claims(viewed: Viewed, rng: random.Random, others: list[Viewed]) -> Scene:
    """What a prompt says of a picture: the truth, nearly the truth, or something else of the same world."""
    draw = rng.random()
    if draw < 0.5:
        return viewed.scene
    return nearly(viewed.scene, rng) if draw < 0.93 else rng.choice(others).scene


class SeenHead(nn.Module):
    """What the patch states are asked beside the verdict: what stands where, and how well its shape is drawn.

    Most mistakes of good models are stars and rings whose outline is just too ragged to count. A verdict tells that
    by one bit a picture; the overlap with the nearest shape says it for every patch of every object.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layout = LayoutHead(width)
        self.norm = nn.LayerNorm(width)
        self.overlap = nn.Linear(width, 1)

    def forward(self, states: Tensor, layouts: Tensor, overlaps: Tensor) -> Tensor:
        """Mean loss over the places; `states` (B, 64, width), `layouts` (B, 64, 5), `overlaps` (B, 64) in 0..1."""
        there = layouts[..., 0] > 0
        if not there.any():
            return cast(Tensor, self.layout(states, layouts))
        # In units of 0.05, which is what separates a shape from none.
        error = F.smooth_l1_loss(20 * self.overlap(self.norm(states))[..., 0][there], 20 * overlaps[there])
        return cast(Tensor, self.layout(states, layouts)) + 0.5 * error


def overlaps_of(found: list[Found]) -> NDArray[np.float32]:
    """How well the object at each of 8x8 places fits its nearest shape, float32 (64,); 0 where nothing stands."""
    rows = np.zeros(64, np.float32)
    for one in found:
        rows[layout([one])[:, 0] > 0] = one.overlap
    return rows


def verifier_loss(
    model: Verifier, head: SeenHead, views: list[Viewed], batch: int
) -> Callable[[random.Random], Tensor]:
    """A loss for `training.fit`: right or wrong, which claims hold, and what stands where in the picture."""
    layouts = torch.from_numpy(np.stack([layout(viewed.found) for viewed in views]).astype(np.float16))
    overlaps = torch.from_numpy(np.stack([overlaps_of(viewed.found) for viewed in views]).astype(np.float16))

    def loss(rng: random.Random) -> Tensor:
        chosen = [rng.randrange(len(views)) for _ in range(batch)]
        said = [claims(views[i], rng, views) for i in chosen]
        answers = [views[i].holds(scene) for i, scene in zip(chosen, said, strict=True)]
        # -1: the prompt makes no such claim.
        rows = [[all(one.values()), *(one.get(name, -1) for name in CLAIMS)] for one in answers]
        wanted = torch.tensor(rows, dtype=torch.float32)
        seen = model.look(latents.to_pixels(np.stack([views[i].image for i in chosen])))
        logits = model(seen, model.read([caption(scene, rng) for scene in said]))
        verdict = F.binary_cross_entropy_with_logits(logits[:, 0], wanted[:, 0])
        spoken = wanted >= 0
        each = F.binary_cross_entropy_with_logits(logits[spoken], wanted[spoken])
        places = torch.tensor(chosen)
        return verdict + each + 0.3 * head(seen, layouts[places].float(), overlaps[places].float())

    return loss


def accuracy(model: Verifier, views: list[Viewed], seed: int, own: bool = False) -> dict[str, float]:
    """Agreement with the checker: share correct, balanced accuracy, area under the ROC curve.

    Each picture is held against a right or a slightly wrong prompt, or, if `own`, against the prompt it was drawn for.
    """
    rng = random.Random(f"accuracy {seed}")
    said = [viewed.scene if own else claims(viewed, rng, views) for viewed in views]
    right = np.array([viewed.shows(scene) for viewed, scene in zip(views, said, strict=True)])
    prompts = [caption(scene, rng, "held out") for scene in said]
    scores = np.concatenate(
        [
            model.score(np.stack([viewed.image for viewed in views[i : i + 128]]), prompts[i : i + 128])
            for i in range(0, len(views), 128)
        ]
    )
    hits = (scores > 0.5) == right
    return {
        "accuracy": float(hits.mean()),
        "balanced": float((hits[right].mean() + hits[~right].mean()) / 2),
        "auc": float(roc_auc_score(right, scores)),
        "right": float(right.mean()),
        "n": len(views),
    }
