"""The size that was asked for is the size that is delivered, and every model draws at a size at which it is good."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import PlanError
from router.planning.plan import make_plan
from router.planning.sizes import drawing_size
from router.planning.tiling import along, tiled
from router.types import Chain, Fuse, Generate, GenerationRequest, ModelCard, Plan, Recipe, Refine, Tile, Upscale
from tests.router.cards import ANY_SIZE, Cards

ONLY: dict[str, object] = {"native_size": (64, 64), "area_tolerance": (1.0, 1.0), "aspect_tolerance": 1.0}
CARDS: dict[str, ModelCard] = {
    "sd": ModelCard("sd", "sd15", "base", {"local": "-"}, latent_space="a", relays=True, steps=10, **ONLY),  # type: ignore[arg-type]
    "xl": ModelCard("xl", "sdxl", "base", {"local": "-"}, latent_space="b", relays=True, steps=10, **ONLY),  # type: ignore[arg-type]
    "wide": ModelCard("wide", "sdxl", "base", {"local": "-"}, latent_space="b", relays=True, steps=10,
                      native_size=(64, 64), min_side=8, **ANY_SIZE),
    "refiner": ModelCard("refiner", "sdxl", "refiner", {"local": "-"}, latent_space="b", relays=True, steps=10, **ONLY),  # type: ignore[arg-type]
    "judge": ModelCard("judge", "verifier", "scorer", {"local": "-"}),
}  # fmt: skip
for name in ("sd", "xl", "refiner"):
    CARDS[name] = replace(CARDS[name], min_side=16)
CATALOGUE = Cards(CARDS)


def arranged(recipe: Recipe, width: int | None = None, height: int | None = None, **asked: object) -> Plan:
    request = GenerationRequest("a red circle and a blue square", width=width, height=height, **asked)  # type: ignore[arg-type]
    return make_plan("r", recipe, request, CATALOGUE, {})


def delivered(plan: Plan) -> tuple[int, int]:
    """Width and height of the answer as the steps make it, one after the other; each takes what the one before gave."""
    made: dict[str, tuple[int, int]] = {}
    for step in plan.steps:
        given = [made[name] for name in step.inputs if name in made]
        width, height = step.settings.get("width"), step.settings.get("height")
        if step.kind == "score":
            continue
        if step.kind == "upscale" and width is None:
            factor = float(step.settings["factor"] or 0)
            made[step.id] = round(given[0][0] * factor), round(given[0][1] * factor)
        elif step.kind in ("generate", "denoise", "refine", "upscale"):
            assert isinstance(width, int) and isinstance(height, int)
            made[step.id] = width, height
            if step.kind == "refine":  # the engine would resize it without a word
                assert given == [(width, height)], step
        else:
            assert len(set(given)) == 1, (step, given)
            made[step.id] = given[0]
    return made[plan.output]


GENERATES = st.builds(Generate, st.sampled_from(["sd", "xl", "wide"]))
REFINES = st.builds(
    lambda model, strength, tile: Refine(model, strength=strength, tile=tile),
    st.sampled_from(["sd", "xl", "wide", "refiner"]),
    st.sampled_from([0.3, 0.8]),
    st.sampled_from([None, None, "native"]),
)
RELAY = Chain((Generate("xl", until=0.5), Refine("refiner", from_=0.5)))


def _of_factor(factor: int, depth: int) -> st.SearchStrategy[Recipe]:
    """Recipes that enlarge by `factor` (a power of two) in all."""
    if depth == 0:
        base: st.SearchStrategy[Recipe] = st.one_of(GENERATES, st.just(RELAY))
        return base if factor == 1 else base.map(lambda one: Chain((one, Upscale(float(factor)))))
    before = _of_factor(factor, depth - 1)
    branches = st.tuples(before, before)
    fused = st.one_of(
        branches.map(lambda two: Fuse("average", two)),
        branches.map(lambda two: Fuse("best_of", two, "judge")),
        branches.map(lambda two: Fuse("regions", two, "judge")),
        branches.map(lambda two: Fuse("best_of", two, "judge", accept_above=0.9)),
    )
    # A refine after a fusion harmonises it.
    steps = [before, fused, *(st.tuples(one, REFINES).map(lambda pair: Chain(pair)) for one in (before, fused))]
    if factor > 1:
        smaller = _of_factor(factor // 2, depth - 1)
        steps.append(smaller.map(lambda one: Chain((one, Upscale(2.0)))))
        steps.append(st.tuples(smaller, REFINES).map(lambda pair: Chain((pair[0], Upscale(2.0), pair[1]))))
    return st.one_of(steps)


TREES = st.sampled_from([1, 2, 4]).flatmap(lambda factor: _of_factor(factor, 2))


def test_branches_that_are_enlarged_are_enlarged_once() -> None:
    """A best_of of enlarged branches that is harmonised delivers the 128x128 that was asked, not a quarter of it."""
    large = Chain((Generate("sd"), Upscale(2.0)))
    for recipe in (
        Chain((Fuse("best_of", (large, large), "judge"), Refine("refiner", strength=0.3))),
        Chain((Fuse("average", (large, large)), Refine("refiner", strength=0.3, tile="native"))),
        Chain((Fuse("best_of", (large, large), "judge"), Upscale(2.0), Refine("wide", strength=0.3))),
    ):
        plan = arranged(
            recipe, 128 * (2 if len(recipe.stages) == 3 else 1), 128 * (2 if len(recipe.stages) == 3 else 1)
        )
        assert delivered(plan) == (plan.width, plan.height)
        assert plan.steps[0].settings["width"] == 64


def test_planned_size_is_delivered_size_for_any_recipe() -> None:
    """Of random recipe trees, at random sizes, the last step's picture has the size that the plan says, which is the
    one that was asked for; most of the trees can be planned."""
    seen = [0, 0]

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(TREES, st.sampled_from([None, (64, 64), (128, 128), (256, 256), (32, 32), (128, 64), (96, 96)]))
    def holds(recipe: Recipe, size: tuple[int, int] | None) -> None:
        seen[0] += 1
        try:
            plan = arranged(recipe, *(size or (None, None)))
        except PlanError:
            return
        seen[1] += 1
        assert delivered(plan) == (plan.width, plan.height)
        assert size is None or (plan.width, plan.height) == size
        for step in plan.steps:
            if step.kind == "generate" and step.model != "wide" and "tiles" not in step.settings:
                assert (step.settings["width"], step.settings["height"]) == (64, 64)

    holds()
    assert seen[1] > 0.4 * seen[0]


@pytest.mark.parametrize("side", [32, 48, 96, 128])
def test_a_model_draws_where_it_is_good_and_the_picture_is_brought_to_the_size(side: int) -> None:
    """A model that is good at 64x64 alone draws there; a step of its own makes the size, and a note says so."""
    plan = arranged(Generate("sd"), side, side)
    assert [step.kind for step in plan.steps] == ["generate", "upscale"]
    assert plan.steps[0].settings["width"] == 64 and delivered(plan) == (side, side)
    assert any(f"does not draw well at {side}x{side}; it draws at 64x64" in note for note in plan.notes)


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96), (128, 64)])
def test_a_shape_that_no_good_size_has_is_refused_with_the_sizes(width: int, height: int) -> None:
    """No picture is squeezed: a model that is good at squares alone refuses other shapes, and says what to ask for."""
    for recipe in (Generate("sd"), Chain((Generate("xl"), Refine("refiner", strength=0.3))), RELAY):
        with pytest.raises(PlanError, match=r"at 64x64; ask for one of these or a multiple, such as 128x128"):
            arranged(recipe, width, height)
    windows = arranged(Generate("xl", tile="native"), width, height)
    assert windows.steps[0].settings["tile_width"] == 64


def test_refines_follow_at_the_good_size_and_the_answer_is_resized_once() -> None:
    """Latents and pictures are handed on at the size at which they were drawn, while the next model is good there."""
    for recipe in (RELAY, Chain((Generate("xl"), Refine("refiner", strength=0.3)))):
        plan = arranged(recipe, 128, 128)
        assert [step.kind for step in plan.steps] == ["generate", "refine", "upscale"]
        assert plan.steps[1].settings["width"] == 64
        assert plan.handovers[0].size_to == (64, 64)


def test_a_refine_of_a_larger_model_gets_the_size_that_was_asked() -> None:
    """SD1.5's 512 pixels are brought to 1024 before SDXL, which is good there and not at 512, refines them."""
    cards = Cards(
        {
            "small": ModelCard("small", "sd15", "base", {"local": "-"}, latent_space="a", relays=True),
            "large": ModelCard("large", "sdxl", "base", {"local": "-"}, latent_space="b", native_size=(1024, 1024)),
        }
    )
    recipe = Chain((Generate("small"), Refine("large", strength=0.3)))
    plan = make_plan("r", recipe, GenerationRequest("x", width=1024, height=1024), cards, {})
    assert [(step.kind, step.settings["width"]) for step in plan.steps] == [
        ("generate", 512), ("upscale", 1024), ("refine", 1024),
    ]  # fmt: skip


