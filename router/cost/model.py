"""Seconds and money of a step: a prior from the model card, replaced by what workers measure.

    seconds = overhead + seconds_per_step x work        work = denoising steps x pixels / native pixels

In tiles, the pixels are those of all tiles together. A denoise by two models takes the seconds of both for every step.
For scorers, work is the number of pictures, or of their objects where these are scored. The blend, select and upscale
of pictures need no model; their work is megapixels x pictures.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.types import Catalogue, Plan, Step

WINDOW = 32  # observations kept for each (model, kind)
RECENCY = 0.9  # weight of each older observation against the next: a mean age of ten observations
OUTLIER = 3.0  # this many times the median is a warm-up or a hiccup, and not learned from
PRIOR_WEIGHT = 0.05  # of the card against one observation: enough to settle what the observations leave open

OFF_MODEL: dict[str, tuple[float, float]] = {  # (overhead, seconds per megapixel and picture), one CPU core
    "select": (0.0005, 0.0),
    "blend": (0.001, 0.05),
    "upscale": (0.001, 0.02),
}


@dataclass(frozen=True, slots=True)
class Rate:
    """A linear law: `overhead_s + per_unit_s * work`."""

    overhead_s: float
    per_unit_s: float

    def seconds(self, work: float) -> float:
        return self.overhead_s + self.per_unit_s * work


class CostModel:
    """Seconds of steps, learned per (model, kind of step). Safe to use from several threads.

    version: grows with everything that is learned; as long as it stays, so does the price of every step
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._seen: dict[str, deque[tuple[float, float]]] = {}
        self._rates: dict[str, Rate] = {}
        self._lock = threading.Lock()
        self.version = 0

    def seconds(self, step: Step, pixels: int | None = None) -> float:
        """Expected seconds on the accelerator for one picture. `pixels`: of the plan, for steps without a size."""
        return self.rate(step).seconds(self.work(step, pixels))

    def cost_usd(self, step: Step, seconds: float) -> float:
        """Price of the accelerator during `seconds`; steps without a model are free."""
        return 0.0 if step.model is None else seconds * self._catalogue[step.model].usd_per_hour / 3600

    def rate(self, step: Step) -> Rate:
        """The law in force for steps like this one: learned if there were observations, else the card's."""
        key = _key(step)
        with self._lock:
            if key in self._rates:
                return self._rates[key]
            prior = self._prior(step)
            seen = self._seen.get(key)
            self._rates[key] = _fit(prior, list(seen)) if seen else prior
            return self._rates[key]

    def observe(self, step: Step, seconds: float, pixels: int | None = None) -> None:
        """Learn from a step that took `seconds` on its worker, without waiting. Nonsense (<= 0, NaN) is ignored."""
        if not math.isfinite(seconds) or seconds <= 0:
            return
        with self._lock:
            window = self._seen.setdefault(_key(step), deque(maxlen=WINDOW))
            window.append((self.work(step, pixels), float(seconds)))
            self._rates.pop(_key(step), None)
            self.version += 1

    def work(self, step: Step, pixels: int | None = None) -> float:
        """Units of work of one step, as in the law above."""
        settings = step.settings
        if step.kind == "score":
            # Of `segments`, as many as there are phrases are usual: two fewer than are looked for at most.
            looks = max(1, int(settings.get("segments") or 3) - 2)
            return float(len(step.inputs) * looks)
        width, height = settings.get("width"), settings.get("height")
        area = float(width * height) if isinstance(width, int) and isinstance(height, int) else float(pixels or 0)
        if step.model is None:
            return area / 1e6 * max(1, len(step.inputs))
        if isinstance(tiles := settings.get("tiles"), int):  # tiles overlap, so they hold more than the picture
            area = float(tiles * int(settings["tile_width"] or 0) * int(settings["tile_height"] or 0))
        native = math.prod(self._catalogue[step.model].native_size)
        return denoising_steps(step) * area / native

    def snapshot(self) -> dict[str, Any]:
        """What was learned, as builtins that JSON takes."""
        with self._lock:
            return {"version": 1, "observations": {key: [list(pair) for pair in w] for key, w in self._seen.items()}}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over a `snapshot`; replaces what was learned so far. Raises ValueError if it is not one."""
        try:
            if snapshot["version"] != 1:
                raise ValueError("unknown version")
            seen = {
                str(key): deque([(float(work), float(seconds)) for work, seconds in pairs], maxlen=WINDOW)
                for key, pairs in snapshot["observations"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not a snapshot of learned costs ({error!r}); delete the file to start afresh") from error
        with self._lock:
            self._seen, self._rates = {key: window for key, window in seen.items() if window}, {}
            self.version += 1

    def _prior(self, step: Step) -> Rate:
        if step.model is None:
            return Rate(*OFF_MODEL.get(step.kind, (0.001, 0.0)))
        cards = [self._catalogue[model] for model in step.models]
        # Work is counted in native pictures of the step's own model; a guest may have another native size.
        native = math.prod(cards[0].native_size)
        per_step = (card.seconds_per_step * native / math.prod(card.native_size) for card in cards)
        return Rate(sum(card.overhead_s for card in cards), sum(per_step))


def denoising_steps(step: Step) -> float:
    """Steps that are really run: the schedule's share that `until`, `from` or `strength` leaves; at least one."""
    total, share = step.settings.get("steps") or 1, 1.0
    begin, until, strength = (step.settings.get(name) for name in ("from", "until", "strength"))
    if isinstance(until, float | int):
        share = until
    if isinstance(begin, float | int):
        share -= begin
    if isinstance(strength, float | int):
        share *= strength
    return max(1.0, float(total) * share)


def plan_seconds(plan: Plan, costs: CostModel) -> dict[str, float]:
    """Seconds of every step of `plan` for one picture, by step id."""
    pixels = plan.width * plan.height
    return {step.id: costs.seconds(step, pixels) for step in plan.steps}


def _key(step: Step) -> str:
    return f"{'+'.join(step.models) or '-'}/{step.kind}"


def _fit(prior: Rate, seen: list[tuple[float, float]]) -> Rate:
    """Least squares for (overhead, per unit), recent observations first in weight, drawn to the prior's proportions.

    The prior's scale is replaced by the observations' median ratio to it, so a card that is wrong by a factor of
    hundreds (written for a GPU, run on a CPU) costs nothing: only its split between overhead and steps is kept.
    """
    work, seconds = np.array(seen).T
    expected = np.maximum(prior.overhead_s + prior.per_unit_s * work, 1e-9)
    ratio = seconds / expected
    middle = float(np.sort(ratio)[(len(ratio) - 1) // 2])  # the lower one of two, so that a slow first call is dropped
    keep = ratio <= OUTLIER * middle
    weight = (RECENCY ** np.arange(len(seen))[::-1])[keep]
    scale = expected[keep] * middle
    start = np.array([prior.overhead_s, prior.per_unit_s]) * middle
    rows = np.stack([np.ones(int(keep.sum())), work[keep]], axis=1)
    # Relative errors, so that long and short jobs count alike; parameters in units of a typical job.
    unit = np.array([float(np.mean(scale)), float(np.mean(scale)) / max(float(np.mean(work[keep])), 1e-9)])
    scaled = rows * unit / scale[:, None]
    left = (scaled * weight[:, None]).T @ scaled + PRIOR_WEIGHT * np.eye(2)
    right = (scaled * weight[:, None]).T @ ((seconds[keep] - rows @ start) / scale)
    overhead, per_unit = start + np.linalg.solve(left, right) * unit
    return Rate(max(0.0, float(overhead)), max(0.0, float(per_unit)))
