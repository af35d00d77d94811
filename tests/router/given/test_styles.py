"""What a recipe and a request wear: in plans, keys, batches, estimates, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.jobs.codec import packed, unpacked
from deployments.known_names import known_of
from policies import load_policy_text
from router.cost.batches import batch_key
from router.cost.model import CostModel
from router.errors import PlanError, RequestError
from router.planning.plan import make_plan
from router.planning.planner import Planner
from router.planning.recipes import as_run, recipe_key
from router.planning.styles import check_known, check_worn
from router.quality.composition import Composition, outline
from router.requests import check_request
from router.types import (
    Chain,
    Edit,
    Fuse,
    Generate,
    GenerationRequest,
    GivenPicture,
    ModelCard,
    Plan,
    Quality,
    Recipe,
    Refine,
    Style,
    Upscale,
    spelled,
    wearing,
    worn_by,
)
from tests.router.cards import PAIRED, Cards

STYLES = {
    "film": Style("film", "sd15", "lora", {"file": "-"}, least=-2, most=2),
    "ink": Style("ink", "sd15", "lora", {"file": "-"}, least=-2, most=2),
    "euler": Style("euler", "sd15", "scheduler", settings={"scheduler": "euler"}, many=False, blends=False),
    "ddim": Style("ddim", "sd15", "scheduler", settings={"scheduler": "ddim"}, many=False, blends=False),
    "fast": Style("fast", "sd15", "lora", {"file": "-"}, settings={"scheduler": "lcm"}, least=-2, most=2),
    "flat": Style("flat", "sd15", "guidance_rescale", steps=("generate",), many=False),
    "grand": Style("grand", "sdxl", "lora", {"file": "-"}, least=-2, most=2),
    "tiny": Style("tiny", "sd15", "lora", {"file": "-"}, latent_space="elsewhere"),
    "pag": Style("pag", "sd15", "attention", settings={"pag": 3.0}, passes=1),
    "pag2": Style("pag2", "sd15", "attention", settings={"pag": 1.0}, passes=1),
    "look": Style("look", "sd15", "ip_adapter", {"file": "-", "encoder": "-"}, many=False),
    "bold": Style("bold", "sd15", "attention", settings={"words": {"red": 2.0, "blue cat": 2.0}}),
}
CATALOGUE = Cards({name: replace(card, styles=STYLES) for name, card in PAIRED.cards.items()})
FILM = Generate("sd15", style=wearing({"film": 0.7}))
names = st.sampled_from(["film", "ink", "a-b.c_d", "X9"])
weights = st.floats(-2, 2).map(lambda number: round(number, 4))


def plan(recipe: Recipe, **asked: object) -> Plan:
    return make_plan("r", recipe, GenerationRequest("a dog", **asked), CATALOGUE, {"r": recipe})  # type: ignore[arg-type]


def worn(recipe: Recipe, **asked: object) -> list[object]:
    return [step.settings.get("style") for step in plan(recipe, **asked).steps if step.model]


@given(st.dictionaries(names, weights, max_size=4))
def test_what_is_worn_is_spelled_and_read_back(worn: dict[str, float]) -> None:
    """Text and value are the same thing, in one order, and weights of 0 are not worn."""
    value = wearing(worn)
    assert worn_by(spelled(value)) == value
    assert value == wearing(dict(reversed(worn.items())))
    assert {name for name, _ in value} == {name for name, weight in worn.items() if weight}


def test_a_style_is_part_of_the_recipes_key_and_of_the_plan() -> None:
    """The key names style and weight, a recipe without has the key of before; the digest changes with it."""
    assert recipe_key(FILM, {}, CATALOGUE) == "sd15:style=film*0.7"
    assert recipe_key(replace(FILM, style=()), {}, CATALOGUE) == "sd15"
    assert worn(FILM) == ["film*0.7"]
    assert plan(FILM).digest() != plan(replace(FILM, style=wearing({"film": 0.6}))).digest()
    assert "style" not in plan(Generate("sd15")).steps[0].settings


def test_a_request_adds_replaces_and_takes_off() -> None:
    """What a request asks for stands beside the recipe's styles; its weight counts, and 0 takes one off."""
    assert worn(FILM, style=wearing({"ink": 1})) == ["film*0.7+ink*1"]
    assert worn(FILM, style=wearing({"film": 0.2})) == ["film*0.2"]
    assert as_run(FILM, GenerationRequest("x", style=wearing({"ink": 1}))).style == (("film", 0.7), ("ink", 1.0))  # type: ignore[union-attr]


def test_a_refine_wears_what_it_can_and_says_what_it_cannot() -> None:
    """In a chain of one family all stages wear the request's style; a stage that cannot says so in the notes."""
    again = Chain((Generate("sd15"), Upscale(2), Refine("sd15", strength=0.3)))
    assert worn(again, style=wearing({"film": 1})) == ["film*1", "film*1"]
    assert worn(again, style=wearing({"flat": 1})) == ["flat*1", None]
    assert any("does not wear 'flat'" in note for note in plan(again, style=wearing({"flat": 1})).notes)
    other = Chain((Generate("sd15"), Refine("sdxl", strength=0.3)))
    assert worn(other, style=wearing({"film": 1})) == ["film*1", None]