def test_published_buckets_are_taken_as_they_are_and_what_lies_between_at_the_nearest() -> None:
    """SDXL draws 1152x896 itself, and 768x768 at 1024x1024; FLUX any shape from 0.1 to 2 megapixels."""
    from models import load_catalogue

    cards = load_catalogue({name: f"real/{name}" for name in ("sdxl", "flux-dev", "sd15", "qwen-image")})
    assert drawing_size(cards["sdxl"], 1152, 896) == (1152, 896)
    width, height = drawing_size(cards["sdxl"], 768, 768)
    assert width == height and 960 < width <= 1024
    for size in ((320, 320), (1920, 1072), (1024, 1024), (512, 768)):
        assert drawing_size(cards["flux-dev"], *size) == size
    width, height = drawing_size(cards["flux-dev"], 2048, 2048)
    assert width == height and width * height <= 2.0 * 1024**2 and width % 16 == 0
    assert drawing_size(cards["sd15"], 768, 512) == (768, 512)
    assert drawing_size(cards["qwen-image"], 1664, 928) == (1664, 928)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(8, 320), st.integers(8, 320))
def test_what_is_drawn_is_good_and_of_the_shape_that_was_asked(across: int, down: int) -> None:
    """Whatever size is asked of a real card, the size at which it draws is one at which it is good, of the same shape
    within a twentieth, or it refuses."""
    from models import load_catalogue

    cards = load_catalogue({name: f"real/{name}" for name in ("sdxl", "flux-schnell", "sd15", "qwen-image")})
    width, height = 8 * across, 8 * down
    for name in cards.ids():
        try:
            found = drawing_size(cards[name], width, height)
        except PlanError:
            continue
        assert cards[name].good_at(*found)
        assert abs(math.log((found[0] * height) / (found[1] * width))) <= math.log(1.05) + 1e-9


