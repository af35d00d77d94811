"""Steps that need no model: pictures enlarged, chosen, or made into one, of possibly different sizes.

Every fuser leaves a flat colour as it is. How whole pictures are blended: blending.py; objects of several: regions.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from models.fusion.agreement import disagreement
from models.fusion.blending import average, frequency, pyramid
from models.fusion.colour import Pixels
from models.fusion.regions import compose
from models.given import controls, masks
from models.handover import resize, upscale
from router.errors import StepError, did_you_mean
from router.types import Mask, Picture, Scalar, Scores, Step, StepResult, Value


def best_of(pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """The picture with the highest score, the first among equals, at its own size."""
    if scores is None or len(scores) != len(pictures):
        raise StepError(
            f"best_of: {len(pictures)} pictures need as many scores, not {0 if scores is None else len(scores)}"
        )
    if not np.isfinite(scores).all():
        raise StepError(f"best_of: scores {list(scores)} are not all numbers")
    return pictures[int(np.argmax(scores))]


Fuser = Callable[[Sequence[Pixels], Sequence[float] | None], Pixels]


def _blend(blend: Callable[..., Pixels], *settings: str) -> Fuser:
    """A fuser that needs no scores."""

    def fuser(pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
        return blend(pictures, *settings)

    return fuser


FUSERS: dict[str, Fuser] = {
    "best_of": best_of,
    "average": _blend(average),
    "pyramid": _blend(pyramid),
    "pyramid by saliency": _blend(pyramid, "saliency"),
    "pyramid by mask": _blend(pyramid, "mask"),
    "frequency": _blend(frequency),
}


def fuse(method: str, pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """One picture of many by a method of `FUSERS`; `StepError` for an unknown method or no picture."""
    if method not in FUSERS:
        raise StepError(f"fuse: unknown method {method!r}{did_you_mean(method, FUSERS)}", "method")
    if not pictures:
        raise StepError(f"{method}: there is no picture to fuse")
    return FUSERS[method](pictures, scores)


def side_by_side(pictures: Sequence[Pixels], width: int, height: int) -> Pixels:
    """Pictures brought to one height, from left to right in one picture of width x height."""
    if not pictures:
        raise StepError("side_by_side: there is no picture")
    level = [resize(one, max(1, round(one.shape[1] * height / one.shape[0])), height) for one in pictures]
    return resize(np.concatenate(level, axis=1), width, height)


def run_step(step: Step, inputs: Sequence[Value]) -> StepResult:
    """Run a step that needs no model (`upscale`, `paste`, `select`, `blend`); pictures in order, scores and masks
    wherever they stand."""
    started = time.perf_counter()
    pictures = [value.pixels for value in inputs if isinstance(value, Picture)]
    scores = [value.values for value in inputs if isinstance(value, Scores)]
    facts: dict[str, Scalar] = {"device": "cpu"}
    if step.kind == "upscale":
        if len(pictures) != 1:
            raise StepError(f"step {step.id!r}: upscale takes one picture, not {len(pictures)}")
        width, height = step.settings.get("width"), step.settings.get("height")
        if isinstance(width, int) and isinstance(height, int):
            made = resize(pictures[0], width, height)
        else:
            made = upscale(pictures[0], float(step.settings.get("factor") or 2.0))
    elif step.kind == "control":
        if len(pictures) != 1:
            raise StepError(f"step {step.id!r}: a control map is made of one picture, not of {len(pictures)}")
        made = controls.mapped(str(step.settings.get("method")), pictures[0])
    elif step.kind == "paste":
        made = _pasted(step, pictures, [value.data for value in inputs if isinstance(value, Mask)])
    elif step.kind == "blend" and step.settings.get("method") == "side_by_side":
        made = side_by_side(pictures, int(step.settings.get("width") or 0), int(step.settings.get("height") or 0))
    elif step.kind == "blend" and step.settings.get("method") == "regions":
        if not pictures:
            raise StepError("regions: there is no picture to fuse")
        made, sources = compose(pictures, scores, int(step.settings.get("segments") or 1))
        facts["sources"] = " ".join(map(str, sources))
    elif step.kind in ("select", "blend"):
        flat = [score for values in scores for score in values]
        within = step.settings.get("blend_within")
        if within is not None:
            facts["disagreement"] = apart = disagreement(pictures)
            if apart > float(within):
                kept = best_of(pictures, flat)
                facts["kept"] = int(np.argmax(flat))
                return StepResult(Picture(kept), time.perf_counter() - started, facts)
        made = fuse(_method(step), pictures, flat or None)
        if step.kind == "select" and flat:
            facts["chosen"] = int(np.argmax(flat))
    else:
        raise StepError(f"step {step.id!r} of kind {step.kind!r} needs a model")
    return StepResult(Picture(made), time.perf_counter() - started, facts)


def _pasted(step: Step, pictures: Sequence[Pixels], given: Sequence[masks.Mask]) -> Pixels:
    """What was drawn over the given picture, each at the step's size, where the mask is open."""
    if len(pictures) != 2 or len(given) != 1:
        raise StepError(f"step {step.id!r}: paste takes two pictures and a mask, not {len(pictures)} and {len(given)}")
    height, width = pictures[0].shape[:2]
    width, height = int(step.settings.get("width") or width), int(step.settings.get("height") or height)
    drawn, below = (resize(picture, width, height) for picture in pictures)
    return masks.laid_over(drawn, below, masks.resized(given[0], width, height))


def _method(step: Step) -> str:
    default = "best_of" if step.kind == "select" else "average"
    method, weights = step.settings.get("method") or default, step.settings.get("weights")
    return f"{method} by {weights}" if weights not in (None, "contrast") else str(method)