@pytest.mark.parametrize(
    ("recipe", "style", "said"),
    [
        (Generate("sdxl"), {"film": 1}, "'sdxl' cannot wear the style 'film': it is for family 'sd15', not 'sdxl'"),
        (Generate("sd15"), {"tiny": 1}, "for models of latent space 'elsewhere'"),
        (Generate("sd15"), {"flim": 1}, "no style 'flim'.*film"),
        (Generate("sd15"), {"euler": 0.5}, "weight of 0.5 of the style 'euler'.*0 or 1"),
        (Generate("sd15"), {"film": 3}, "weight of 3 .*-2..2"),
        (Generate("sd15"), {"euler": 1, "ddim": 1}, "both of kind 'scheduler'"),
        (Generate("sd15"), {"pag": 1, "pag2": 1}, "'pag' and 'pag2' each perturb attention"),
        (Generate("sd15"), {"fast": 1, "ddim": 1}, "'ddim' and 'fast' each want a scheduler"),
        (Chain((Generate("sd15"), Refine("sd15", strength=0.5, style=wearing({"flat": 1})))), {}, "generate only"),
        (Fuse("denoise", (Generate("sdxl"), Generate("small"))), {"grand": 1}, "not worn in a denoise"),
    ],
)
def test_what_cannot_be_worn_rules_the_recipe_out(recipe: Recipe, style: dict[str, float], said: str) -> None:
    """A style of another family, latent space or step, or with a weight that means nothing, is the recipe's refusal."""
    with pytest.raises(PlanError, match=said):
        plan(recipe, style=wearing(style))


def test_a_network_in_8_bits_wears_no_lora() -> None:
    """Nothing can be added to layers in 8 bits; what needs no file is worn all the same, and others wear it."""
    for bits in ("int8", "fp8"):
        rounded = replace(CATALOGUE["sd15"], tuning={"quantize": bits})
        with pytest.raises(PlanError, match=f"leave `quantize: {bits}` out"):
            check_worn(wearing({"film": 1.0}), rounded, "generate")
        check_worn(wearing({"euler": 1.0}), rounded, "generate")
    check_worn(wearing({"film": 1.0}), replace(rounded, tuning={"compile": "full"}), "generate")


def test_attention_of_a_compiled_network_is_not_changed() -> None:
    """What is compiled would be compiled again for a picture; exported graphs have no attention to reach."""
    for changed, said in (({"tuning": {"compile": "regional"}}, "leave `compile: regional` out"),
                          ({"source": {"onnx": "-"}}, "exported graphs")):  # fmt: skip
        with pytest.raises(PlanError, match=said):
            check_worn(wearing({"pag": 1.0}), replace(CATALOGUE["sd15"], **changed), "generate")  # type: ignore[arg-type]


LOOKED_AT = GivenPicture("reference", "c" * 64, 300, 200)


def test_a_step_has_the_reference_that_its_style_draws_after() -> None:
    """Every step that wears it has the given picture as its last input, batches do not mix it, and another picture is
    another plan; the recipe draws from noise, or over an image that is given beside it, as ever."""
    again = Chain((Generate("sd15"), Upscale(2), Refine("sd15", strength=0.3)))
    asked = {"style": wearing({"look": 1}), "given": (LOOKED_AT,)}
    made = plan(again, **asked)
    (brought,) = (one for one in made.steps if one.kind == "given")
    drawing = [one for one in made.steps if one.model]
    assert [(one.inputs[-1], one.settings["reference"]) for one in drawing] == [(brought.id, brought.id)] * 2
    assert [one.giver for one in made.handovers] == [made.steps[2].id]
    assert all(batch_key(one, ()) is None for one in drawing)
    other = replace(LOOKED_AT, digest="d" * 64)
    assert plan(again, **{**asked, "given": (other,)}).digest() != made.digest()
    image = GivenPicture("image", "a" * 64, 512, 512)
    painted = plan(Edit("sd15"), style=wearing({"look": 1}), given=(image, LOOKED_AT))
    assert [one.settings.get("role") for one in painted.steps][:2] == ["image", "reference"]


def test_a_style_and_its_reference_come_together() -> None:
    """The style without a picture, and a picture that nothing draws after, rule the recipe out with a remedy."""
    with pytest.raises(PlanError, match="'look' draws after a picture; give one") as failure:
        plan(Generate("sd15"), style=wearing({"look": 1}))
    assert failure.value.param == "reference"
    with pytest.raises(PlanError, match="nothing of it draws after a reference"):
        plan(FILM, given=(LOOKED_AT,))
    known = known_of(CATALOGUE)
    recipe = Generate("sd15", style=wearing({"look": 1}))
    assert known.arrange is not None and known.arrange("r", recipe, {"r": recipe}).plan.steps[-1].model == "sd15"