FIELDS: dict[str, dict[str, object]] = {
    "prompt": {"prompt": "a green star"},
    "negative prompt": {"negative_prompt": "blurry"},
    "long negative prompt": {"negative_prompt": "word " * 200},
    "size": {"width": 128, "height": 128},
    "width": {"width": 128},
    "steps": {"steps": 7},
    "guidance": {"guidance_scale": 3.3},
    "no guidance": {"guidance_scale": 1.0},
    "seed": {"seed": 99},
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_request_is_used_refused_or_told(field: str) -> None:
    """For random recipe trees, a field that was asked for changes what runs, or is refused, or stands in the notes."""
    reached = [0]

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(TREES)
    def holds(recipe: Recipe) -> None:
        usual = GenerationRequest("a red circle", seed=1)
        try:
            plain = make_plan("r", recipe, usual, CATALOGUE, {})
            asked = make_plan("r", recipe, replace(usual, **FIELDS[field]), CATALOGUE, {})  # type: ignore[arg-type]
        except PlanError:
            return
        reached[0] += 1
        if "width" in FIELDS[field]:
            assert asked.width == delivered(asked)[0] == 128
        else:
            assert asked.digest() != plain.digest()
        if "negative" in field:  # it stands in the settings of a step in any case, so that proves nothing
            heeded = all(
                CATALOGUE[step.model].heeds_negative(float(step.settings["guidance_scale"] or 0))
                for step in asked.steps
                if step.model is not None and "guidance_scale" in step.settings
            )
            assert heeded or asked.ignores
        if field == "long negative prompt":
            assert any("this negative prompt has at least" in note for note in asked.notes)

    holds()
    assert reached[0] > 5 or field == "width"


def test_a_model_that_is_not_square_draws_its_own_width_and_height() -> None:
    """Without a size, the answer is as wide and as high as the card says, and twice that where it is enlarged."""
    card = replace(CARDS["wide"], native_size=(96, 64))
    catalogue = Cards({**CARDS, "wide": card})
    request = GenerationRequest("a red circle")
    alone = make_plan("r", Generate("wide"), request, catalogue, {})
    assert (alone.width, alone.height) == (96, 64) == delivered(alone)
    doubled = make_plan("r", Chain((Generate("wide"), Upscale(2.0))), request, catalogue, {})
    assert (doubled.width, doubled.height) == (192, 128) == delivered(doubled)
    given = make_plan("r", Generate("wide", width=64, height=96), request, catalogue, {})
    assert (given.width, given.height) == (64, 96)
    half = make_plan("r", Generate("wide"), replace(request, height=32), catalogue, {})
    assert (half.width, half.height) == (96, 32)


# ---------------------------------------------------------------------------------------------------------------- tiles


@given(st.integers(1, 400), st.integers(2, 60), st.integers(1, 45))
def test_so_many_tiles_cover_a_side_and_no_fewer_would(side: int, tile: int, overlap: int) -> None:
    """Neighbours share at least the overlap: n tiles reach n * tile - (n - 1) * overlap."""
    overlap = min(overlap, tile - 1)
    count = along(side, tile, overlap)
    assert count * tile - (count - 1) * overlap >= side
    assert count == 1 or (count - 1) * tile - (count - 2) * overlap < side


TILED = ModelCard(
    "t", "sdxl", "base", {"local": "-"}, native_size=(96, 64), size_multiple=8, min_side=24, max_pixels=6144
)


@pytest.mark.parametrize(
    ("tile", "overlap", "width", "height", "found"),
    [
        ("native", None, 96, 64, None),  # it is one tile
        ("native", None, 104, 64, (96, 64, 16, 2)),  # a quarter of the shorter side
        ("native", None, 160, 24, (96, 24, 8, 2)),  # a picture lower than a tile
        ("native", 0.75, 192, 64, (96, 64, 48, 3)),
        ("native", 0.01, 192, 128, (96, 64, 8, 9)),  # a multiple at least
        (24, None, 48, 24, (24, 24, 8, 3)),
        (64, 0.5, 96, 96, (64, 64, 32, 4)),
        (16, None, 64, 64, "a tile of 16x16 is too small"),
        (28, None, 64, 64, "a tile of 28x28 is not a multiple of 8"),
        (72, None, 64, 64, "larger than the native 96x64"),
        ("native", 0.0, 96, 64, "an overlap of 0 is outside"),
        ("native", 0.76, 96, 64, "an overlap of 0.76 is outside"),
        ("native", None, 160, 16, "160x16 does not fit"),
        ("native", None, 16, 160, "16x160 does not fit"),
        ("native", None, 100, 64, "100x64 does not fit"),
        ("native", None, 96, 68, "96x68 does not fit"),
    ],
)  # fmt: skip
def test_tiles_are_no_larger_than_picture_and_model_and_share_an_overlap(
    tile: Tile, overlap: float | None, width: int, height: int, found: tuple[int, int, int, int] | str | None
) -> None:
    """Width, height, overlap and number; what the model does not take is refused by what it is."""
    if isinstance(found, str):
        with pytest.raises(PlanError, match=found):
            tiled(TILED, tile, overlap, width, height)
        return
    names = ("tile_width", "tile_height", "tile_overlap", "tiles")
    assert tiled(TILED, tile, overlap, width, height) == (dict(zip(names, found, strict=True)) if found else {})


def test_a_tile_has_two_multiples_and_the_pixels_that_a_model_takes() -> None:
    """Both bounds are allowed themselves."""
    small = replace(TILED, min_side=8)
    assert tiled(small, 16, None, 32, 16)["tiles"] == 3 and tiled(TILED, 64, None, 72, 64)["tiles"] == 2
    with pytest.raises(PlanError, match="a tile of 8x8 is too small"):
        tiled(small, 8, None, 32, 16)
    with pytest.raises(PlanError, match="larger than the native"):
        tiled(replace(TILED, max_pixels=4088), 64, None, 72, 64)
