"""Arranges a recipe for one request: a typed graph of steps with concrete settings, or a refusal that says why.

Nothing is changed silently: what does not fit is refused with a remedy, what is inserted stands in the plan's notes.

Sizes: the request's, else that of the given picture or the recipe's own, else the first model's native size; the size
asked for is that of the answer, so stages before an `upscale` work at that size divided by its factor. A model that
draws from noise does so at a size at which its card says it is good; from there the picture is brought to the size that
was asked for, by a step of its own, before the next stage that wants it so. A model checks the size it works at.
Steps: the request's `steps` and `guidance_scale` go to `generate` steps only; a `refine from` shares the schedule of
the step that it continues. `steps` always counts the whole schedule, also with `until`, `from` and `strength`.
Seeds: all steps share the request's; the k-th repetition of the same branch in a fusion gets seed + k.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from router.errors import PlanError
from router.planning.arranging.draft import Draft
from router.planning.arranging.drawing import drawing_at, generated, refined, stays
from router.planning.arranging.editing import edited, finished
from router.planning.arranging.fusing import fused
from router.planning.checks import check_stages
from router.planning.edits import check_given, unseen
from router.planning.handovers import handovers
from router.planning.recipes import resolve, stages_of
from router.planning.sizes import answer_size, enlargement, reduced
from router.planning.styles import unsaid
from router.types import (
    Catalogue,
    Edit,
    Fuse,
    Generate,
    GenerationRequest,
    Given,
    Map,
    Plan,
    Recipe,
    Refine,
    Step,
    Upscale,
)

ANY_PROMPT = "-"
"""Stands for every prompt: a single token, so none is too long."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


def make_plan(
    name: str, recipe: Recipe, request: GenerationRequest, catalogue: Catalogue, recipes: Mapping[str, Recipe]
) -> Plan:
    """Arrange `recipe`, called `name`, for one picture of `request`; `recipes` are those that fusions may name.

    Raises `PlanError` (what, where, remedy) if it cannot be arranged.
    """
    try:
        resolved = resolve(recipe, recipes, (name,))
        check_given(resolved, request)
        width, height = answer_size(resolved, request, catalogue)
        draft = Draft(request, catalogue)
        output = finished(draft, arranged(draft, resolved, width, height, request.seed), width, height)
        if request.brings("reference") and not any("reference" in step.settings for step in draft.steps):
            raise PlanError("nothing of it draws after a reference; wear a style of kind ip_adapter", "reference")
        draft.notes += cut_negatives(request.negative_prompt, draft.steps, catalogue)
        draft.notes += cut_prompts(request.prompt, draft.steps, catalogue)
        draft.notes += [] if request.prompt == ANY_PROMPT else unsaid(request.prompt, draft.steps, catalogue)
    except PlanError as error:
        raise PlanError(f"recipe {name!r}: {error.message}", error.param) from error
    steps, notes = tuple(draft.steps), tuple(dict.fromkeys(draft.notes))
    taken = handovers(steps, catalogue, (width, height))
    ignores, overlooks = tuple(dict.fromkeys(draft.ignores)), unseen(steps, request)
    return Plan(name, steps, output.id, width, height, notes, taken, ignores, overlooks)


def arranged(draft: Draft, recipe: Recipe, width: int, height: int, seed: int) -> Step:
    """Add the steps of a recipe for a picture of width x height; the last one, whose value is the recipe's."""
    if isinstance(recipe, Fuse):
        return fused(draft, recipe, width, height, seed, arranged)
    stages = stages_of(recipe)
    check_stages(stages)
    # What the first stage delivers; a fusion that enlarges takes its own factor off again.
    factor = math.prod(enlargement(stage) for stage in stages[1:])
    width, height = reduced(width, factor), reduced(height, factor)
    last: Step | None = None
    works = width, height  # the size that the picture has now; width and height: what it is to have here
    for stage, following in zip(stages, (*stages[1:], None), strict=True):
        if last is None:
            if isinstance(stage, Given):
                last, works = draft.whole(width, height)
            elif isinstance(stage, Edit):
                last, works = edited(draft, stage, width, height, seed), (width, height)
            elif isinstance(stage, Generate):
                works = drawing_at(draft, stage, width, height)
                last = generated(draft, stage, following, *works, seed, (width, height))
            else:
                last = arranged(draft, stage, width, height, seed)
        elif isinstance(stage, Map):
            last, works = draft.resized(last, works, width, height), (width, height)
            last = draft.mapped(stage.kind, last)
        elif isinstance(stage, Refine):
            if stage.strength is not None and works != (width, height) and not stays(draft, stage, works):
                last, works = draft.resized(last, works, width, height), (width, height)
            last = refined(draft, stage, following, last, *works, seed)
        elif isinstance(stage, Upscale):
            last, works = draft.resized(last, works, width, height), (width, height)
            last = draft.new("upscale", None, (last.id,), "image", {"factor": float(stage.factor)})
            works = width, height = round(width * stage.factor), round(height * stage.factor)
    assert last is not None
    return draft.resized(last, works, width, height)


def cut_prompts(prompt: str, steps: Sequence[Step], catalogue: Catalogue) -> list[str]:
    """Notes on models that will not read all of the prompt. Each word and mark is at least one token, so this never
    warns of a prompt that would have fitted."""
    models = []
    for step in steps:  # `Step.models`, said here: every decision passes
        models += [model for model in (step.model, step.settings.get("guest")) if isinstance(model, str)]
    return _cut("prompt", prompt, models, catalogue)


def cut_negatives(prompt: str, steps: Sequence[Step], catalogue: Catalogue) -> list[str]:
    """The same of the negative prompt `prompt`, for the models that heed one."""
    heeding = []
    for step in steps:
        for model, key in zip(step.models, ("guidance_scale", "guest_guidance_scale"), strict=False):
            guidance = step.settings.get(key)
            if isinstance(guidance, int | float) and catalogue[model].heeds_negative(guidance):
                heeding.append(model)
    return _cut("negative prompt", prompt, heeding, catalogue) if prompt else []


def _cut(what: str, prompt: str, models: Iterable[str], catalogue: Catalogue) -> list[str]:
    limits: dict[str, int] = {}
    for model in models:
        if model not in limits:
            limits[model] = catalogue[model].max_prompt_tokens
    if len(prompt) + 2 <= min(limits.values(), default=0):  # even if each character were a token
        return []
    least = len(_TOKEN.findall(prompt[:20_000])) + 2
    notes = []
    for model, limit in limits.items():
        if least > limit:
            notes.append(f"{model} reads at most {limit} tokens; this {what} has at least {least}, its end is cut")
    return notes
