"""Rules that can never do what they say: conditions that never hold, rules that together leave nothing.

Every way in which the simple conditions of a policy may be true or false together is tried, without those that
contradict one another (a side of at least 1024 and at most 512). With more than `MAX_FACTS` simple conditions, only
those of one rule are looked at together.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

from policies.deciding.conditions import describe
from policies.language.schema_rules import Condition, Rule
from policies.language.source import Path

MAX_FACTS = 10
World = Mapping[str, bool]  # whether each simple condition holds, by its words


def check_sense(rules: Sequence[tuple[int, Rule]], recipes: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Rules (with their places in the file) that never apply, or that leave none of `recipes` whenever they apply."""
    facts = _facts([rule.when for _, rule in rules])
    together = len(facts) <= MAX_FACTS
    worlds = list(_worlds(facts)) if together else []
    for index, rule in rules:
        own = worlds if together else list(_worlds(_facts([rule.when])))
        possible = [world for world in own if _true(rule.when, world)] if own else [{}]
        if not possible:
            yield ("rules", index, "when"), f"rule {rule.name!r} never applies: {describe(rule.when)} cannot hold"
            continue
        if not _bars(rule) or not together:
            continue
        left = [_left(rules, recipes, world) for world in possible]
        if not any(left):
            others = _partners(rule, rules, possible)
            together_with = f" together with {', '.join(others)}; loosen one of them" if others else "; loosen it"
            yield ("rules", index), f"rule {rule.name!r} leaves no recipe whenever it applies{together_with}"


def unreachable(rules: Sequence[tuple[int, Rule]], recipes: Collection[str]) -> set[str]:
    """Recipes that the rules exclude in every case."""
    facts = _facts([rule.when for _, rule in rules])
    if not any(_bars(rule) for _, rule in rules) or len(facts) > MAX_FACTS:
        return set()
    return set(recipes).difference(*(_left(rules, recipes, world) for world in _worlds(facts)))


def _bars(rule: Rule) -> bool:
    return bool(rule.only or rule.never)


def _left(rules: Sequence[tuple[int, Rule]], recipes: Collection[str], world: World) -> set[str]:
    left = set(recipes)
    for _, rule in rules:
        if _bars(rule) and _true(rule.when, world):
            left &= set(rule.only) if rule.only else left
            left -= set(rule.never or ())
    return left


def _partners(rule: Rule, rules: Sequence[tuple[int, Rule]], possible: Sequence[World]) -> list[str]:
    """Names of the rules that hold wherever this one does."""
    return [
        repr(other.name)
        for _, other in rules
        if other is not rule and _bars(other) and all(_true(other.when, world) for world in possible)
    ]


def _facts(conditions: Collection[Condition]) -> dict[str, Condition]:
    """The simple conditions inside, by their words."""
    found: dict[str, Condition] = {}
    for condition in conditions:
        inner = [*(condition.all_ or ()), *(condition.any_ or ()), *([condition.not_] if condition.not_ else ())]
        found |= _facts(inner) if inner else {describe(condition): condition}
    return found


def _worlds(facts: Mapping[str, Condition]) -> Iterator[World]:
    if len(facts) > 2 * MAX_FACTS:
        return
    for truths in itertools.product((False, True), repeat=len(facts)):
        world = dict(zip(facts, truths, strict=True))
        if _possible(facts, world):
            yield world


def _true(condition: Condition, world: World) -> bool:
    if condition.all_ is not None:
        return all(_true(child, world) for child in condition.all_)
    if condition.any_ is not None:
        return any(_true(child, world) for child in condition.any_)
    if condition.not_ is not None:
        return not _true(condition.not_, world)
    return world[describe(condition)]


def _possible(facts: Mapping[str, Condition], world: World) -> bool:
    """Whether these truths can meet: one tenant, one language, one longer side, one value of each signal."""
    holding = [condition for words, condition in facts.items() if world[words]]
    for kind in ("tenant", "language"):
        if len({getattr(c, kind) for c in holding if getattr(c, kind) is not None}) > 1:
            return False
    return _sides_meet(facts, world) and all(
        _values_meet([(c, world[words]) for words, c in facts.items() if c.signal == signal])
        for signal in {c.signal for c in facts.values() if c.signal is not None}
    )


def _sides_meet(facts: Mapping[str, Condition], world: World) -> bool:
    candidates = {0}
    for condition in facts.values():
        for side in (condition.min_side, condition.max_side):
            candidates |= {side - 1, side, side + 1} if side is not None else set()
    return any(
        all(
            world[words] == (0 < side <= c.max_side if c.max_side is not None else side >= (c.min_side or 0))
            for words, c in facts.items()
            if c.min_side is not None or c.max_side is not None
        )
        for side in candidates
    )


def _values_meet(conditions: Sequence[tuple[Condition, bool]]) -> bool:
    bounds = sorted({0.0, 1.0, *(b for c, _ in conditions for b in (c.above, c.below) if b is not None)})
    candidates = [*bounds, *((low + high) / 2 for low, high in itertools.pairwise(bounds))]
    return any(
        all(truth == ((c.above is None or v > c.above) and (c.below is None or v < c.below)) for c, truth in conditions)
        for v in candidates
    )
