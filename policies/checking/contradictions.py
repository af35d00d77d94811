"""Rules that can never do what they say: conditions that never hold, rules that together leave nothing.

Every way in which the simple conditions of a policy may be true or false together is looked at, without those that
contradict one another (a side of at least 1024 and at most 512). All ways at once: a condition is a whole number with
one bit for each of them, so that `all` is an and of numbers. With more than `MAX_FACTS` simple conditions, only those
of one rule are looked at together, and a rule with more than that alone is left out; `unchecked` says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policies.deciding.conditions import describe
from policies.language.schema_rules import Condition, Rule
from policies.language.source import Path

MAX_FACTS = 12
Indexed = Sequence[tuple[int, Rule]]


def check_sense(rules: Indexed, recipes: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Rules (with their places in the file) that never apply, or that leave none of `recipes` whenever they apply."""
    together = _Worlds.of([rule.when for _, rule in rules])
    allowed = together.allowed(rules, recipes) if together else {}
    barring = [(rule, together.where(rule.when)) for _, rule in rules if _bars(rule)] if together else []
    for index, rule in rules:
        worlds = together or _Worlds.of([rule.when])
        if worlds is None:
            continue
        if not (where := worlds.where(rule.when)):
            yield ("rules", index, "when"), f"rule {rule.name!r} never applies: {describe(rule.when)} cannot hold"
            continue
        if together and _bars(rule) and not any(where & worlds_of_it for worlds_of_it in allowed.values()):
            others = [repr(other.name) for other, there in barring if other is not rule and not where & ~there]
            together_with = f" together with {', '.join(others)}; loosen one of them" if others else "; loosen it"
            yield ("rules", index), f"rule {rule.name!r} leaves no recipe whenever it applies{together_with}"


def unreachable(rules: Indexed, recipes: Collection[str]) -> set[str]:
    """Recipes that the rules exclude in every case."""
    worlds = _Worlds.of([rule.when for _, rule in rules]) if any(_bars(rule) for _, rule in rules) else None
    if worlds is None:
        return set()
    return {recipe for recipe, where in worlds.allowed(rules, recipes).items() if not where}


def unchecked(rules: Sequence[Rule]) -> tuple[str, ...]:
    """What is not looked for in these rules because it would take too long, in words."""
    skipped = []
    if (count := len(_facts([rule.when for rule in rules]))) > MAX_FACTS:
        skipped.append(
            f"the rules ask about {count} different things, more than {MAX_FACTS}; "
            "whether they leave a recipe in every case was not checked"
        )
    for rule in rules:
        if (count := len(_facts([rule.when]))) > MAX_FACTS:
            skipped.append(
                f"rule {rule.name!r} asks about {count} different things, more than {MAX_FACTS}; "
                "whether it can ever apply was not checked"
            )
    return tuple(skipped)


def _bars(rule: Rule) -> bool:
    return bool(rule.only or rule.never)


def _facts(conditions: Collection[Condition]) -> dict[str, Condition]:
    """The simple conditions inside, by their words."""
    found: dict[str, Condition] = {}
    waiting = list(reversed([*conditions]))
    while waiting:
        condition = waiting.pop()
        inner = [*(condition.all_ or ()), *(condition.any_ or ()), *([condition.not_] if condition.not_ else ())]
        if inner:
            waiting.extend(reversed(inner))
        else:
            found[describe(condition)] = condition
    return found


@dataclass(frozen=True)
class _Worlds:
    """Sets of worlds as numbers, one bit for each world. holding: where each simple condition is true, by its words;
    possible: where no two of them contradict one another"""

    holding: Mapping[str, int]
    possible: int

    @classmethod
    def of(cls, conditions: Collection[Condition]) -> _Worlds | None:
        """All worlds of the simple conditions inside; None if there are too many."""
        facts = _facts(conditions)
        if len(facts) > MAX_FACTS:
            return None
        every = (1 << (1 << len(facts))) - 1
        # World w has fact k if bit k of w is set: 2**k worlds without it, then 2**k with it, and so on.
        holding = {words: every // ((1 << (1 << k)) + 1) << (1 << k) for k, words in enumerate(facts)}
        return cls(holding, _possible(facts, holding, every))

    def where(self, condition: Condition) -> int:
        """The possible worlds in which a condition holds."""
        return self._where(condition) & self.possible

    def _where(self, condition: Condition) -> int:
        if condition.not_ is not None:
            return ~self._where(condition.not_)
        if condition.all_ is not None:
            found = -1
            for child in condition.all_:
                found &= self._where(child)
            return found
        if condition.any_ is not None:
            found = 0
            for child in condition.any_:
                found |= self._where(child)
            return found
        return self.holding[describe(condition)]

    def allowed(self, rules: Indexed, recipes: Collection[str]) -> dict[str, int]:
        """The possible worlds in which no rule excludes a recipe, by recipe."""
        barring = [(rule, self.where(rule.when)) for _, rule in rules if _bars(rule)]
        found = dict.fromkeys(recipes, self.possible)
        for rule, where in barring:
            only, never = set(rule.only or recipes), set(rule.never or ())
            for recipe in found:
                if recipe in never or recipe not in only:
                    found[recipe] &= ~where
        return found


def _possible(facts: Mapping[str, Condition], holding: Mapping[str, int], every: int) -> int:
    """The worlds whose truths can meet: one tenant, one language, one longer side, one value of each signal."""
    possible = every
    for kind in ("tenant", "language"):
        alike = [holding[words] for words, condition in facts.items() if getattr(condition, kind) is not None]
        for one, other in itertools.combinations(alike, 2):
            possible &= ~(one & other)
    sides = [(c, holding[words]) for words, c in facts.items() if c.min_side is not None or c.max_side is not None]
    possible &= _meeting(sides, _sides([c for c, _ in sides]), _side_holds, every)
    for signal in {c.signal for c in facts.values() if c.signal is not None}:
        values = [(c, holding[words]) for words, c in facts.items() if c.signal == signal]
        possible &= _meeting(values, _values([c for c, _ in values]), _value_holds, every)
    return possible


def _meeting(
    conditions: Sequence[tuple[Condition, int]],
    candidates: Collection[float],
    true_at: Callable[[Condition, float], bool],
    every: int,
) -> int:
    """The worlds in which all conditions on one number are as they are at one of the candidates."""
    found = 0
    for value in candidates:
        here = every
        for condition, holding in conditions:
            here &= holding if true_at(condition, value) else ~holding
        found |= here
    return found


def _sides(conditions: Collection[Condition]) -> set[float]:
    """A side on either side of every bound; 0 is a size that was not asked for."""
    bounds = {side for c in conditions for side in (c.min_side, c.max_side) if side is not None}
    return {0, *(side + step for side in bounds for step in (-1, 0, 1))}


def _side_holds(condition: Condition, side: float) -> bool:
    return 0 < side <= condition.max_side if condition.max_side is not None else side >= (condition.min_side or 0)


def _values(conditions: Collection[Condition]) -> set[float]:
    """A value at and between all bounds."""
    bounds = sorted({0.0, 1.0, *(b for c in conditions for b in (c.above, c.below) if b is not None)})
    return {*bounds, *((low + high) / 2 for low, high in itertools.pairwise(bounds))}


def _value_holds(condition: Condition, value: float) -> bool:
    return (condition.above is None or value > condition.above) and (condition.below is None or value < condition.below)
