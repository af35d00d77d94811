"""Quality of recipes that were never rated, from the parts that were.

Rules, each with the knob that a training table may set (`Composition`):
- other settings of a rated recipe: its quality, lowered and with a wider std the further away the settings are:
    steps, usual steps u (the card's):   g(s) = 1 - exp(-4 s / u), which saturates: .88 of g(u) at half the usual
        steps, .13 at a thirtieth. Fewer steps s than the rated t: times g(s) / g(t). More: as good as the rated, no
        better. Between two rated: no better than the upper one lets it be, no worse than the lower one. So more steps
        are never expected to be worse, and fewer never to be as good. (The embedded SDXL is right in .89 at u, .86 at
        .8 u and .84 at .6 u; by g it would be .87 and .82.)
    all others, d apart (`_distance`):   times exp(-.05 d)
- another size, d apart (`sizes.apart`): the same, by `elsewhere`; nothing is rated at more than one size;
- another style, or one where none was rated: as if d = 1 apart;
- other weights under the same id (a tuning that changes pictures counts as such), or other settings of its card than
  were rated: as if they were d = 1 apart, each;
- a chain: its longest known beginning, plus `refine_delta` for each further refine, less for one of fewer steps than
  usual;
- best_of, regions: between the mean of its branches (a useless scorer) and 1 - prod(1 - p) (a perfect scorer on
  independent branches), at `scorer_reliability`;
- average, pyramid, frequency: the mean of the branches (also with a scorer, which mends only what is unlike); denoise:
  the mean by what each counts, start and end together;
- else the prior, of a model with fewer steps than usual by the same curve.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from router.planning.recipes import PAINTED, models_of, recipe_key, stages_of
from router.types import Catalogue, Chain, Edit, Fuse, Generate, Quality, Recipe, Refine

_STAGE = re.compile(r"(?P<model>[^@:>]+)(?:@(?P<steps>\d+))?(?::(?P<settings>[^>]*))?")
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+")
USUAL_STEPS = 25.0  # for keys without steps when no catalogue says better
SATURATION = 4.0  # of the curve of steps
LOSS = 0.05  # of the quality, for each unit of distance in other settings
MISSED = 0.5  # of what is taken off a mean for settings that were not rated, as a standard deviation more
RATED = ("learned", "rule")  # bases of recipes that were rated themselves
KEPT_STD = 0.3  # of how well a picture that somebody brings fits a prompt: little less than knowing nothing
OTHER_WEIGHTS = 1.0  # distance of a model to another one under its id
OTHER_STYLE = 1.0  # distance of a picture to one in another style, or in none

Record = Mapping[str, Mapping[str, object]]
"""Of each model, what its card said when it was rated: steps, guidance_scale, scheduler, weights (`card_record`)."""


@dataclass(frozen=True, slots=True)
class Composition:
    """scorer_reliability: 0 (useless) to 1 (perfect); refine_delta: score that a refine adds; widen: factor on the std
    of anything composed; neighbour_widen: further factor per unit of distance between settings."""

    scorer_reliability: float = 0.6
    refine_delta: float = 0.0
    widen: float = 1.25
    neighbour_widen: float = 0.5


def composition_of(columns: Sequence[str], scores_of: NDArray[np.float64]) -> Composition:
    """The default rules, with what scores (n, c; NaN = not rated) of recipe keys `columns` show: what a refine adds,
    and how reliable scorers are."""
    usual = Composition()
    scores = dict(zip(columns, scores_of.T, strict=True))
    deltas = [
        float(np.nanmean(scores[name] - scores[head]))
        for name in columns
        if "(" not in name
        and (head := name.rpartition(">")[0]) in scores
        and np.isfinite(scores[name] - scores[head]).any()
    ]
    gains: list[tuple[float, float]] = []
    for name in columns:
        branches = name.partition(";")[2].removesuffix(")").split("|") if name.startswith("best_of(") else []
        if branches and all(branch in scores for branch in branches):
            parts = np.stack([scores[branch] for branch in branches])
            mean, perfect = parts.mean(axis=0), 1 - np.prod(1 - parts, axis=0)
            gains.append(
                (float(np.nansum((scores[name] - mean) * (perfect - mean))), float(np.nansum((perfect - mean) ** 2)))
            )
    room = sum(right for _, right in gains)
    reliability = sum(left for left, _ in gains) / room if room > 1e-9 else usual.scorer_reliability
    return Composition(
        scorer_reliability=float(np.clip(reliability, 0.0, 1.0)),
        refine_delta=float(np.mean(deltas)) if deltas else usual.refine_delta,
        widen=usual.widen,
        neighbour_widen=usual.neighbour_widen,
    )


def card_record(model: str, catalogue: Catalogue) -> dict[str, object]:
    """What changes the pictures of a model by its card: for an artefact's `cards`, and to compare with that later."""
    card = catalogue[model]
    place = next(
        (str(card.source[key]) for key in ("hub", "file", "local", "onnx", "remote") if card.source.get(key)), ""
    )
    if not card.source.get("hub") and card.remote is None:  # the same files may lie elsewhere
        place = "/".join(place.replace("\\", "/").rstrip("/").split("/")[-2:])
    # Fewer bits, or a step that is taken over from the one before, are as good as other weights.
    tuned = f"+{card.changes}" if card.changes else ""
    return {
        "steps": card.steps,
        "guidance_scale": card.guidance_scale,
        "scheduler": card.scheduler,
        "weights": f"{place}@{card.revision}{tuned}",
    }


