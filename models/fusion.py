"""Steps that need no model: pictures enlarged, chosen, or made into one, of possibly different sizes.

Every fuser leaves a flat colour as it is. How whole pictures are blended: blending.py; objects of several: regions.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from models.blending import average, frequency, pyramid
from models.colour import Pixels
from models.handoff import upscale
from models.regions import compose
from router.errors import StepError, did_you_mean
from router.types import Picture, Scalar, Scores, Step, StepResult, Value


def best_of(pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """The picture with the highest score, the first among equals, at its own size."""
    if scores is None or len(scores) != len(pictures):
        raise StepError(
            f"best_of: {len(pictures)} pictures need as many scores, not {0 if scores is None else len(scores)}"
        )
    if not np.isfinite(scores).all():
        raise StepError(f"best_of: scores {list(scores)} are not all numbers")
    return pictures[int(np.argmax(scores))]


FUSERS: dict[str, Callable[[Sequence[Pixels], Sequence[float] | None], Pixels]] = {
    "best_of": best_of,
    "average": lambda pictures, scores=None: average(pictures),
    "pyramid": lambda pictures, scores=None: pyramid(pictures),
    "pyramid by saliency": lambda pictures, scores=None: pyramid(pictures, "saliency"),
    "pyramid by mask": lambda pictures, scores=None: pyramid(pictures, "mask"),
    "frequency": lambda pictures, scores=None: frequency(pictures),
}


def fuse(method: str, pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """One picture of many by a method of `FUSERS`; `StepError` for an unknown method or no picture."""
    if method not in FUSERS:
        raise StepError(f"fuse: unknown method {method!r}{did_you_mean(method, FUSERS)}", "method")
    if not pictures:
        raise StepError(f"{method}: there is no picture to fuse")
    return FUSERS[method](pictures, scores)


def run_step(step: Step, inputs: Sequence[Value]) -> StepResult:
    """Run a step that needs no model (`upscale`, `select`, `blend`); pictures in order, scores wherever they stand."""
    started = time.perf_counter()
    pictures = [value.pixels for value in inputs if isinstance(value, Picture)]
    scores = [value.values for value in inputs if isinstance(value, Scores)]
    facts: dict[str, Scalar] = {"device": "cpu"}
    if step.kind == "upscale":
        if len(pictures) != 1:
            raise StepError(f"step {step.id!r}: upscale takes one picture, not {len(pictures)}")
        made = upscale(pictures[0], float(step.settings.get("factor") or 2.0))
    elif step.kind == "blend" and step.settings.get("method") == "regions":
        if not pictures:
            raise StepError("regions: there is no picture to fuse")
        made, sources = compose(pictures, scores, int(step.settings.get("segments") or 1))
        facts["sources"] = " ".join(map(str, sources))
    elif step.kind in ("select", "blend"):
        flat = [score for values in scores for score in values]
        made = fuse(_method(step), pictures, flat or None)
        if step.kind == "select" and flat:
            facts["chosen"] = int(np.argmax(flat))
    else:
        raise StepError(f"step {step.id!r} of kind {step.kind!r} needs a model")
    return StepResult(Picture(made), time.perf_counter() - started, facts)


def _method(step: Step) -> str:
    default = "best_of" if step.kind == "select" else "average"
    method, weights = step.settings.get("method") or default, step.settings.get("weights")
    return f"{method} by {weights}" if weights not in (None, "contrast") else str(method)
