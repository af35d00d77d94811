"""Terms of models in policies: what they do not allow is ruled out with that reason, however it is asked for."""

from __future__ import annotations

import pytest

from policies import load_policy_text
from router.errors import NoRecipeError, PolicyError
from router.types import Decision, GenerationRequest, Licence, Offers, Plan, Step
from tests.policies.values import HEAD, MODELS, QUALITY, RECIPES, estimate, view

LICENCES = {
    "sd15": Licence("CreativeML-OpenRAIL-M", True, False),
    "sdxl": Licence("CreativeML-OpenRAIL++-M", True, False),
    "sdxl-refiner": Licence("CreativeML-OpenRAIL++-M", True, False),
    "flux": Licence("FLUX.1-dev-Non-Commercial", False, True),
}
DRAWN_BY = {"draft": ("sd15",), "standard": ("sdxl", "sdxl-refiner"), "premium": ("flux", "sdxl-refiner")}


def plan(recipe: str) -> Plan:
    steps = tuple(Step(str(n), "generate", model, (), "image") for n, model in enumerate(DRAWN_BY[recipe]))
    return Plan(recipe, steps, "0", 512, 512)


def decide(licence: str, **request: object) -> Decision:
    policy = load_policy_text(f"{HEAD}{RECIPES}{QUALITY}licence: {licence}\n", "test.yaml", models=MODELS)
    plans = {name: plan(name) for name in DRAWN_BY}
    estimates = {name: estimate(name, quality) for name, quality in zip(DRAWN_BY, (0.5, 0.7, 0.9), strict=True)}
    asked = GenerationRequest("a red circle", **request)  # type: ignore[arg-type]
    return policy.evaluate(asked, view(), lambda _: Offers(plans, estimates, (), LICENCES))


@pytest.mark.parametrize(
    ("licence", "out"),
    [
        ("{commercial: true}", {"premium": "the licence of 'flux' (FLUX.1-dev-Non-Commercial) does not allow"}),
        ("{gated: refuse}", {"premium": "'flux' can only be had by an account that accepted its terms"}),
        (
            "{only: [CreativeML-OpenRAIL-M]}",
            {"standard": "the licence of 'sdxl' is CreativeML-OpenRAIL++-M, and the", "premium": "of 'flux'"},
        ),
    ],
)  # fmt: skip
def test_a_recipe_is_out_with_the_terms_that_stand_in_its_way(licence: str, out: dict[str, str]) -> None:
    """The first model that is not allowed is named with its licence, and the best of the others is taken."""
    made = decide(licence)
    assert {one.recipe: one.gate for one in made.rejected} == dict.fromkeys(out, "licence")
    for one in made.rejected:
        assert out[one.recipe] in one.reason and "see `licence` in policy 'test'" in one.reason
    assert made.recipe == max(set(DRAWN_BY) - set(out), key=list(DRAWN_BY).index)


def test_terms_hold_for_a_recipe_that_is_asked_for_by_name() -> None:
    """Naming a recipe does not buy a licence."""
    with pytest.raises(NoRecipeError, match="does not allow commercial use"):
        decide("{commercial: true}", recipe="premium")


@pytest.mark.parametrize("licence", ["{}", "{commercial: false}", "{only: []}", "{gated: allow}", "{comercial: true}"])
def test_a_licence_says_something(licence: str) -> None:
    """A section without effect, or with another word, is refused when the policy is loaded."""
    with pytest.raises(PolicyError):
        decide(licence)