def elsewhere(quality: Quality, distance: float, rules: Composition) -> Quality:
    """The quality at a size `distance` (`sizes.apart`) from the one that was rated; itself at none."""
    if not distance:
        return quality
    widen = rules.widen + rules.neighbour_widen * distance
    return _lowered(quality, quality.mean * math.exp(-LOSS * distance), widen)


@dataclass(frozen=True, slots=True)
class Outline:
    """How the quality of one recipe follows from what is known: the same for every prompt.

    column:   the known recipe that it is, or whose settings are nearest; distance: from those, None if it is that one
    near:     all known recipes that differ in steps alone from this one, or as little as that in the rest (`apart`)
    branches: of a fusion by `method`, each with its weight in the mean (`weights`)
    head:     the chain before its last stage; refines: what that refine does of what a usual one does, 0 if it is none
    steps:    of a model of which nothing was rated, what fewer steps than usual leave of the prior
    kept:     of a given picture that `head`'s model paints over, how much stays (0..1), of which nothing is known
    """

    column: str | None = None
    distance: float | None = None
    near: tuple[_Near, ...] = ()
    apart: float = 0.0
    method: str = ""
    branches: tuple[Outline, ...] = ()
    weights: tuple[float, ...] = ()
    head: Outline | None = None
    refines: float = 0.0
    steps: float = 1.0
    kept: float | None = None

    def quality(self, known: Mapping[str, Quality], prior: Quality, rules: Composition) -> Quality:
        """On the prompt for which `known` holds."""
        if self.column is not None:
            near = known[self.column]
            if self.distance is None:
                return near
            mean = _by_steps(self.near, known) * math.exp(-LOSS * self.apart)
            return _lowered(near, min(mean, near.mean), rules.widen + rules.neighbour_widen * self.distance)
        if self.method:
            parts = [part.quality(known, prior, rules) for part in self.branches]
            return _fused(self.method, parts, self.weights, prior, rules)
        if self.head is not None and self.kept is not None:
            drawn = self.head.quality(known, prior, rules)
            return _composed(drawn.mean, math.hypot(drawn.std, KEPT_STD * self.kept), drawn.basis, 1.0)
        if self.head is not None:
            head = self.head.quality(known, prior, rules)
            # A refine that takes something off is taken to do so whatever its steps.
            delta = rules.refine_delta * (self.refines if rules.refine_delta > 0 else bool(self.refines))
            return _composed(head.mean + delta, head.std, head.basis, rules.widen if head.basis in RATED else 1.0)
        return prior if self.steps == 1 else replace(prior, mean=prior.mean * self.steps)


@dataclass(frozen=True, slots=True)
class _Near:
    """A rated recipe. share: of its quality that the steps asked for leave (1: no fewer than its own); above, below: it
    has more, or fewer, steps than were asked for."""

    column: str
    share: float
    above: bool
    below: bool


def _by_steps(near: Sequence[_Near], known: Mapping[str, Quality]) -> float:
    """The mean that rated numbers of steps allow: grows with the steps asked for, if the rated means do with theirs."""
    upper = [known[one.column].mean * one.share for one in near if one.above or not one.below]
    lower = [known[one.column].mean for one in near if one.below and not one.above]
    return max(min(upper, default=0.0), max(lower, default=0.0))


