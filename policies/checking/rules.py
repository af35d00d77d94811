"""Rules at load: their names, their order, and whether they make sense together."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

from policies.checking.contradictions import check_sense
from policies.language.schema_rules import OF_THE_CHOICE, Condition, Rule
from policies.language.source import MAX_PROBLEMS, Path
from router.errors import did_you_mean

Indexed = Sequence[tuple[int, Rule]]


def in_order(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The order in which rules apply: falling priority, then as in the file."""
    return tuple(sorted(rules, key=lambda rule: -rule.priority))


def check_rules(
    rules: Indexed, recipes: Collection[str], signals: Collection[str] | None
) -> Iterator[tuple[Path, str]]:
    """Everything wrong with the rules (each with its index in the file). `signals` None: not to be checked."""
    wrong = list(itertools.islice(_named(rules, recipes, signals), MAX_PROBLEMS + 1))
    yield from wrong
    if len(wrong) > MAX_PROBLEMS:
        return
    lost = {path[1] for path, _ in wrong}
    yield from check_sense([(index, rule) for index, rule in rules if index not in lost], recipes)


def _named(rules: Indexed, recipes: Collection[str], signals: Collection[str] | None) -> Iterator[tuple[Path, str]]:
    """What each rule says on its own."""
    seen: dict[str, int] = {}
    for index, rule in rules:
        path: Path = ("rules", index)
        if rule.name in seen:
            yield (*path, "name"), f"rules {seen[rule.name] + 1} and {index + 1} are both named {rule.name!r}"
        seen.setdefault(rule.name, index)
        for key, names in (("only", rule.only), ("never", rule.never), ("prefer", rule.prefer)):
            yield from check_names((*path, key), names or (), recipes)
        among = rule.set_.explore.among if rule.set_ and rule.set_.explore else None
        yield from check_names((*path, "set", "explore", "among"), among or (), recipes)
        yield from check_condition(rule.when, (*path, "when"), signals, chosen=False)


def check_names(path: Path, names: Sequence[str], recipes: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Names in a list of recipes that do not exist, or stand there twice."""
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name not in recipes:
            yield (*path, place), f"unknown recipe {name!r}{did_you_mean(name, recipes)}"
        elif name in seen:
            yield (*path, place), f"{name!r} stands in this list twice; drop one"
        seen.add(name)


def check_condition(
    condition: Condition, path: Path, signals: Collection[str] | None, chosen: bool
) -> Iterator[tuple[Path, str]]:
    """Signals that do not exist, and conditions on the chosen recipe where none is `chosen` yet."""
    for where, inner in _conditions(condition, path):
        if signals is not None and inner.signal is not None and inner.signal not in signals:
            yield (*where, "signal"), f"unknown signal {inner.signal!r}{did_you_mean(inner.signal, signals)}"
        if inner.kind in OF_THE_CHOICE and not chosen:
            yield (
                (*where, inner.kind),
                f"{inner.kind} asks about the chosen recipe, and rules apply before one is chosen; use it in verify",
            )


def _conditions(condition: Condition, path: Path) -> Iterator[tuple[Path, Condition]]:
    yield path, condition
    for key, inner in (("all", condition.all_), ("any", condition.any_)):
        for index, child in enumerate(inner or ()):
            yield from _conditions(child, (*path, key, index))
    if condition.not_ is not None:
        yield from _conditions(condition.not_, (*path, "not"))
