"""The values that flow through Triptych, in the order of the flow. All frozen; change one with `dataclasses.replace`.

request, context -> prompt view -> recipe -> plan -> estimate -> decision -> route -> step results

Everything here is plain data (builtins and numpy), so that it may cross a process border inside one application.
Units stand in the names: `_s` seconds, `_usd` US dollars, `_gb` 10^9 bytes; sizes are pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from router.judge import Judgement

Scalar = str | int | float | bool | None

# --------------------------------------------------------------------------------------------------------- request


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
    degradable: bool = True  # whether an overloaded policy may answer with a lesser recipe
    id: str = ""  # under which the client knows the answer, and gives feedback; without one, nothing is logged


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a budget of a policy has left for the tenant of a request. None: the budget does not limit this.

    renews_s: seconds until part of what was used is given back
    """

    budget: str
    work_s: float | None = None
    cost_usd: float | None = None
    renews_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on besides the request. It is passed in, so that deciding stays a pure function.

    now:        time with zone, for conditions on the time of day; None: unknown, and no such condition holds
    draw:       chance for exploration, uniform in [0, 1); None: nothing is left to chance
    allowances: what the budgets that apply to the request's tenant have left
    """

    now: datetime | None = None
    draw: float | None = None
    allowances: tuple[Allowance, ...] = ()


NO_CONTEXT = Context()


@dataclass(frozen=True)
class PromptView:
    """What the router knows about a prompt.

    features:  lexical facts (counts, flags), any scale
    signals:   skills that the prompt asks for, each in 0..1 (`counting`, `spatial_relation`, `text_rendering`, ...)
    embedding: shape (d,), float32, unit length
    in_domain: 0..1, how near the prompt is to what the predictor was trained on; None when it was not judged
    """

    prompt: str
    features: Mapping[str, float]
    signals: Mapping[str, float]
    embedding: NDArray[np.float32] = field(repr=False, compare=False)
    in_domain: float | None = None

    @property
    def out_of_range(self) -> bool:
        """Is it so unlike the training prompts that an estimate is mostly the prior?"""
        return self.in_domain is not None and self.in_domain < 0.5


# ------------------------------------------------------------------------------------------------------ model card


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One checkpoint: what differs between SD1.5, SDXL and FLUX is a row of this table, not a subclass.

    latent_space: models that name the same space may hand latents to one another
    vae_scale:    pixels per latent cell along one side (8 for the real families)
    family:       which loader in models/loading.py ("sd15", "sdxl", "flux", "remote"; scorers: "clip", "verifier")
    role:         "base" makes a picture from noise, "refiner" only continues one, "scorer" judges one
    seconds_per_step, overhead_s: prior of the cost model at `native_size`, one picture, guidance included;
                  replaced by what workers measure
    """

    id: str
    family: str
    role: Literal["base", "refiner", "scorer"]
    source: Mapping[str, Scalar]  # one of hub / local / file, and revision; see models/cards/README.md
    backbone: str = "unet"
    latent_space: str = ""
    latent_channels: int = 4
    vae_scale: int = 8
    native_size: tuple[int, int] = (512, 512)  # width, height
    size_multiple: int = 8
    min_side: int = 64
    max_pixels: int = 1024 * 1024
    steps: int = 25
    max_steps: int = 150
    guidance_scale: float = 7.5
    max_guidance_scale: float = 30.0
    scheduler: str = "default"
    max_prompt_tokens: int = 77
    settings: Mapping[str, Scalar] = field(default_factory=dict)  # further keyword arguments of the pipeline call
    dtype: str = "float32"
    memory_gb: float = 1.0
    licence: str = "unknown"
    commercial_use: bool = True
    gated: bool = False
    seconds_per_step: float = 0.1
    overhead_s: float = 0.0
    usd_per_hour: float = 1.0  # price of the accelerator it occupies
    description: str = ""
    card_path: str = ""  # where this card was read from, for error messages

    @property
    def revision(self) -> str:
        """The revision of the weights that the source names, or "unpinned"."""
        return str(self.source.get("revision") or "unpinned")


class Catalogue(Protocol):
    """Looks a model card up by its catalogue id; raises `CatalogError` with the nearest id if there is none."""

    def __getitem__(self, model: str) -> ModelCard: ...

    def __contains__(self, model: object) -> bool: ...

    def ids(self) -> Sequence[str]: ...