def outline(
    recipe: Recipe, columns: Collection[str], catalogue: Catalogue | None = None, record: Record | None = None
) -> Outline:
    """The outline of a resolved `recipe`, given the keys of the recipes that were rated, and, if it is known, what the
    cards said then."""
    if isinstance(recipe, Edit):
        return _edited(recipe, columns, catalogue, record)
    key = recipe_key(recipe, {}, catalogue)
    changed = sum(_changed(model, catalogue, record) for model in sorted(set(models_of(recipe))))
    if key in columns and not changed:
        return Outline(column=key)
    if key in columns and isinstance(recipe, Fuse):
        return Outline(column=key, distance=changed, near=(_Near(key, 1.0, True, True),), apart=changed)
    if isinstance(recipe, Fuse):
        branches = tuple(
            outline(branch, columns, catalogue, record) for branch in recipe.branches if not isinstance(branch, str)
        )
        weights = tuple(sum(pair) for pair in recipe.shares) or (1.0,) * len(branches)
        return Outline(method=recipe.method, branches=branches, weights=weights)
    if neighbour := _nearest(key, columns, catalogue, record):
        return neighbour
    if isinstance(recipe, Chain) and len(stages := stages_of(recipe)) > 1:
        head, last = outline(_without_last(stages), columns, catalogue, record), stages[-1]
        if not isinstance(last, Refine):
            return Outline(head=head)
        usual = _usual(last.model, catalogue)
        return Outline(head=head, refines=min(1.0, curve((last.steps or usual) / usual) / curve(1.0)))
    if isinstance(recipe, Generate) and recipe.steps is not None:
        return Outline(steps=min(1.0, curve(recipe.steps / _usual(recipe.model, catalogue)) / curve(1.0)))
    return Outline()


def _edited(
    recipe: Edit, columns: Collection[str], catalogue: Catalogue | None = None, record: Record | None = None
) -> Outline:
    """As the model alone on the prompt; the less it paints over, by strength and mask, the less is known."""
    key = recipe_key(recipe, {}, catalogue)
    if key in columns and not _changed(recipe.model, catalogue, record):
        return Outline(column=key)
    alone = Generate(recipe.model, recipe.steps, recipe.guidance_scale, recipe.scheduler, style=recipe.style)
    painted = (PAINTED if recipe.strength is None else recipe.strength) * (1.0 if recipe.mask is None else recipe.mask)
    return Outline(head=outline(alone, columns, catalogue, record), kept=1 - painted)


def curve(share: float) -> float:
    """How good a picture is by its steps, as a share of the usual ones: 0 at none, 1 at infinitely many."""
    return 1 - math.exp(-SATURATION * share)


def _changed(model: str, catalogue: Catalogue | None, record: Record | None) -> float:
    """How far a model's card is from the one that was rated, in weights and settings; 0 where that is not known."""
    if catalogue is None or not record or model not in record or model not in catalogue:
        return 0.0
    then, now = record[model], card_record(model, catalogue)
    distance = OTHER_WEIGHTS * (then.get("weights", now["weights"]) != now["weights"])
    return distance + sum(then.get(key, now[key]) != now[key] for key in ("steps", "guidance_scale", "scheduler"))


def _without_last(stages: Sequence[Recipe]) -> Recipe:
    """The chain before its last stage; a generate that handed over latents is taken to run to its end."""
    *before, last = stages[:-1]
    if isinstance(last, Generate) and last.until is not None:
        last = replace(last, until=None)
    return Chain((*before, last)) if before else last


def _fused(
    method: str, branches: Sequence[Quality], weights: Sequence[float], prior: Quality, rules: Composition
) -> Quality:
    if not branches or all(branch.basis == "prior" for branch in branches):
        return prior
    parts = [(weight / sum(weights), branch) for weight, branch in zip(weights, branches, strict=True)]
    mean = sum(share * branch.mean for share, branch in parts)
    std = math.sqrt(sum(share * branch.std**2 for share, branch in parts))
    if method in ("best_of", "regions"):
        perfect = 1 - math.prod(1 - branch.mean for branch in branches)
        mean += rules.scorer_reliability * (perfect - mean)
    return _composed(mean, std, "composed", rules.widen)


def _lowered(near: Quality, mean: float, widen: float) -> Quality:
    """What is known of one recipe, for one whose mean is expected to be lower and is less sure."""
    std = math.hypot(near.std * widen, MISSED * max(0.0, near.mean - mean))
    return _composed(mean, std, near.basis, 1.0)


def _composed(mean: float, std: float, basis: Literal["learned", "rule", "composed", "prior"], widen: float) -> Quality:
    return Quality(min(1.0, max(0.0, mean)), std * widen, "prior" if basis == "prior" else "composed")


