"""What rules do beside only and never: preferences, other terms, priorities; and the conditions they hang on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from policies import Policy
from policies.deciding.terms import Applied, Terms
from policies.language.prompt_language import language_of
from router.errors import NoRecipeError
from router.types import Context, Decision, Estimate, GenerationRequest
from tests.policies.values import QUALITY, decide, estimate, policy

ASK = GenerationRequest("a red circle", tags=("x",))
THREE = (
    estimate("draft", 0.6, 0.1, 0.0001),
    estimate("standard", 0.8, 1.0, 0.001),
    estimate("premium", 0.82, 3.0, 0.004),
)


def ruled(*rules: str, rest: str = QUALITY) -> Policy:
    return policy(rest + "rules:\n" + "".join(f"- {rule}\n" for rule in rules))


def chosen(made: Policy, request: GenerationRequest = ASK, *fleet: Estimate, **rest: Any) -> Decision:
    return decide(made, request, *(fleet or THREE), **rest)


def test_prefer_puts_a_recipe_first() -> None:
    """A preferred recipe is taken although others have a higher utility, and the reasons say by which rule."""
    decision = chosen(ruled("{name: cheap for x, when: {tag: x}, prefer: [draft]}"))
    assert decision.recipe == "draft"
    assert [ranked.recipe for ranked in decision.ranking] == ["draft", "premium", "standard"]
    assert "rule 'cheap for x' applied (tagged 'x'): it prefers draft" in decision.reasons


def test_prefer_is_only_a_wish() -> None:
    """A preferred recipe that a limit rejects leaves the choice to the others."""
    made = ruled("{name: r, when: {tag: x}, prefer: [premium]}", rest="limits: {latency_s: 2}\n" + QUALITY)
    assert chosen(made).recipe == "standard"


def test_priority_goes_before_the_order_of_the_file() -> None:
    """Rules apply by falling priority, equal ones as they stand, and the decision names them in this order."""
    made = ruled(
        "{name: last, when: {tag: x}, prefer: [draft], priority: -1}",
        "{name: second, when: {tag: x}, prefer: [standard]}",
        "{name: first, when: {tag: x}, prefer: [premium], priority: 5}",
    )
    assert [rule.name for rule in made.rules] == ["first", "second", "last"]
    decision = chosen(made)
    assert decision.rules == ("first", "second", "last")
    assert decision.recipe == "premium"


def test_of_what_rules_set_the_first_counts_each_for_itself() -> None:
    """Exploration, objective and each limit come from the first rule that sets them, and it is told who set what."""
    made = ruled(
        "{name: one, when: {tag: x}, set: {explore: {rate: 0.5}, limits: {latency_s: 9}}}",
        "{name: two, when: {tag: x}, set: {explore: {rate: 0.25}, limits: {latency_s: 5, cost_usd: 1}}}",
        "{name: three, when: {tag: x}, set: {objective: {minimise: cost_usd}}}",
        "{name: four, when: {tag: x}, set: {objective: {minimise: latency_s}}}",
    )
    applied = [Applied(rule, "tagged") for rule in made.rules]
    terms = Terms(made.objective, made.limits, made.explore).under(applied)
    assert terms.explore is not None and terms.explore.rate == 0.5
    assert (terms.limits.latency_s, terms.limits.cost_usd, terms.objective.minimise) == (9, 1, "cost_usd")
    assert terms.notes == (
        "rule 'one' (tagged) sets latency_s 9, exploration at 0.5",
        "rule 'two' (tagged) sets cost_usd 1",
        "rule 'three' (tagged) sets the objective",
    )
    assert Terms(made.objective, made.limits, made.explore).under(applied[1:2]).explore.rate == 0.25  # type: ignore[union-attr]


def test_set_replaces_terms() -> None:
    """A rule sets limits, key by key, and another objective; the first of two rules that set the same counts."""
    made = ruled(
        "{name: a, when: {tag: x}, set: {limits: {latency_s: 2}, objective: {cheapest_within: 0.05}}}",
        "{name: b, when: {tag: x}, set: {limits: {latency_s: 9, cost_usd: 0.002}, objective: {minimise: cost_usd}}}",
        rest="limits: {latency_s: 100, max_pixels: 1000000}\n" + QUALITY,
    )
    decision = chosen(made)
    assert decision.recipe == "standard"
    assert {r.recipe: r.reason for r in decision.rejected}["premium"].startswith("expected 3 s, over the limit")
    assert "rule 'a' (tagged 'x') sets latency_s 2, the objective" in decision.reasons
    assert "rule 'b' (tagged 'x') sets cost_usd 0.002" in decision.reasons
    assert chosen(made, replace(ASK, tags=())).recipe == "premium"


def test_set_limits_bind_a_recipe_asked_for_by_name() -> None:
    """Limits that a rule sets are limits, so they bind what the request names."""
    made = ruled("{name: r, when: {tag: x}, set: {limits: {cost_usd: 0.0005}}}")
    with pytest.raises(NoRecipeError, match="over the limit of policy"):
        chosen(made, replace(ASK, recipe="premium"))


def test_several_actions_of_one_rule() -> None:
    """A rule may exclude, prefer and set at once."""
    made = ruled("{name: r, when: {tag: x}, never: [premium], prefer: [draft], set: {explore: {rate: 0}}}")
    decision = chosen(made)
    assert decision.recipe == "draft"
    assert [r.recipe for r in decision.rejected] == ["premium"]


@pytest.mark.parametrize(
    ("during", "now", "expected"),
    [
        ("{from: '08:00', to: '18:00'}", (2026, 3, 2, 8, 0), True),
        ("{from: '08:00', to: '18:00'}", (2026, 3, 2, 18, 0), False),
        ("{from: '22:00', to: '06:00'}", (2026, 3, 2, 23, 30), True),
        ("{from: '22:00', to: '06:00'}", (2026, 3, 2, 5, 59), True),
        ("{from: '22:00', to: '06:00'}", (2026, 3, 2, 12, 0), False),
        ("{from: '22:00', to: '06:00', days: [fri]}", (2026, 3, 7, 2, 0), True),
        ("{from: '22:00', to: '06:00', days: [fri]}", (2026, 3, 6, 2, 0), False),
        ("{from: '20:00'}", (2026, 3, 2, 23, 59), True),
        ("{days: [sat, sun]}", (2026, 3, 7, 12, 0), True),
        ("{days: [sat, sun]}", (2026, 3, 6, 12, 0), False),
        ("{from: '08:00', to: '09:00', zone: Europe/Berlin}", (2026, 7, 1, 6, 30), True),
        ("{from: '08:00', to: '09:00', zone: Europe/Berlin}", (2026, 1, 1, 6, 30), False),
    ],
)
def test_time_of_day(during: str, now: tuple[int, ...], expected: bool) -> None:
    """A time of day is that of its zone, summer time included; a night belongs to the day on which it began."""
    made = ruled(f"{{name: r, when: {{during: {during}}}, never: [premium]}}")
    context = Context(now=datetime(*now, tzinfo=UTC))  # type: ignore[arg-type, misc]
    assert (chosen(made, ASK, context=context).recipe == "standard") is expected


def test_unknown_time_holds_nothing() -> None:
    """Without a clock no condition on the time holds."""
    assert chosen(ruled("{name: r, when: {during: {from: '00:01'}}, never: [premium]}")).rules == ()


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("a red circle above a blue square", "en"),
        ("red circle", "en"),
        ("ein roter Kreis über einem blauen Quadrat", "de"),
        ("un cercle rouge sur une table", "fr"),
        ("un círculo rojo sobre una mesa", "es"),
        ("un cerchio rosso sopra una tavola", "it"),
        ("красный круг на столе", "ru"),
        ("红色的圆", "zh"),
        ("赤い丸", "ja"),
        ("빨간 원", "ko"),
        ("κόκκινος κύκλος", "el"),
        ("un gato negro", "es"),
        ("Hund in Berlin", "de"),
        ("no text, no people", "en"),
        ("a cat", "en"),
        ("um gato preto", "pt"),
        ("een zwarte kat", "nl"),
        ("größe", "de"),
        ("1234 !!", "und"),
        ("x", "und"),
        ("🙂🙂", "und"),
        ("", "und"),
    ],
)
def test_language(prompt: str, language: str) -> None:
    """Three words are enough to tell a language, and what has no words has none."""
    assert language_of(prompt) == language


def test_tenant_and_language_conditions() -> None:
    """Rules may ask for the tenant and for the language of the prompt."""
    made = ruled("{name: r, when: {all: [{tenant: acme}, {not: {language: en}}]}, only: [premium]}")
    german = GenerationRequest("ein roter Kreis", tenant="acme", max_cost_usd=1.0)
    assert chosen(made, german).rules == ("r",)
    assert chosen(made, replace(german, tenant="other")).rules == ()
    assert chosen(made, replace(german, prompt="a red circle")).rules == ()
