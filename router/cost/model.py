"""Seconds and money of a step: a prior from the model card, replaced by what workers measure.

    seconds = overhead + seconds_per_step x work        work = denoising steps x pixels / native pixels x passes

In tiles, the pixels are those of all tiles together. passes: how often the network runs in a step (twice with
guidance), over how often it does at the card's guidance, which `seconds_per_step` includes. A denoise by two models
takes the seconds of both for every step. For scorers, work is the number of pictures, or of their objects where these
are scored. The blend, select and upscale of pictures need no model; their work is megapixels x pictures.

A law of its own is learned for each model, kind of step, size, passes, size of batch, engine and tuning, since the
seconds are in proportion to work only roughly; where one of these was not seen yet, the law of all of the model and
kind stands in.

What is learned follows the last observations of a law: what is beyond three times their median, or below a third of it,
is a hiccup, or from before a change. So a hiccup moves nothing, and of a lasting change the third observation is
followed.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.types import Catalogue, Plan, Step, worn_by

WINDOW = 32  # observations kept for each law
RECENCY = 0.9  # weight of each older observation against the next: a mean age of ten observations
OUTLIER = 3.0  # this many times the median of the latest, or its inverse, is not learned from
LATEST = (
    5  # observations whose median is the present; so two hiccups among them are outvoted, and three are the present
)
CHANGE = 2.0  # the present has to differ by this factor from what was before to be told as a change
CONTROLLED = 1.3  # work of a step of the prior beside a ControlNet, which has about half of the network's layers
ENCODED = 1.0  # steps of the prior that encoding for inpainting takes
PRIOR_WEIGHT = 0.05  # of the card against one observation: enough to settle what the observations leave open

OFF_MODEL: dict[str, tuple[float, float]] = {  # (overhead, seconds per megapixel and picture), one CPU core
    "given": (0.001, 0.01),
    "control": (0.001, 0.02),
    "paste": (0.001, 0.05),
    "select": (0.0005, 0.0),
    "blend": (0.001, 0.05),
    "upscale": (0.001, 0.02),
}


logger = logging.getLogger("triptych.cost")


@dataclass(frozen=True, slots=True)
class Rate:
    """A linear law: `overhead_s + per_unit_s * work`."""

    overhead_s: float
    per_unit_s: float

    def seconds(self, work: float) -> float:
        return self.overhead_s + self.per_unit_s * work


class CostModel:
    """Seconds of steps, learned per model, kind of step and what else changes the work. Safe to use from several
    threads.

    version: grows with everything that is learned; as long as it stays, so does the price of every step
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        # A law's key to what was seen of it; keys of all of a model and kind, too, which end in "/*".
        self._seen: dict[str, deque[tuple[float, float]]] = {}
        self._levels: dict[str, float] = {}
        self._rates: dict[str, Rate] = {}
        self._lock = threading.Lock()
        self.version = 0

    def seconds(self, step: Step, pixels: int | None = None, batch: int = 1, engine: str = "") -> float:
        """Expected seconds on the accelerator for one picture. `pixels`: of the plan, for steps without a size; batch,
        engine: as of `observe`."""
        return self.rate(step, batch, engine).seconds(self.work(step, pixels))

    def cost_usd(self, step: Step, seconds: float) -> float:
        """Price of the accelerator during `seconds`, or of the picture where a server draws it that has a price for
        each; steps without a model are free."""
        if step.model is None:
            return 0.0
        width, height = step.settings.get("width"), step.settings.get("height")
        pixels = width * height if isinstance(width, int) and isinstance(height, int) else 0
        return self._catalogue[step.model].cost_usd(seconds, pixels)

    def rate(self, step: Step, batch: int = 1, engine: str = "") -> Rate:
        """The law in force for steps like this one: learned of such, else of all of its model and kind, else the
        card's."""
        key, every = self._key(step, batch, engine), _every(step)
        with self._lock:
            if key not in self._rates:
                if every not in self._rates:
                    seen = self._seen.get(every)
                    prior = self._prior(step)
                    self._rates[every] = _fit(prior, list(seen)) if seen else prior
                seen = self._seen.get(key)
                self._rates[key] = _fit(self._rates[every], list(seen)) if seen else self._rates[every]
            return self._rates[key]

    def law(self, step: Step) -> str:
        """What steps that share their laws have in common, whatever the size of the batch."""
        return self._key(step, 0, "")

    def measured(self, step: Step, batch: int = 1, engine: str = "") -> int:
        """How often steps like this one were measured in batches of this size, as far as that is still remembered."""
        with self._lock:
            return len(self._seen.get(self._key(step, batch, engine), ()))

    def observe(self, step: Step, seconds: float, pixels: int | None = None, batch: int = 1, engine: str = "") -> None:
        """Learn from a step that took `seconds` on its worker, without waiting. Nonsense (<= 0, NaN) is ignored.

        batch: how many pictures were made together, of which `seconds` is the share of one;   engine: what ran it, if
        there are several
        """
        if not math.isfinite(seconds) or seconds <= 0:
            return
        work, every = self.work(step, pixels), _every(step)
        with self._lock:
            for key in (self._key(step, batch, engine), every):
                self._seen.setdefault(key, deque(maxlen=WINDOW)).append((work, float(seconds)))
            for key in [key for key in self._rates if key.startswith(every[:-1])]:
                del self._rates[key]
            self._tell_change(self._key(step, batch, engine), step)
            self.version += 1

    def _tell_change(self, key: str, step: Step) -> None:
        """Log when the latest observations of a law are of another level than those before."""
        work, seconds = np.array(self._seen[key]).T
        prior = self._prior(step)
        ratio = seconds / np.maximum(prior.overhead_s + prior.per_unit_s * work, 1e-9)
        level, before = _level(ratio), self._levels.get(key)
        if before is None or (len(ratio) <= LATEST and level < before):  # a warm-up is no level
            self._levels[key] = level
        elif not 1 / CHANGE < level / before < CHANGE:
            logger.info("%s takes %.3g times as long as before; estimates follow", key, level / before)
            self._levels[key] = level

    def _key(self, step: Step, batch: int, engine: str) -> str:
        """Of the law for steps like this one."""
        settings = step.settings
        width, height = (settings.get(name) for name in ("tile_width", "tile_height"))
        if width is None or height is None:
            width, height = settings.get("width"), settings.get("height")
        size = f"{width}x{height}" if step.model is not None and width is not None else "-"
        size += " tiles" if "tiles" in settings else " control" if "control" in settings else ""
        size += f" +{settings['references']}" if settings.get("references") else ""
        passes = "+".join(map(str, self._passes(step))) or "-"
        how = "+".join(filter(None, (engine, *(self._catalogue[model].tuned for model in step.models))))
        return f"{_every(step)[:-1]}{size}/{passes}/{batch}/{how or '-'}"

    def _passes(self, step: Step) -> list[int]:
        """How often each network of the step is run in one denoising step."""
        found = []
        for model, key in zip(step.models, ("guidance_scale", "guest_guidance_scale"), strict=False):
            guidance = step.settings.get(key)
            if isinstance(guidance, int | float):
                found.append(self._catalogue[model].passes(guidance))
        if found and (worn := step.settings.get("style")):
            styles = self._catalogue[str(step.model)].styles
            found[0] += sum(styles[name].passes for name, _ in worn_by(str(worn)) if name in styles)
        return found

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
        card = self._catalogue[step.model]
        steps, strength = denoising_steps(step), settings.get("strength")
        if card.flow and isinstance(strength, int | float):  # which rounds up: two of four steps at strength .3
            total = int(settings.get("steps") or 1)
            steps = total * card.effective_strength(total, float(strength))
        # The card's seconds include its own guidance.
        now, usual = (
            self._passes(step),
            [self._catalogue[m].passes(self._catalogue[m].guidance_scale) for m in step.models],
        )
        passes = sum(now) / sum(usual) if len(now) == len(usual) else 1.0
        units = steps * area / math.prod(card.native_size) * passes
        units *= CONTROLLED if "control" in settings else 1.0
        if step.kind in ("edit", "inpaint") and card.edits == "instruct":  # it sees the pictures beside what it draws
            units *= 2 + int(settings.get("references") or 0)
        # A picture under a mask is encoded twice, whole and without what is masked: about as much as a step.
        return units + ENCODED * area / math.prod(card.native_size) if step.kind == "inpaint" else units

    def snapshot(self) -> dict[str, Any]:
        """What was learned, as builtins that JSON takes."""
        with self._lock:
            return {"version": 2, "observations": {key: [list(pair) for pair in w] for key, w in self._seen.items()}}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over a `snapshot`; replaces what was learned so far. Raises ValueError if it is not one."""
        try:
            if snapshot["version"] == 1:  # one law for all of a model and kind, as now stands in for what was not seen
                observations = {f"{key}/*": pairs for key, pairs in snapshot["observations"].items()}
            elif snapshot["version"] == 2:
                observations = snapshot["observations"]
            else:
                raise ValueError("unknown version")
            seen = {
                str(key): deque([(float(work), float(seconds)) for work, seconds in pairs], maxlen=WINDOW)
                for key, pairs in observations.items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not a snapshot of learned costs ({error!r}); delete the file to start afresh") from error
        with self._lock:
            self._seen, self._rates = {key: window for key, window in seen.items() if window}, {}
            self._levels = {}
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


def _every(step: Step) -> str:
    """The key of the law for all steps of its model and kind."""
    return f"{'+'.join(step.models) or '-'}/{step.kind}/*"


def _level(ratio: NDArray[np.float64]) -> float:
    """The present: the median of the latest; the lower one of two, so that a slow first call is dropped."""
    latest = np.sort(ratio[-LATEST:])
    return float(latest[(len(latest) - 1) // 2])


def _fit(prior: Rate, seen: list[tuple[float, float]]) -> Rate:
    """Least squares for (overhead, per unit), recent observations first in weight, drawn to the prior's proportions.

    The prior's scale is replaced by the latest observations' median ratio to it, so a card that is wrong by a factor of
    hundreds (written for a GPU, run on a CPU) costs nothing: only its split between overhead and steps is kept.
    """
    work, seconds = np.array(seen).T
    expected = np.maximum(prior.overhead_s + prior.per_unit_s * work, 1e-9)
    ratio = seconds / expected
    middle = _level(ratio)
    keep = (ratio <= OUTLIER * middle) & (ratio * OUTLIER >= middle)
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
