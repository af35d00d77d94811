"""What loading a policy costs: work grows with the file, and no file costs more than its size."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import load_policy_text
from policies.checking.contradictions import MAX_FACTS, check_sense, unreachable
from policies.language.schema_rules import Condition, Rule
from policies.language.source import MAX_PROBLEMS
from router.errors import PolicyError
from tests.policies.values import HEAD, MODELS, QUALITY, RECIPES

BODY = HEAD + RECIPES + QUALITY


def calls(text: str) -> int:
    """How many functions are entered and left while a text is loaded or refused."""
    count = 0

    def profile(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(profile)
    try:
        load_policy_text(text, models=MODELS)
    except PolicyError:
        pass
    finally:
        sys.setprofile(None)
    return count


def tags(number: int, prefix: str = "t") -> str:
    return ", ".join(f"{{tag: {prefix}{k}}}" for k in range(number))


def rules(number: int, when: Callable[[int], str], action: str = "never: [draft]") -> str:
    return "rules:\n" + "".join(f"- {{name: r{k}, when: {{{when(k)}}}, {action}}}\n" for k in range(number))


def one_rule(when: str, *never: str) -> str:
    return f"rules: [{{name: r, when: {{{when}}}, never: [{', '.join(never or ('draft',))}]}}]\n"


def many_recipes(number: int) -> str:
    return "".join(f"  recipe_{k}: {{generate: {{model: sd15}}}}\n" for k in range(number))


def unknown(number: int) -> str:
    return one_rule("tag: t", *(f"recipf_{k}" for k in range(number)))


def budgets(number: int) -> str:
    return "budgets:\n" + "".join(f"- {{name: b{k}, window_s: 60, work_s: 1}}\n" for k in range(number))


RECIPES_200 = HEAD + "recipes:\n" + many_recipes(200) + QUALITY

GROWING: dict[str, Callable[[int], str]] = {
    "any of tags in one rule": lambda n: BODY + one_rule(f"any: [{tags(5 * n)}]"),
    "all of tags in one rule": lambda n: BODY + one_rule(f"all: [{tags(5 * n)}]"),
    "rules of a tag each": lambda n: BODY + rules(10 * n, lambda k: f"tag: t{k}"),
    "rules of the same twelve tags": lambda n: BODY + rules(10 * n, lambda k: f"any: [{tags(12)}]"),
    "rules of twelve tags each": lambda n: BODY + rules(10 * n, lambda k: f"any: [{tags(12, f't{k}_')}]"),
    "rules that leave nothing": lambda n: BODY + rules(10 * n, lambda k: "tag: t", "never: [draft, standard, premium]"),
    "recipes": lambda n: HEAD + RECIPES + many_recipes(9 * n) + QUALITY,
    "unknown names": lambda n: RECIPES_200 + unknown(100 * n),
    "the same name": lambda n: BODY + one_rule("tag: t", *["draft"] * 200 * n),
    "budgets": lambda n: BODY + budgets(10 * n),
}


@pytest.mark.parametrize("kind", GROWING)
def test_loading_grows_no_faster_than_the_file(kind: str) -> None:
    """Ten times as much of anything takes at most twelve times as many calls as before."""
    small, large = (calls(GROWING[kind](n)) for n in (1, 10))
    assert large <= 12 * small


@pytest.mark.parametrize(
    "text",
    [
        BODY + rules(10_000, lambda k: f"tag: t{k}"),
        BODY + rules(4_000, lambda k: f"tag: t{k}"),
        BODY + "# " + "x" * 1_000_000,
        BODY + "description: '" + "x" * 1_000_000 + "'\n",
        RECIPES_200 + unknown(15_000),
    ],
    ids=["10,000 rules", "4,000 rules", "1 MB of comment", "1 MB of text", "15,000 unknown names"],
)
def test_no_file_costs_more_than_a_bounded_work(text: str) -> None:
    """A megabyte, ten thousand rules and thousands of mistakes are loaded or refused within some million calls, which
    take a second or two."""
    assert calls(text) < 15_000_000


def test_what_was_not_checked_is_said() -> None:
    """A policy with more conditions than are looked at together loads, and names what was not looked for."""
    wide = load_policy_text(f"{BODY}rules: [{{name: r, when: {{any: [{tags(20)}]}}, never: [draft]}}]\n")
    assert wide.unchecked == (
        f"the rules ask about 20 different things, more than {MAX_FACTS}; "
        "whether they leave a recipe in every case was not checked",
        f"rule 'r' asks about 20 different things, more than {MAX_FACTS}; whether it can ever apply was not checked",
    )
    several = load_policy_text(BODY + rules(20, lambda k: f"tag: t{k}"))
    assert several.unchecked == wide.unchecked[:1]
    assert load_policy_text(BODY + rules(MAX_FACTS, lambda k: f"tag: t{k}")).unchecked == ()


def test_many_mistakes_are_cut_and_it_is_said() -> None:
    """Of a thousand unknown names the first are told with their places, and that there are more."""
    with pytest.raises(PolicyError) as caught:
        load_policy_text(
            BODY + f"rules: [{{name: r, when: {{tag: t}}, never: [{', '.join(['x'] * 1000)}]}}]\n", "p.yaml"
        )
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert caught.value.problems[0] == f"p.yaml:1:1: more than {MAX_PROBLEMS} problems; these are the first, mend them"
    assert caught.value.problems[1].startswith("p.yaml:8:43: unknown recipe 'x'")


# ------------------------------------------------------------------------------------------ against a plain enumeration

SIMPLE = st.sampled_from(
    [
        {"tag": "a"},
        {"tag": "b"},
        {"tenant": "x"},
        {"tenant": "y"},
        {"language": "de"},
        {"language": "en"},
        {"min_side": 1024},
        {"max_side": 512},
        {"max_side": 1024},
        {"signal": "counting", "above": 0.5},
        {"signal": "counting", "below": 0.25},
    ]
)
CONDITIONS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda several: {"all": several}),
        st.lists(inner, min_size=1, max_size=3).map(lambda several: {"any": several}),
        inner.map(lambda one: {"not": one}),
    ),
    max_leaves=5,
)
NAMES = ["one", "two", "three"]
RULES = st.lists(
    st.tuples(
        CONDITIONS, st.sampled_from(["only", "never"]), st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
    ),
    min_size=1,
    max_size=4,
)


def everything() -> list[Mapping[str, object]]:
    """Every request that the conditions above can tell apart."""
    subsets = [(), ("a",), ("b",), ("a", "b")]
    sides, values = (0, 400, 512, 800, 1024, 2000), (0.1, 0.25, 0.3, 0.5, 0.7)
    found = itertools.product(subsets, ("x", "y", ""), ("de", "en", "fr"), sides, values)
    return [dict(zip(("tags", "tenant", "language", "side", "counting"), each, strict=True)) for each in found]


EVERYTHING = everything()


def true(condition: Condition, request: Mapping[str, object]) -> bool:
    if condition.all_ is not None:
        return all(true(child, request) for child in condition.all_)
    if condition.any_ is not None:
        return any(true(child, request) for child in condition.any_)
    if condition.not_ is not None:
        return not true(condition.not_, request)
    side, counting = int(str(request["side"])), float(str(request["counting"]))
    return {
        "tag": condition.tag in request["tags"],  # type: ignore[operator]
        "tenant": condition.tenant == request["tenant"],
        "language": condition.language == request["language"],
        "min_side": side >= (condition.min_side or 0),
        "max_side": 0 < side <= (condition.max_side or 0),
        "signal": counting > (condition.above if condition.above is not None else -1)
        and counting < (condition.below if condition.below is not None else 2),
    }[condition.kind]


def left(made: Collection[Rule], request: Mapping[str, object]) -> set[str]:
    found = set(NAMES)
    for rule in made:
        if true(rule.when, request):
            found = found & set(rule.only or found) - set(rule.never or ())
    return found


@settings(deadline=None, max_examples=150)
@given(RULES)
def test_contradictions_are_those_that_every_request_shows(
    written: list[tuple[dict[str, object], str, list[str]]],
) -> None:
    """A rule is said never to apply, or to leave nothing, and a recipe to be out of reach, exactly if that holds for
    every request that the conditions can tell apart."""
    made = [
        Rule.model_validate({"name": f"r{k}", "when": when, action: names})
        for k, (when, action, names) in enumerate(written)
    ]
    found = dict(check_sense(list(enumerate(made)), NAMES))
    for k, rule in enumerate(made):
        applies = [request for request in EVERYTHING if true(rule.when, request)]
        assert (("rules", k, "when") in found) == (not applies)
        if applies:
            nothing = not any(left(made, request) for request in applies)
            assert (("rules", k) in found) == nothing
    reach: set[str] = set().union(*(left(made, request) for request in EVERYTHING))
    assert unreachable(list(enumerate(made)), NAMES) == set(NAMES) - reach