# ----------------------------------------------------------------------------------------------------------- recipe


Tile = int | Literal["native"]


@dataclass(frozen=True, slots=True)
class Generate:
    """Noise to picture on one model. `until` < 1 stops after that share of the denoising and yields latents.

    tile, overlap: as of `Refine`; here every denoising step is made of overlapping windows (SD and SDXL families)
    """

    model: str
    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    until: float | None = None
    width: int | None = None
    height: int | None = None
    tile: Tile | None = None
    overlap: float | None = None


@dataclass(frozen=True, slots=True)
class Refine:
    """Continue a picture on one model: `from_` takes over latents at that share of the denoising (same latent space),
    and with `until` hands them on; `strength` (0..1] re-noises a picture by that share and denoises it again (img2img;
    any pair of models).

    tile:    with strength: work on overlapping tiles of this side in pixels, or of the model's native size
             (then guidance_scale is 1 where the recipe does not say otherwise)
    overlap: share of a tile that neighbours have in common; None: a quarter
    """

    model: str
    strength: float | None = None
    from_: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    until: float | None = None
    tile: Tile | None = None
    overlap: float | None = None


@dataclass(frozen=True, slots=True)
class Upscale:
    """Enlarge a picture by `factor` (Lanczos)."""

    factor: float = 2.0


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages one after the other; the first makes a picture or latents, the others continue it."""

    stages: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class Worth:
    """What a second and a dollar are worth in quality (0..1): the price of waiting and of spending."""

    per_s: float = 0.0
    per_usd: float = 0.0

    def price(self, seconds: float, usd: float) -> float:
        """Seconds and dollars in quality."""
        return self.per_s * seconds + self.per_usd * usd


@dataclass(frozen=True, slots=True)
class Search:
    """A best_of whose number of pictures is decided for each prompt: at most `most`, while they are worth their price.

    latency_s, cost_usd, work_s: what all pictures of a request may take together; None: no such limit
    """

    most: int
    worth: Worth = Worth()
    latency_s: float | None = None
    cost_usd: float | None = None
    work_s: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One picture of a settled search. recipe: the number of its branch, as text, or a name.

    bar:    it is left out if an earlier picture is right with at least this probability
    slope, offset: log-odds that it is right = slope * logit(score) + offset;   chance: before its score is seen
    """

    recipe: str
    bar: float
    slope: float
    offset: float
    chance: float


@dataclass(frozen=True, slots=True)
class Fuse:
    """Recipes side by side, made into one picture: `best_of` and `regions` (need `scorer`), `average`, `pyramid`,
    `frequency`. To have the result harmonised, a `Chain` refines it.

    weights: pyramid only: where a picture counts, by "contrast" (None), "saliency" or "mask"
    branches: recipe names of the same policy, or inline recipes. For `frequency`, (low, high) in this order.
    accept_above: best_of only: the branches run one after the other until one scores at least this
    min_successful: so many branches are enough if others fail; None: all of them are needed
    search: best_of only: the branches are what may be tried, and the router decides how often and in which order
    turns: what a search came to for one prompt, one for each branch; with them `search` is settled
    """

    method: str
    branches: tuple[str | Recipe, ...]
    scorer: str | None = None
    accept_above: float | None = None
    min_successful: int | None = None
    search: Search | None = None
    turns: tuple[Turn, ...] = ()
    weights: str | None = None


Recipe = Generate | Refine | Upscale | Chain | Fuse


# ------------------------------------------------------------------------------------------------------------- plan

StepKind = Literal["generate", "refine", "upscale", "score", "select", "blend"]


