"""Recipe keys and the resolution of names."""

import pytest

from router.errors import PlanError
from router.planning.recipes import models_of, recipe_key, resolve
from router.types import Chain, Fuse, Generate, Recipe, Refine, Upscale
from tests.router.cards import CATALOGUE

BASE = Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8)))
RECIPES: dict[str, Recipe] = {
    "draft": Generate("sd15", steps=12, scheduler="dpmsolver++"),
    "standard": BASE,
    "premium": Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.25), Upscale(2))),
    "duel": Fuse("best_of", ("standard", "draft"), "alignment"),
    "studio": Fuse("frequency", ("standard", Generate("flux"))),
}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("draft", "sd15@12:scheduler=dpmsolver++"),
        ("standard", "sdxl>sdxl-refiner:from=0.8"),
        ("premium", "flux>sdxl-refiner:strength=0.25>upscale:2"),
        ("duel", "best_of(alignment;sd15@12:scheduler=dpmsolver++|sdxl>sdxl-refiner:from=0.8)"),
        ("studio", "frequency(sdxl>sdxl-refiner:from=0.8|flux)"),
    ],
)
def test_every_recipe_has_one_key(name: str, key: str) -> None:
    """The key is what the docstring of router/planning/recipes.py shows, whatever the recipe is called."""
    assert recipe_key(RECIPES[name], RECIPES) == key


def test_defaults_of_the_card_are_no_part_of_the_key() -> None:
    """Asking for what the card says anyway is the same recipe."""
    spoken = Generate("sd15", steps=25, guidance_scale=7.5, scheduler="default")
    assert recipe_key(spoken, {}, CATALOGUE) == recipe_key(Generate("sd15"), {}, CATALOGUE) == "sd15"


def test_the_order_of_branches_matters_only_where_it_changes_the_picture() -> None:
    """best_of is symmetric, frequency is not."""
    a, b = Generate("sd15"), Generate("flux")
    assert recipe_key(Fuse("best_of", (a, b), "alignment"), {}) == recipe_key(Fuse("best_of", (b, a), "alignment"), {})
    assert recipe_key(Fuse("frequency", (a, b)), {}) != recipe_key(Fuse("frequency", (b, a)), {})


def test_two_models_together_are_one_recipe_in_either_order() -> None:
    """The key of a denoise has its weights, as shares, and does not depend on who is named first."""
    a, b = Generate("sdxl", steps=4), Generate("sd15")
    orders = (
        Fuse("denoise", (a, b), shares=((3, 3), (1, 1))),
        Fuse("denoise", (b, a), shares=((0.5, 0.5), (1.5, 1.5))),
    )
    assert {recipe_key(order, {}) for order in orders} == {"denoise(0.25,0.75;sd15|sdxl@4)"}
    assert recipe_key(Fuse("denoise", (a, b)), {}) == "denoise(0.5,0.5;sd15|sdxl@4)"
    course = Fuse("denoise", (a, b), shares=((1, 0), (0, 1)))
    assert recipe_key(course, {}) == "denoise(0-1,1-0;sd15|sdxl@4)"


def test_circles_and_unknown_names_are_refused() -> None:
    """A recipe that contains itself, and a name that does not exist, are errors that say so."""
    circle: dict[str, Recipe] = {"a": Fuse("average", ("b", Generate("sd15"))), "b": Fuse("average", ("a", "a"))}
    with pytest.raises(PlanError, match="a > b > a"):
        resolve(circle["a"], circle, ("a",))
    with pytest.raises(PlanError, match="did you mean 'draft'"):
        resolve(Fuse("average", ("draf", "draft")), RECIPES)


def test_models_are_listed_in_order() -> None:
    """The models of a fusion are those of its branches, then the scorer."""
    assert list(models_of(resolve(RECIPES["duel"], RECIPES))) == ["sdxl", "sdxl-refiner", "sd15", "alignment"]


def test_the_order_of_branches_that_run_in_turn_is_part_of_the_key() -> None:
    """A fusion that may stop early is another recipe than one that may not, and its branches keep their order."""
    branches = (Generate("sdxl"), Generate("sd15"))
    orders = (branches, branches[::-1])
    assert {recipe_key(Fuse("best_of", order, "alignment"), {}) for order in orders} == {"best_of(alignment;sd15|sdxl)"}
    assert [recipe_key(Fuse("best_of", order, "alignment", 0.9), {}) for order in orders] == [
        "best_of(alignment>0.9;sdxl|sd15)",
        "best_of(alignment>0.9;sd15|sdxl)",
    ]
