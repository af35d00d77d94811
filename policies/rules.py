"""Conditions of rules: whether they hold for a request, and the facts in words that a person can check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from policies.patterns import matches
from policies.schema import Condition, Rule
from policies.source import Path
from router.errors import did_you_mean
from router.types import GenerationRequest, PromptView


def holds(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    """Why the condition holds, in words; None if it does not."""
    for key, check in CHECKS.items():
        if key in condition.given():
            return check(condition, request, view)
    raise ValueError(f"a condition without a kind: {condition}")  # the schema lets none through


def check_rules(
    rules: Sequence[tuple[int, Rule]], recipes: Collection[str], signals: Collection[str] | None
) -> Iterator[tuple[Path, str]]:
    """Names in rules that do not exist, and rules with the same name. `signals` None: not to be checked."""
    seen: dict[str, int] = {}
    for index, rule in rules:
        path: Path = ("rules", index)
        if rule.name in seen:
            yield (*path, "name"), f"rules {seen[rule.name] + 1} and {index + 1} are both named {rule.name!r}"
        seen.setdefault(rule.name, index)
        for key, names in (("only", rule.only), ("never", rule.never)):
            for place, name in enumerate(names or ()):
                if name not in recipes:
                    yield (*path, key, place), f"unknown recipe {name!r}{did_you_mean(name, recipes)}"
        for where, condition in _conditions(rule.when, (*path, "when")):
            if signals is not None and condition.signal is not None and condition.signal not in signals:
                word = condition.signal
                yield (*where, "signal"), f"unknown signal {word!r}{did_you_mean(word, signals)}"


def _conditions(condition: Condition, path: Path) -> Iterator[tuple[Path, Condition]]:
    yield path, condition
    for key, inner in (("all", condition.all_), ("any", condition.any_)):
        for index, child in enumerate(inner or ()):
            yield from _conditions(child, (*path, key, index))
    if condition.not_ is not None:
        yield from _conditions(condition.not_, (*path, "not"))


def _all(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    facts = [holds(child, request, view) for child in condition.all_ or ()]
    return " and ".join(fact for fact in facts if fact) if all(facts) else None


def _any(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    facts = [fact for child in condition.any_ or () if (fact := holds(child, request, view))]
    return " and ".join(facts) or None


def _not(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    assert condition.not_ is not None
    return None if holds(condition.not_, request, view) else f"not {describe(condition.not_)}"


def _tag(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    return f"tagged {condition.tag!r}" if condition.tag in request.tags else None


def _min_side(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    side = max(request.width or 0, request.height or 0)
    return f"a side of {side} px was asked for" if side >= (condition.min_side or 0) else None


def _max_side(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    side = max(request.width or 0, request.height or 0)  # a size that was not asked for is no small size
    return f"no side above {side} px was asked for" if 0 < side <= (condition.max_side or 0) else None


def _signal(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    value = view.signals.get(condition.signal or "", 0.0)
    too_low = condition.above is not None and not value > condition.above
    too_high = condition.below is not None and not value < condition.below
    return None if too_low or too_high else f"{condition.signal} is {value:.2f}"


def _prompt_matches(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    pattern = condition.prompt_matches or ""
    return f"the prompt matches {pattern!r}" if matches(pattern, request.prompt) else None


def _in_domain_below(condition: Condition, request: GenerationRequest, view: PromptView) -> str | None:
    bound = condition.in_domain_below or 0.0
    if view.in_domain is None or not view.in_domain < bound:
        return None
    return f"the prompt is unlike the training prompts ({view.in_domain:.2f} below {bound:g})"


CHECKS: dict[str, Callable[[Condition, GenerationRequest, PromptView], str | None]] = {
    "all": _all,
    "any": _any,
    "not": _not,
    "tag": _tag,
    "min_side": _min_side,
    "max_side": _max_side,
    "signal": _signal,
    "prompt_matches": _prompt_matches,
    "in_domain_below": _in_domain_below,
}


def describe(condition: Condition) -> str:
    """The condition itself in words, as in "tag print", "any of (min_side 1536, tag print)"."""
    if condition.not_ is not None:
        return f"(not {describe(condition.not_)})"
    for word, inner in (("all", condition.all_), ("any", condition.any_)):
        if inner is not None:
            return f"{word} of ({', '.join(map(describe, inner))})"
    content = condition.model_dump(by_alias=True, exclude_none=True)
    return " ".join(f"{key} {value}" for key, value in content.items())