def test_a_further_pass_is_work() -> None:
    """Perturbed attention runs the network a third time in each step, whatever its weight, and seconds follow."""
    costs = CostModel(CATALOGUE)
    plain, both = (costs.work(plan(Generate("sd15"), style=wearing(s)).steps[0]) for s in ({}, {"pag": 0.5, "bold": 1}))
    assert both == pytest.approx(1.5 * plain)


def test_words_that_a_prompt_does_not_say_are_noted() -> None:
    """A style that weighs words of which the prompt says none has a note, with the prompt of the request alone."""
    recipes: dict[str, Recipe] = {"a": Generate("sd15", style=wearing({"bold": 1}))}
    planner = Planner(CATALOGUE)
    for prompt, noted in (("a reddish dog", True), ("A Red, dog", False), ("one blue cat", False)):
        request = GenerationRequest(prompt)
        for made in (
            make_plan("a", recipes["a"], request, CATALOGUE, recipes),
            planner.plan(request, recipes).plan("a"),
        ):
            assert any("none of the words" in note for note in made.notes) is noted


def test_only_the_recipes_that_cannot_wear_it_are_out() -> None:
    """Of several recipes, a style of one family leaves those of that family; the reason names both."""
    recipes: dict[str, Recipe] = {"a": Generate("sd15"), "b": Generate("sdxl")}
    planner = Planner(CATALOGUE)
    planned = planner.plan(GenerationRequest("a dog", style=wearing({"film": 1})), recipes)
    assert set(planned.plans) == {"a"}
    assert [(one.recipe, one.gate) for one in planned.refused] == [("b", "capability")]
    assert "family 'sd15', not 'sdxl'" in planned.refused[0].reason
    assert set(planner.plan(GenerationRequest("a dog"), recipes).plans) == {"a", "b"}
    assert planned.plan("a").steps[0].settings["style"] == "film*1"


def test_batches_mix_steps_of_equal_styles_only() -> None:
    """Steps in one style can be made together, and not with those in another, or in none."""
    keys = [
        batch_key(plan(recipe, seed=seed).steps[0], ())
        for seed, recipe in enumerate((FILM, FILM, Generate("sd15"), replace(FILM, style=wearing({"film": 0.5}))))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_an_unrated_style_is_expected_to_be_no_better_and_less_sure() -> None:
    """The estimate of a recipe in a style is that of the base recipe, lower and wider; rated itself, it is as rated."""
    known = {"sd15": Quality(0.8, 0.1, "learned")}
    found = outline(FILM, ["sd15"], CATALOGUE).quality(known, Quality(0.5, 0.3, "prior"), Composition())
    assert found.basis == "composed"
    assert 0.7 < found.mean < 0.8 and found.std > 0.1
    key = recipe_key(FILM, {}, CATALOGUE)
    rated = {**known, key: Quality(0.9, 0.1, "learned")}
    assert outline(FILM, [*rated], CATALOGUE).quality(rated, known["sd15"], Composition()).mean == 0.9


def test_an_unknown_style_is_the_requests_error() -> None:
    """A style that no model knows is refused with the nearest name, before any recipe is looked at."""
    with pytest.raises(RequestError, match=r"no style 'flim'.*film") as failure:
        check_known(GenerationRequest("a dog", style=wearing({"flim": 1})), CATALOGUE)
    assert failure.value.param == "style"
    bare = Cards({"sd15": ModelCard("sd15", "sd15", "base", {"local": "-"})})
    with pytest.raises(RequestError, match="there are none here"):
        check_known(GenerationRequest("a dog", style=wearing({"film": 1})), bare)
    with pytest.raises(RequestError, match="at most 4"):
        check_request(GenerationRequest("a dog", style=wearing(dict.fromkeys("abcde", 1.0))))


def test_a_job_keeps_its_style() -> None:
    """A request comes back from the store with what it asked to wear."""
    request = GenerationRequest("a dog", style=wearing({"film": 0.7, "ink": 1}))
    assert unpacked(json.loads(json.dumps(packed(request)))) == request
    assert unpacked({k: v for k, v in asdict(GenerationRequest("a dog")).items() if k != "style"}).style == ()


def test_a_policy_says_what_its_recipes_wear() -> None:
    """`style` in a policy's YAML becomes the recipe's, in generates and refines."""
    text = """
version: 1
name: styled
recipes:
  film: {generate: {model: sd15, style: {film: 0.7}}}
  inked: {chain: [film, {refine: {model: sd15, strength: 0.3, style: {ink: 1}}}]}
objective: {maximise: quality}
"""
    recipes = load_policy_text(text).recipes
    assert recipes["film"] == FILM
    assert recipe_key(recipes["inked"], recipes, CATALOGUE) == "sd15:style=film*0.7>sd15:strength=0.3,style=ink*1"
