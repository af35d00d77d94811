"""Whether a condition holds for a request, and the facts in words that a person can check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from policies.language.patterns import matches
from policies.language.prompt_language import language_of
from policies.language.schema_rules import DAYS, Condition, During
from router.types import Context, Estimate, GenerationRequest, PromptView


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions look at. chosen: the chosen recipe's estimate, once there is one."""

    request: GenerationRequest
    view: PromptView
    context: Context
    chosen: Estimate | None = None


def holds(condition: Condition, facts: Facts) -> str | None:
    """Why the condition holds, in words; None if it does not."""
    return CHECKS[condition.kind](condition, facts)


def _all(condition: Condition, facts: Facts) -> str | None:
    found = [holds(child, facts) for child in condition.all_ or ()]
    return " and ".join(fact for fact in found if fact) if all(found) else None


def _any(condition: Condition, facts: Facts) -> str | None:
    found = [fact for child in condition.any_ or () if (fact := holds(child, facts))]
    return " and ".join(found) or None


def _not(condition: Condition, facts: Facts) -> str | None:
    assert condition.not_ is not None
    return None if holds(condition.not_, facts) else f"not {describe(condition.not_)}"


def _tag(condition: Condition, facts: Facts) -> str | None:
    return f"tagged {condition.tag!r}" if condition.tag in facts.request.tags else None


def _tenant(condition: Condition, facts: Facts) -> str | None:
    return f"from tenant {condition.tenant!r}" if condition.tenant == facts.request.tenant else None


def _min_side(condition: Condition, facts: Facts) -> str | None:
    side, least = _longer_side(facts.request), condition.min_side
    return f"a side of {side} px was asked for" if least is not None and side >= least else None


def _max_side(condition: Condition, facts: Facts) -> str | None:
    side, most = _longer_side(facts.request), condition.max_side  # a size that was not asked for is no small size
    return f"no side above {side} px was asked for" if most is not None and 0 < side <= most else None


def _longer_side(request: GenerationRequest) -> int:
    """In pixels; 0 if no size was asked for."""
    return max(request.width or 0, request.height or 0)


def _during(condition: Condition, facts: Facts) -> str | None:
    during, now = condition.during, facts.context.now
    if during is None or now is None:
        return None
    local = now.astimezone(_zone(during.zone))
    return f"it is {local:%a %H:%M} in {during.zone}" if _within(during, local) else None


def _within(during: During, local: datetime) -> bool:
    clock = f"{local:%H:%M}"
    ends = during.to if during.to != "00:00" else "24:00"
    over_midnight = ends <= during.from_
    if over_midnight and clock < ends:  # this night began yesterday
        return _on(during, local - timedelta(days=1))
    return during.from_ <= clock and (over_midnight or clock < ends) and _on(during, local)


def _on(during: During, local: datetime) -> bool:
    return during.days is None or DAYS[local.weekday()] in during.days


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _signal(condition: Condition, facts: Facts) -> str | None:
    value = facts.view.signals.get(condition.signal or "", 0.0)
    too_low = condition.above is not None and not value > condition.above
    too_high = condition.below is not None and not value < condition.below
    return None if too_low or too_high else f"{condition.signal} is {value:.2f}"


def _language(condition: Condition, facts: Facts) -> str | None:
    return f"the prompt is {condition.language}" if language_of(facts.request.prompt) == condition.language else None


def _prompt_matches(condition: Condition, facts: Facts) -> str | None:
    pattern = condition.prompt_matches or ""
    return f"the prompt matches {pattern!r}" if matches(pattern, facts.request.prompt) else None


def _familiarity_below(condition: Condition, facts: Facts) -> str | None:
    bound, near = condition.familiarity_below or 0.0, facts.view.familiarity
    return None if near is None or not near < bound else f"the prompt is unlike the training prompts ({near:.2f})"


def _uncertainty_above(condition: Condition, facts: Facts) -> str | None:
    if facts.chosen is None or not facts.chosen.quality.std > (condition.uncertainty_above or 0.0):
        return None
    return f"the estimate is uncertain (± {facts.chosen.quality.std:.2f})"


def _quality_below(condition: Condition, facts: Facts) -> str | None:
    if facts.chosen is None or not facts.chosen.quality.mean < (condition.quality_below or 0.0):
        return None
    return f"the expected quality is only {facts.chosen.quality.mean:.2f}"


CHECKS: dict[str, Callable[[Condition, Facts], str | None]] = {
    "all": _all,
    "any": _any,
    "not": _not,
    "tag": _tag,
    "tenant": _tenant,
    "min_side": _min_side,
    "max_side": _max_side,
    "during": _during,
    "signal": _signal,
    "language": _language,
    "prompt_matches": _prompt_matches,
    "familiarity_below": _familiarity_below,
    "uncertainty_above": _uncertainty_above,
    "quality_below": _quality_below,
}


def describe(condition: Condition) -> str:
    """The condition itself in words, as in "tag print", "any of (min_side 1536, tag print)"."""
    if condition.not_ is not None:
        return f"(not {describe(condition.not_)})"
    for word, inner in (("all", condition.all_), ("any", condition.any_)):
        if inner is not None:
            return f"{word} of ({', '.join(map(describe, inner))})"
    if condition.during is not None:
        days = f" on {', '.join(condition.during.days)}" if condition.during.days else ""
        return f"during {condition.during.from_} to {condition.during.to}{days} ({condition.during.zone})"
    content = condition.model_dump(by_alias=True, exclude_none=True)
    return " ".join(f"{key} {value}" for key, value in content.items())
