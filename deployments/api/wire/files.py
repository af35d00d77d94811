"""The pictures of an answer as files that say how they were made, as far as their policy has it (`provenance`).

The metadata of a file:

    generator, prompt, negative_prompt, seed, size, recipe, policy (name@digest), plan (its digest)
    models:  id -> revision of its weights
    given:   what was brought: role, digest of the pixels, size; the pictures themselves are not in it
    steps:   every step that ran, with all of its settings; prompts only where they are not the request's
    output:  format and compression of the file
    replay:  the body that makes the picture again; prompt and negative prompt are those above

Nothing in it depends on the clock, the machine or the request's id: equal pictures are equal files, unless signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from deployments.api.wire.requests import ImageRequest
from deployments.api.wire.responses import replay, size_of
from deployments.orchestration.results import Made
from models.provenance import encode_image
from models.provenance.credentials import Credentials
from router.route import Route
from router.types import StepTrace

FACTS = (
    "scheduler", "dtype", "steps", "effective_strength", "steps_raised_from", "tiles", "negative_prompt_ignored",
    "truncated_tokens", "chosen", "kept", "disagreement", "sources", "segments",
)  # fmt: skip
"""What of a step's facts is the same whenever and wherever it runs."""

WORDS = ("prompt", "negative_prompt")


def encoded(made: Made, route: Route, wire: ImageRequest, credentials: Credentials | None = None) -> bytes:
    """The picture as a file. credentials: sign it, unless the policy wants nothing to be said."""
    level = route.decision.provenance
    told = metadata_of(made, route, wire) if level == "full" else None
    file = encode_image(made.picture.pixels, wire.output_format, told, wire.output_compression, mark=level == "mark")
    if credentials is None or level == "none":
        return file
    return credentials.sign(file, wire.output_format, told)


def metadata_of(made: Made, route: Route, wire: ImageRequest) -> dict[str, Any]:
    """What the file says."""
    request, decision = route.request, route.decision
    words = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    body = {**replay(route, wire, {made.recipe}), "n": 1, "seed": made.seed}
    return {
        "generator": generator(),
        **words,
        "seed": made.seed,
        "size": size_of(made),
        "recipe": made.recipe,
        "policy": f"{decision.policy}@{decision.policy_digest}",
        "plan": made.plan_digest,
        **({"given": [asdict(one) for one in request.given]} if request.given else {}),
        "models": dict(pair for trace in made.traces for pair in _revisions(trace)),
        "steps": [_step(trace, words) for trace in _in_order(made, route)],
        "output": {"format": wire.output_format, "compression": wire.output_compression},
        "replay": {key: value for key, value in body.items() if key not in WORDS},
    }


@cache
def generator() -> str:
    """Name and version of this program."""
    try:
        return f"Triptych {version('triptych')}"
    except PackageNotFoundError:  # run from a folder that was not installed
        return "Triptych"


def _in_order(made: Made, route: Route) -> list[StepTrace]:
    """What ran, as the plan has it: which of two branches ended first is another matter each time."""
    plan = route.alternatives.get(made.recipe, route.plan)
    places = {step.id: place for place, step in enumerate(plan.steps)}
    return sorted(made.traces, key=lambda trace: places.get(trace.step.id, len(places)))


def _step(trace: StepTrace, words: Mapping[str, str]) -> dict[str, Any]:
    step = trace.step
    settings = {key: value for key, value in step.settings.items() if words.get(key) != value}
    facts = {key: trace.facts[key] for key in FACTS if trace.facts.get(key) is not None}
    told = {"id": step.id, "kind": step.kind, "inputs": list(step.inputs), "settings": settings}
    return {**told, **({"model": step.model} if step.model else {}), **({"facts": facts} if facts else {})}


def _revisions(trace: StepTrace) -> Iterator[tuple[str, str]]:
    """Every model that a step ran on, with the revision of its weights; the guest's has a fact of its own."""
    for model, key in zip(trace.step.models, ("revision", "guest_revision"), strict=False):
        yield model, str(trace.facts.get(key, "unknown"))
