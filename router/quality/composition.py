"""Quality of recipes that were never rated, from the parts that were.

Rules, each with the knob that a training table may set (`Composition`):
- other settings of a rated recipe: its quality, with a wider std the further away the settings are;
- a chain: its longest known beginning, plus `refine_delta` for each further refine;
- best_of, regions: between the mean of its branches (a useless scorer) and 1 - prod(1 - p) (a perfect scorer on
  independent branches), at `scorer_reliability`;
- average, pyramid, frequency: the mean of the branches (also with a scorer, which mends only what is unlike); denoise:
  the mean by what each counts, start and end together;
- else the prior.
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

from router.planning.recipes import recipe_key, stages_of
from router.types import Catalogue, Chain, Fuse, Generate, Quality, Recipe, Refine

_STAGE = re.compile(r"(?P<model>[^@:>]+)(?:@(?P<steps>\d+))?(?::(?P<settings>[^>]*))?")
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+")
USUAL_STEPS = 25.0  # for keys without steps when no catalogue says better


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


@dataclass(frozen=True, slots=True)
class Outline:
    """How the quality of one recipe follows from what is known: the same for every prompt.

    column:   the known recipe that it is, or whose settings are nearest; distance: from those, None if it is that one
    branches: of a fusion by `method`, each with its weight in the mean (`weights`)
    head:     the chain before its last stage, which is a refine or not (`refines`)
    """

    column: str | None = None
    distance: float | None = None
    method: str = ""
    branches: tuple[Outline, ...] = ()
    weights: tuple[float, ...] = ()
    head: Outline | None = None
    refines: bool = False

    def quality(self, known: Mapping[str, Quality], prior: Quality, rules: Composition) -> Quality:
        """On the prompt for which `known` holds."""
        if self.column is not None:
            near = known[self.column]
            if self.distance is None:
                return near
            return _composed(near.mean, near.std, near.basis, rules.widen + rules.neighbour_widen * self.distance)
        if self.method:
            parts = [part.quality(known, prior, rules) for part in self.branches]
            return _fused(self.method, parts, self.weights, prior, rules)
        if self.head is not None:
            head = self.head.quality(known, prior, rules)
            delta = rules.refine_delta if self.refines else 0.0
            return _composed(head.mean + delta, head.std, head.basis, rules.widen if head.basis == "learned" else 1.0)
        return prior


def outline(recipe: Recipe, columns: Collection[str], catalogue: Catalogue | None = None) -> Outline:
    """The outline of a resolved `recipe`, given the keys of the recipes that were rated."""
    key = recipe_key(recipe, {}, catalogue)
    if key in columns:
        return Outline(column=key)
    if isinstance(recipe, Fuse):
        branches = tuple(
            outline(branch, columns, catalogue) for branch in recipe.branches if not isinstance(branch, str)
        )
        weights = tuple(sum(pair) for pair in recipe.shares) or (1.0,) * len(branches)
        return Outline(method=recipe.method, branches=branches, weights=weights)
    if neighbour := _nearest(key, columns, catalogue):
        return Outline(*neighbour)
    if isinstance(recipe, Chain) and len(stages := stages_of(recipe)) > 1:
        head = outline(_without_last(stages), columns, catalogue)
        return Outline(head=head, refines=isinstance(stages[-1], Refine))
    return Outline()


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


def _composed(mean: float, std: float, basis: Literal["learned", "composed", "prior"], widen: float) -> Quality:
    return Quality(min(1.0, max(0.0, mean)), std * widen, "prior" if basis == "prior" else "composed")


def _nearest(key: str, known: Collection[str], catalogue: Catalogue | None) -> tuple[str, float] | None:
    """The known recipe with the same models in the same roles whose settings are nearest, and how far they are."""
    wanted = _parsed(key, catalogue)
    found: list[tuple[float, str]] = []
    for name in known if wanted else ():
        stages = _parsed(name, catalogue)
        if stages and [s[0] for s in stages] == [s[0] for s in wanted]:
            found.append((sum(_distance(a, b) for a, b in zip(wanted, stages, strict=True)), name))
    return (min(found)[1], min(found)[0]) if found else None


_Stage = tuple[tuple[str, str], float, Mapping[str, str]]  # (model, role), steps, settings


def _parsed(key: str, catalogue: Catalogue | None) -> list[_Stage]:
    """The stages of a key; empty for fusions, which have no settings of their own to compare."""
    return [
        ((model, role), steps or _usual(model, catalogue), settings) for model, role, steps, settings in _split(key)
    ]


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
    """0 for equal settings; doubling the steps is 0.7, another scheduler 0.25, strength counts by its difference."""
    total = abs(math.log(max(1.0, left[1]) / max(1.0, right[1])))
    for name in left[2].keys() | right[2].keys():
        a, b = left[2].get(name), right[2].get(name)
        if a == b:
            continue
        near = name in ("from", "strength") and a is not None and b is not None
        total += abs(float(a or 0) - float(b or 0)) if near else 0.25
    return total