@dataclass(frozen=True, slots=True)
class Unless:
    """When a step is left out: if the step `score` or one of the `earlier` ones gave at least `at_least`, or if `score`
    was itself left out."""

    score: str
    at_least: float
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One node of a plan.

    model:    catalogue id of the worker that runs it; None for steps without a model (select, blend, upscale)
    inputs:   ids of the steps whose values it takes, in order
    produces: "image", "latents" or "scores"
    settings: builtins only. generate/refine: prompt, negative_prompt, width, height, steps, guidance_scale, scheduler,
              seed, and until / from / strength where they apply; tile_width, tile_height, tile_overlap (pixels) and
              tiles (how many) for a picture that is worked on in tiles. score: prompt; slope and offset where its
              scores are to be probabilities; segments where not pictures are scored but up to so many objects of
              each. select/blend: method, weights, segments. upscale: factor.
    unless:   set where an earlier picture may be good enough to spare this step
    needs:    so many of its pictures are enough, if the steps that make the others fail; None: all of them
    """

    id: str
    kind: StepKind
    model: str | None
    inputs: tuple[str, ...]
    produces: Literal["image", "latents", "scores"]
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    unless: Unless | None = None
    needs: int | None = None

    @property
    def after(self) -> tuple[str, ...]:
        """Ids of the steps that must have ended before this one may begin."""
        waits = () if self.unless is None else (self.unless.score, *self.unless.earlier)
        return (*self.inputs, *waits)


@dataclass(frozen=True, slots=True)
class HandOver:
    """What one model's step takes from an earlier step.

    kind:  "latents" (unfinished, of latent space `space`) or "pixels" (a picture, `space` is "srgb")
    giver, taker: ids of the steps;   size_from, size_to: width and height in pixels, given and worked at
    share: part of the denoising that the taker runs, 0..1
    """

    giver: str
    taker: str
    kind: Literal["latents", "pixels"]
    space: str
    size_from: tuple[int, int]
    size_to: tuple[int, int]
    share: float


@dataclass(frozen=True)
class Plan:
    """A recipe made concrete for one request and one picture: steps in topological order.

    handovers: what goes from model to model, in the order of the steps
    notes: in words, everything that was inserted or changed (a hand-over through pixels, a size that was snapped)
    """

    recipe: str
    steps: tuple[Step, ...]
    output: str  # id of the step whose image is the answer
    width: int
    height: int
    notes: tuple[str, ...] = ()
    handovers: tuple[HandOver, ...] = ()

    def with_seed(self, seed: int) -> Plan:
        """The same plan for another picture: every step's seed is moved by the same amount."""
        seeds = [old for s in self.steps if isinstance(old := s.settings.get("seed"), int)]
        # The first step has the request's own seed; only repeated branches of a fusion are moved from it.
        shift = seed - (seeds[0] if seeds else seed)

        def moved(step: Step) -> Step:
            old = step.settings.get("seed")
            if not isinstance(old, int):
                return step
            return replace(step, settings={**step.settings, "seed": (old + shift) % 2**32})

        return replace(self, steps=tuple(moved(s) for s in self.steps))

    def digest(self) -> str:
        """Twelve hex digits that change with anything that could change the picture."""
        body = [asdict(replace(s, settings=dict(s.settings))) for s in self.steps]
        return hashlib.sha256(json.dumps([body, self.output], sort_keys=True).encode()).hexdigest()[:12]


# --------------------------------------------------------------------------------------------------------- estimate


@dataclass(frozen=True, slots=True)
class Quality:
    """Predicted quality of one recipe on one prompt: mean and standard deviation on 0..1, and where it comes from.

    basis: "learned" (this recipe was in the training table), "composed" (from its parts), "prior" (nothing known)
    """

    mean: float
    std: float
    basis: Literal["learned", "composed", "prior"] = "learned"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one recipe would give on this request now (all n pictures).

    work_s:    accelerator seconds, summed over steps;   latency_s: critical path, waiting included
    queue_s:   the waiting part of latency_s;            cost_usd: work at the cards' prices
    """

    recipe: str
    quality: Quality
    work_s: float
    queue_s: float
    latency_s: float
    cost_usd: float


# --------------------------------------------------------------------------------------------------------- decision


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a recipe was out. gate: "capability", "limit", "request", "budget", "rule" or "pinned"."""

    recipe: str
    gate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """An eligible recipe and its utility under the objective; higher is better."""

    recipe: str
    utility: float


