"""Two models in one latent space: at every step both predict, and the weighted mean of their predictions is stepped.

The mean of predicted noises is the gradient of the product of both models' densities, each to the power of its weight:
composable diffusion, https://arxiv.org/abs/2206.01714; of two different models, the baseline of
https://arxiv.org/abs/2303.13126. One worker holds both networks, since a step that went over a network twice would cost
more than it computes: the worker of the model whose entry in the catalogue lists the other one under `guests`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from router.errors import PlanError
from router.planning.sizes import card_of
from router.types import Catalogue, Fuse, Generate, ModelCard, Recipe

SHARED = ("steps", "scheduler", "width", "height", "tile", "overlap")
"""Settings that two models cannot have apart: there is one latent on one schedule."""


@dataclass(frozen=True)
class Member:
    """One of the two: what the recipe says of it, and what its prediction counts at the start and at the end (0..1)."""

    stage: Generate
    card: ModelCard
    start: float
    end: float


def seated(recipe: Fuse, catalogue: Catalogue) -> tuple[Member, Member]:
    """(host, guest) of a resolved `denoise`. Raises `PlanError` if they do not go together, or no worker holds both."""
    if len(recipe.branches) != 2:
        raise PlanError(f"denoise takes two branches, not {len(recipe.branches)}; a worker holds no more", "recipe")
    start, end = shares(recipe, 0), shares(recipe, 1)
    stages = [_generate(branch) for branch in recipe.branches]
    cards = [card_of(stage.model, catalogue) for stage in stages]
    _check_pair(*cards)
    members = (Member(stages[0], cards[0], start[0], end[0]), Member(stages[1], cards[1], start[1], end[1]))
    if cards[1].id in cards[0].guests:
        return members
    if cards[0].id in cards[1].guests:
        return members[1], members[0]
    raise PlanError(
        f"no worker holds both {cards[0].id!r} and {cards[1].id!r}; in the serve config, give the model "
        f"{cards[0].id!r} guests: [{cards[1].id}] (it then needs the memory of both)",
        "recipe",
    )


def shares(recipe: Fuse, moment: int) -> tuple[float, float]:
    """What the two branches count at the start (moment 0) or at the end (1), adding up to 1."""
    given = [pair[moment] for pair in recipe.shares] or [1.0, 1.0]
    if len(given) != 2 or not all(math.isfinite(value) and value >= 0 for value in given) or not sum(given) > 0:
        raise PlanError(f"the weights {given} of denoise are not two numbers from 0 on with a sum above 0", "recipe")
    return given[0] / sum(given), given[1] / sum(given)


def common(host: Member, guest: Member, key: str) -> Any:
    """A setting of `SHARED` that either of the two may give; `PlanError` if they differ."""
    given = {value for member in (host, guest) if (value := getattr(member.stage, key)) is not None}
    if len(given) > 1:
        raise PlanError(
            f"{host.card.id!r} and {guest.card.id!r} denoise one picture together, but differ in {key} "
            f"({' and '.join(sorted(map(str, given)))}); say it once, or the same for both",
            "recipe",
        )
    return given.pop() if given else None


def _generate(branch: str | Recipe) -> Generate:
    if not isinstance(branch, Generate):
        what = "a name" if isinstance(branch, str) else f"a {type(branch).__name__.lower()}"
        raise PlanError(f"denoise takes two generates, not {what}; both begin with the same noise", "recipe")
    if branch.until is not None:
        raise PlanError(f"denoise runs to its end; drop until of {branch.model!r}", "recipe")
    return branch


def _check_pair(first: ModelCard, second: ModelCard) -> None:
    for card in (first, second):
        if card.role != "base":
            raise PlanError(f"{card.id!r} is {card.kind}; denoise takes base models", "recipe")
        if not card.relays:
            raise PlanError(
                f"{card.id!r} cannot denoise together with another model: family {card.family!r} shifts its schedule "
                "by checkpoint and size; fuse the finished pictures instead",
                "recipe",
            )
    if first.id == second.id:
        raise PlanError(f"denoise of {first.id!r} with itself is {first.id!r} alone; name two models", "recipe")
    if (first.latent_space, first.vae_scale) != (second.latent_space, second.vae_scale):
        raise PlanError(
            f"{first.id!r} (latent space {first.latent_space!r}) and {second.id!r} ({second.latent_space!r}) share no "
            "latents, so their predictions cannot be averaged; fuse the finished pictures instead",
            "recipe",
        )