def _nearest(key: str, known: Collection[str], catalogue: Catalogue | None, record: Record | None) -> Outline | None:
    """The known recipes with the same models in the same roles whose settings are nearest, and how far they are."""
    wanted = _parsed(key, catalogue, None)
    found: list[tuple[float, float, str, _Near]] = []
    for name in known if wanted else ():
        stages = _parsed(name, catalogue, record)
        if stages and [s.place for s in stages] == [s.place for s in wanted]:
            pairs = list(zip(wanted, stages, strict=True))
            others = sum(_distance(a, b) for a, b in pairs)
            others += sum(_weights_changed(model, catalogue, record) for model in {s.place[0] for s in stages})
            steps = sum(abs(math.log(a.steps / b.steps)) for a, b in pairs)
            share = math.prod(min(1.0, curve(a.steps / a.usual) / curve(b.steps / a.usual)) for a, b in pairs)
            above, below = (any(sign * (b.steps - a.steps) > 0 for a, b in pairs) for sign in (1, -1))
            found.append((others, steps, name, _Near(name, share, above, below)))
    if not found:
        return None
    least = min(others for others, *_ in found)
    near = [one for one in found if one[0] <= least + 1e-9]
    _, steps, column, _ = min(near, key=lambda one: one[1:3])
    if least + steps == 0:  # written otherwise, and the same: a card's settings have become what a recipe said
        return Outline(column=column)
    return Outline(column, least + steps, tuple(one[3] for one in near), least)


def _weights_changed(model: str, catalogue: Catalogue | None, record: Record | None) -> float:
    if catalogue is None or not record or model not in record or model not in catalogue:
        return 0.0
    now = card_record(model, catalogue)["weights"]
    return OTHER_WEIGHTS * (record[model].get("weights", now) != now)


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage of a key. place: (model, role); usual: steps of its card now; settings: those that the key says, and
    guidance and scheduler of the card, where it is known."""

    place: tuple[str, str]
    steps: float
    usual: float
    settings: Mapping[str, str]


def _parsed(key: str, catalogue: Catalogue | None, record: Record | None) -> list[_Stage]:
    """The stages of a key; empty for fusions, which have no settings of their own to compare. record: what cards said
    when the key was written; None: what they say now."""
    stages = []
    for model, role, steps, said in _split(key):
        usual = _usual(model, catalogue)
        then = dict((record or {}).get(model, {}))
        card: dict[str, object] = {}
        if catalogue is not None and model in catalogue:
            card = {"guidance_scale": catalogue[model].guidance_scale, "scheduler": catalogue[model].scheduler}
        shown = {name: str(value) for name, value in {**card, **then}.items() if name in card}
        own = then.get("steps")
        meant = steps or (float(own) if isinstance(own, int) else usual)
        stages.append(_Stage((model, role), max(1.0, meant), max(1.0, usual), {**shown, **said}))
    return stages


def _usual(model: str, catalogue: Catalogue | None) -> float:
    return float(catalogue[model].steps) if catalogue is not None and model in catalogue else USUAL_STEPS


@functools.lru_cache(maxsize=4096)
def _split(key: str) -> tuple[tuple[str, str, float, Mapping[str, str]], ...]:
    """(model, role, steps or 0, settings) of each stage."""
    matches = [] if "(" in key else [_STAGE.fullmatch(part) for part in key.split(">")]
    stages = []
    for match in matches:
        if match is None:
            return ()
        settings = dict(item.split("=", 1) for item in (match["settings"] or "").split(",") if "=" in item)
        role = next((name for name in ("from", "strength") if name in settings), "generate")
        if role != "generate" and not _NUMBER.fullmatch(settings[role]):  # a column may be called anything
            return ()
        stages.append((match["model"], role, float(match["steps"] or 0), settings))
    return tuple(stages)


def _distance(left: _Stage, right: _Stage) -> float:
    """0 for equal settings but for the steps; guidance counts as its logarithm from 1 on, a strength and a share by the
    difference, another style as 1, anything else (another scheduler, tiles) as 0.25."""
    total = 0.0
    for name in left.settings.keys() | right.settings.keys():
        a, b = left.settings.get(name), right.settings.get(name)
        if a == b:
            continue
        if name == "style":
            total += OTHER_STYLE
        elif a is None or b is None:
            total += 0.25
        elif name in ("from", "strength", "until"):
            total += abs(float(a) - float(b))
        elif name == "guidance_scale":
            total += abs(math.log((1 + float(a)) / (1 + float(b))))
        else:
            total += 0.25
    return total