@dataclass(frozen=True, slots=True)
class Verification:
    """How each picture is checked by `scorer`, and what may be tried while it is not good enough; the best is kept.

    by:           "ladder": the recipes in turn, until a score reaches `accept_above`; "expected_gain": whatever is
                  expected to gain more than it costs at the prices of `worth`, or nothing, not even the look
    accept_above: score from which a picture is good enough in any case
    retry:        how often a recipe may be tried again, with other seeds;   most: pictures at most, with the first
    within_s:     seconds from the start of the request by which a try must be expected to end
    cost_usd, work_s: what the tries for all pictures of the request may use; None: no such limit
    """

    scorer: str
    accept_above: float | None = None
    escalate_to: tuple[str, ...] = ()
    by: Literal["ladder", "expected_gain"] = "ladder"
    retry: int = 0
    most: int | None = None
    worth: Worth = Worth()
    within_s: float | None = None
    cost_usd: float | None = None
    work_s: float | None = None

    def tries(self, chosen: str) -> tuple[str, ...]:
        """Every picture that may be made after the first of `chosen`, in the order of the ladder."""
        every = [chosen] * self.retry + [name for name in self.escalate_to for _ in range(1 + self.retry)]
        return tuple(every)


@dataclass(frozen=True)
class Decision:
    """What was chosen and why.

    ranking:  eligible recipes, best first by preference and objective;   rejected: the others, each with a reason
    reasons:  the choice in words, for a person;   rules: names of the rules that applied
    propensity: probability with which this recipe was chosen (1.0 when no chance was involved)
    verify:   how the picture is checked once it is made; None: it is not
    degraded_from: the recipe that would have been taken, were there less waiting; explored: whether chance chose
    """

    recipe: str
    policy: str
    policy_digest: str
    ranking: tuple[Ranked, ...]
    rejected: tuple[Rejection, ...]
    reasons: tuple[str, ...]
    rules: tuple[str, ...] = ()
    propensity: float = 1.0
    verify: Verification | None = None
    degraded_from: str | None = None
    explored: bool = False


class Policy(Protocol):
    """Named recipes and the choice between them. Pure: same inputs, same decision."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def recipes(self) -> Mapping[str, Recipe]: ...

    def decide(
        self,
        request: GenerationRequest,
        view: PromptView,
        plans: Mapping[str, Plan],
        estimates: Mapping[str, Estimate],
        refused: Sequence[Rejection] = (),
        context: Context = NO_CONTEXT,
    ) -> Decision:
        """Gate, apply rules, rank. `refused` are recipes that could not even be planned.

        Raises `NoRecipeError`, carrying every rejection, if nothing is left; `BudgetError` if only the tenant's
        budgets stand in the way; `OverloadedError` if the policy would rather refuse than let the request wait.
        """
        ...


@dataclass(frozen=True)
class Route:
    """The answer of `Router.route`: all that is needed to run, explain and replay a request.

    alternatives: plans of the recipes that the decision may escalate to
    judgement: how the scores of the decision's verification are read; None if nothing is verified
    artifact: digest of the predictor's artefact
    """

    request: GenerationRequest
    view: PromptView
    estimates: Mapping[str, Estimate]
    decision: Decision
    plan: Plan
    decided_in_s: float
    alternatives: Mapping[str, Plan] = field(default_factory=dict)
    judgement: Judgement | None = None
    artifact: str = ""


# --------------------------------------------------------------------------------------------- what workers exchange


@dataclass(frozen=True)
class Picture:
    """pixels: shape (height, width, 3), uint8, sRGB."""

    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Latents:
    """data: shape (channels, height/vae_scale, width/vae_scale), float32, scaled, variance-preserving (the
    engine converts for schedulers that hold them otherwise, so base and refiner may use different ones).

    denoised: share of the denoising that is done, 0..1
    """

    data: NDArray[np.float32]
    space: str
    denoised: float


@dataclass(frozen=True)
class Scores:
    """One score in 0..1 per input picture, or per object of each where a step asks for segments; higher is better."""

    values: tuple[float, ...]


Value = Picture | Latents | Scores


@dataclass(frozen=True)
class Progress:
    """Sent by a running step: `done` of `total` denoising steps, and perhaps a small preview picture."""

    step: str
    done: int
    total: int
    preview: Picture | None = None


@dataclass(frozen=True)
class StepResult:
    """What a worker returns. seconds: time on the accelerator, without waiting. facts: builtins for the trace
    (model revision, scheduler, dtype, device, peak memory, ...)."""

    value: Value
    seconds: float
    facts: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class StepTrace:
    """One step as it ran; times are seconds since the plan started."""

    step: Step
    started_s: float
    ended_s: float
    seconds: float
    facts: Mapping[str, Scalar] = field(default_factory=dict)
