"""What a client asked for, what a decision depends on besides, and what the router knows about the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from router.types.given import GivenPicture, Role
from router.types.recipes import Turn
from router.types.styles import Wearing

Priority = Literal["interactive", "standard", "batch"]
"""Whose turn comes first where requests wait: somebody looks on; the usual; whenever there is room."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a client asked for. `None` means "not asked; the recipe or the model card decides"."""

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    n: int = 1
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    target: str = "auto"  # "auto", or the name of a policy, of a recipe, or of a model
    recipe: str | None = None  # a recipe of the target policy, asked for by name
    latency_budget_s: float | None = None
    max_cost_usd: float | None = None
    tags: tuple[str, ...] = ()
    tenant: str = ""
    priority: Priority = "standard"
    deterministic: bool = False  # the bytes of a picture made alone, and not together with others in a batch
    degradable: bool = True  # whether an overloaded policy may answer with a lesser recipe
    turns: tuple[Turn, ...] = ()  # what `recipe`, a search, came to before; it is not resolved again then
    style: Wearing = ()  # what the pictures that are drawn from noise wear, and what goes on from them if it can
    given: tuple[GivenPicture, ...] = ()  # pictures that it brings, and at most one mask, which is for the first
    strength: float | None = None  # how far (0..1] a given picture is noised again
    faithful: bool = False  # whether an edit is to stay near its picture, where neither strength nor mask says how near
    lenient: bool = False  # whether checks that the policy lets a request leave out are left out
    id: str = ""  # under which the client knows the answer, and gives feedback; without one, nothing is logged
    arrived_s: float | None = field(default=None, repr=False, compare=False)  # Unix time; None: when it is begun

    def brings(self, role: Role) -> GivenPicture | None:
        """The first given picture in a role, if there is one."""
        return next((one for one in self.given if one.role == role), None)

    @property
    def pictures(self) -> tuple[GivenPicture, ...]:
        """The given pictures without the mask, in the order in which they were given: the first is edited, further ones
        are looked at."""
        return tuple(one for one in self.given if one.role == "image")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a budget of a policy has left for the tenant of a request. None: the budget does not limit this.

    renews_s: seconds until part of what was used is given back; 0: nothing was used
    whole_work_s, whole_usd: what the budget grants when nothing was used; None: not known
    """

    budget: str
    work_s: float | None = None
    cost_usd: float | None = None
    renews_s: float = 0.0
    whole_work_s: float | None = None
    whole_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on besides the request. It is passed in, so that deciding stays a pure function.

    now:        time with zone, for conditions on the time of day; None: unknown, and no such condition holds
    draw:       chance for exploration, uniform in [0, 1); None: nothing is left to chance
    allowances: what the budgets that apply to the request's tenant have left
    unavailable: models that cannot run anything now, by catalogue id, with the reason
    most_pixels: the largest area that a model's device has memory for, by catalogue id, where that is known
    """

    now: datetime | None = None
    draw: float | None = None
    allowances: tuple[Allowance, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)
    most_pixels: Mapping[str, int] = field(default_factory=dict)


NO_CONTEXT = Context()


@dataclass(frozen=True)
class PromptView:
    """What the router knows about a prompt.

    features:  lexical facts (counts, flags), any scale
    signals:   skills that the prompt asks for, each in 0..1 (`counting`, `spatial_relation`, `text_rendering`, ...)
    embedding: shape (d,), float32, unit length
    familiarity: 0..1, how near the prompt is to what the predictor was trained on; None when it was not judged
    unsaid: words and pairs of words of the prompt that no training caption of the models has, where these are listed
    """

    prompt: str
    features: Mapping[str, float]
    signals: Mapping[str, float]
    embedding: NDArray[np.float32] = field(repr=False, compare=False)
    familiarity: float | None = None
    unsaid: tuple[str, ...] = ()

    @property
    def out_of_range(self) -> bool:
        """Is it so unlike the training prompts that an estimate is mostly the prior?"""
        return self.familiarity is not None and self.familiarity < 0.5
