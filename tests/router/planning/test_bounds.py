"""Plans at their bounds: what fits at the very number, and what is refused or told just beyond it, with the remedy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from router.errors import PlanError, RequestError
from router.planning.edits import check_brought, check_shape
from router.planning.plan import cut_negatives, cut_prompts, make_plan
from router.planning.sizes import (
    apart,
    beside_one_another,
    check_size,
    drawing_size,
    editing_size,
    enlargement,
    looking_size,
    reduced,
)
from router.planning.styles import check_worn, wearable
from router.planning.tiling import along
from router.types import (
    Chain,
    Fuse,
    Generate,
    GenerationRequest,
    GivenPicture,
    ModelCard,
    Refine,
    Step,
    Style,
    Upscale,
    wearing,
)
from tests.router.cards import CATALOGUE, Cards

CARD = ModelCard("m", "sd15", "base", {"local": "-"}, native_size=(512, 512), size_multiple=16, min_side=64)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((512, 512), (512, 512)),
        ((500, 500), (496, 496)),  # its own, in whole multiples
        ((504, 504), (512, 512)),  # half of one is rounded to even multiples: 31.5 is 32
        ((1024, 1024), (512, 512)),
        ((1024, 256), (1024, 256)),  # of the native area
        ((1448, 362), (1024, 256)),
        ((4096, 512), (1456, 176)),  # eight to one: 1448 x 181
        ((512, 4096), (176, 1456)),
        ((32, 32), (64, 64)),  # no less than 64
        ((40, 80), (64, 128)),
        ((64, 512), (64, 512)),
        ((20, 160), (64, 512)),
    ],
)
def test_a_picture_is_looked_at_in_its_own_size_if_that_is_not_too_much(
    size: tuple[int, int], seen: tuple[int, int]
) -> None:
    """No more pixels than are native, no side below 64, in multiples of 16, of the shape that it has."""
    assert looking_size(CARD, *size) == seen


@pytest.mark.parametrize("size", [(801, 100), (100, 801)])
def test_a_strip_of_more_than_eight_to_one_is_not_looked_at(size: tuple[int, int]) -> None:
    """Up to 8 to 1 it is; the picture's size and the remedy are said."""
    assert looking_size(CARD, 800, 100) and looking_size(CARD, 100, 800)
    with pytest.raises(PlanError, match=rf"up to 8 to 1, and one is {size[0]}x{size[1]}; cut it") as refused:
        looking_size(CARD, *size)
    assert refused.value.param == "image"


def test_pictures_side_by_side_are_as_tall_as_the_tallest() -> None:
    """Each is brought to that height in its shape, and the widths add up."""
    assert beside_one_another([(300, 600), (100, 50), (10, 300)]) == (300 + 1200 + 20, 600)
    assert beside_one_another([(7, 3)]) == (7, 3)


def test_how_far_two_sizes_are_apart_is_a_sum_of_logarithms() -> None:
    """Twice the area is as far as twice the aspect, upwards as downwards; nothing is 0 away from itself."""
    assert apart((512, 512), (512, 512)) == 0.0
    assert apart((1024, 512), (512, 256)) == pytest.approx(math.log(4))
    assert apart((256, 512), (512, 512)) == pytest.approx(2 * math.log(2))
    assert apart((512, 256), (512, 512)) == pytest.approx(2 * math.log(2))
    assert apart((1024, 256), (512, 512)) == pytest.approx(math.log(4))


@pytest.mark.parametrize(("side", "factor", "before"), [(1024, 2.0, 512), (768, 1.5, 512), (300, 1.0, 300)])
def test_a_side_is_divided_by_what_enlarges_it(side: int, factor: float, before: int) -> None:
    """Where that is a whole number; else one that is nearby is named, and never nothing."""
    assert reduced(side, factor) == before
    with pytest.raises(PlanError, match="a side of 101 is not a whole number before upscaling by 2; try 100"):
        reduced(101, 2.0)
    with pytest.raises(PlanError, match="a side of 16 is not a whole number before upscaling by 64; try 64"):
        reduced(16, 64.0)


def test_what_enlarges_is_multiplied_along_a_chain_and_agrees_in_a_fusion() -> None:
    """A chain of 2 and 1.5 makes 3; a fusion of such makes 3 as well, one of nothing 1; unlike ones are listed."""
    chain = Chain((Generate("sd15"), Upscale(2.0), Upscale(1.5)))
    assert (enlargement(chain), enlargement(Fuse("average", (chain, chain))), enlargement(Fuse("average", ()))) == (
        3,
        3,
        1,
    )
    with pytest.raises(PlanError, match=r"enlarged differently \(1, 3\)"):
        enlargement(Fuse("average", (chain, Generate("sd15"))))


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ((64, 64), ""),
        ((1024, 1024), ""),
        ((1040, 1024), "1040x1024 is too large for 'm'; it takes at most 1,048,576 pixels, such as 512x512"),
        ((48, 64), "48x64 is too small for 'm'; its sides must be at least 64"),
        ((72, 90), "72x90 is not a multiple of 16, as 'm' needs; try 64x96"),
        ((8, 512), "try 64x512"),
        ((512, 8), "try 512x64"),
        ((500, 511), "try 496x512"),
    ],
)
def test_a_size_is_taken_from_the_least_side_to_the_most_pixels(size: tuple[int, int], why: str) -> None:
    """In multiples of 16; of what does not fit, the limit is told, and the nearest size that does."""
    if not why:
        check_size(CARD, *size)
        return
    with pytest.raises(PlanError, match=why) as refused:
        check_size(CARD, *size)
    assert refused.value.param == "size"


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((512, 512), (512, 512)),
        ((640, 512), (640, 512)),  # 5 to 4, and 1.25 of the native area: both at the bound
        ((2048, 2048), (512, 512)),  # 1.25 of it would be 572 a side, which in multiples of 16 is too much
        ((256, 256), (464, 464)),  # .8 of it is 458
        ((800, 640), (640, 512)),
        ((400, 320), (512, 416)),
    ],
)
def test_a_model_draws_at_the_nearest_size_at_which_it_is_good(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    """The size itself, else one of its shape at the bound of the areas that the card names."""
    found = drawing_size(CARD, *size)
    assert CARD.good_at(*found) and found == drawn


def test_a_picture_is_painted_over_at_about_the_native_area() -> None:
    """A shape at which nothing is drawn well is worked on at 512 x 512 pixels of area, no side below the least."""
    assert editing_size(CARD, 512, 512) == (512, 512)
    assert editing_size(CARD, 1000, 250) == (1024, 256)
    assert editing_size(CARD, 2000, 30) == (4176, 64)
    assert editing_size(replace(CARD, min_side=72), 2000, 20) == (5120, 80)
    with pytest.raises(PlanError, match="too large"):
        editing_size(replace(CARD, max_pixels=512 * 512), 2000, 10)


@pytest.mark.parametrize(
    ("side", "tile", "overlap", "count"),
    [
        (32, 64, 16, 1),
        (64, 64, 16, 1),
        (65, 64, 16, 2),
        (112, 64, 16, 2),
        (113, 64, 16, 3),
        (160, 64, 16, 3),
        (161, 64, 16, 4),
    ],
)
def test_tiles_cover_a_side_with_the_overlap_between_them(side: int, tile: int, overlap: int, count: int) -> None:
    """One tile holds its own side, and each further one adds what does not overlap."""
    assert along(side, tile, overlap) == count


def step(model: str, **settings: float) -> Step:
    return Step(f"1-{model}", "generate", model, (), "image", settings)


@pytest.mark.parametrize(("marks", "noted"), [(75, False), (76, True)])
def test_a_prompt_is_cut_from_the_first_token_beyond_the_limit(marks: int, noted: bool) -> None:
    """Each mark is a token, and two are the begin and the end: 75 fit into 77."""
    notes = cut_prompts("!" * marks, [step("sd15"), step("sd15"), step("flux")], CATALOGUE)
    told = f"sd15 reads at most 77 tokens; this prompt has at least {marks + 2}, its end is cut"
    assert notes == ([told] if noted else [])
    assert cut_prompts("word " * marks, [step("sd15")], CATALOGUE) == notes
    assert cut_prompts("!" * 500, [], CATALOGUE) == []


def test_of_a_very_long_prompt_the_beginning_is_counted() -> None:
    """Twenty thousand characters are looked at, so that a prompt of any length is planned at once."""
    (note,) = cut_prompts("!" * 30_000, [step("sd15")], CATALOGUE)
    assert "at least 20002," in note


def test_a_negative_prompt_is_cut_where_it_is_heeded() -> None:
    """Only models that are guided read one; the guest of two that predict together by its own guidance."""
    long = "! " * 80
    both = replace(
        step("sd15", guidance_scale=1.0), settings={"guidance_scale": 1.0, "guest": "sdxl", "guest_guidance_scale": 5.0}
    )
    assert [note.split()[0] for note in cut_negatives(long, [both, step("sd15", guidance_scale=1.01)], CATALOGUE)] == [
        "sdxl", "sd15",
    ]  # fmt: skip
    assert cut_negatives(long, [step("sd15", guidance_scale=1.0), step("sd15")], CATALOGUE) == []
    assert cut_negatives("", [step("sd15", guidance_scale=5.0)], CATALOGUE) == []


STYLES = {f"s{k}": Style(f"s{k}", "sd15", "lora", {"file": "-"}, least=-1.5, most=2) for k in range(5)}
WORN = replace(CARD, styles=STYLES)


@pytest.mark.parametrize(("weight", "fits"), [(-1.5, True), (-1.51, False), (2.0, True), (2.01, False), (0.1, True)])
def test_a_weight_is_worn_within_the_bounds_of_its_style(weight: float, fits: bool) -> None:
    """Both ends belong to it."""
    if fits:
        check_worn(wearing({"s0": weight}), WORN, "generate")
        return
    with pytest.raises(PlanError, match=rf"a weight of {weight:g} of the style 's0' \(lora\) is not -1\.5\.\.2"):
        check_worn(wearing({"s0": weight}), WORN, "generate")


def test_four_styles_are_worn_together_and_no_more() -> None:
    """Of a recipe and a request together, which may each have said fewer."""
    catalogue = Cards({"m": WORN})
    recipe = Generate("m", style=wearing(dict.fromkeys(("s0", "s1"), 1.0)))
    for more, fits in ((("s2", "s3"), True), (("s2", "s3", "s4"), False)):
        asked = GenerationRequest("a dog", style=wearing(dict.fromkeys(more, 1.0)))
        if fits:
            made = make_plan("r", recipe, asked, catalogue, {})
            assert made.steps[0].settings["style"] == "s0*1+s1*1+s2*1+s3*1"
        else:
            with pytest.raises(PlanError, match="5 styles at once; at most 4 are worn together"):
                make_plan("r", recipe, asked, catalogue, {})


@pytest.mark.parametrize(
    ("style", "card", "why"),
    [
        ({}, {}, ""),
        ({}, {"role": "refiner"}, "it is a refiner, and styles are made for base models"),
        ({}, {"family": "sdxl"}, "it is for family 'sd15', not 'sdxl'"),
        ({}, {"source": {"onnx": "-"}}, "a lora changes what is inside its networks"),
        ({"kind": "scheduler"}, {"source": {"onnx": "-"}}, ""),
        ({"latent_space": "x"}, {"latent_space": "x"}, ""),
        ({"latent_space": "x"}, {"latent_space": "y"}, "it is for models of latent space 'x', not 'y'"),
        ({}, {"tuning": {"quantize": "int8"}}, "leave `quantize: int8` out"),
        ({}, {"tuning": {"quantize": "int4"}}, ""),
        ({"kind": "freeu"}, {"tuning": {"quantize": "int8"}}, ""),
        ({"kind": "ip_adapter"}, {"tuning": {"offload": "model"}}, "leave `offload: model` out"),
        ({}, {"tuning": {"offload": "model"}}, ""),
        ({"kind": "ip_adapter"}, {"tuning": {"compile": "full"}}, "leave `compile: full` out"),
        ({"kind": "attention"}, {"tuning": {"compile": "full"}}, "leave `compile: full` out"),
        ({"kind": "freeu"}, {"tuning": {"compile": "full"}}, ""),
        ({"steps": ("refine",)}, {}, "lora works in refine only"),
    ],
)  # fmt: skip
def test_a_style_fits_a_model_or_it_is_said_why_not(
    style: dict[str, object], card: dict[str, object], why: str
) -> None:
    """Each reason has a model that differs in just that, and beside it one that does not."""
    one = replace(STYLES["s0"], **style)  # type: ignore[arg-type]
    model = replace(CARD, **card, styles={"s0": one})  # type: ignore[arg-type]
    assert wearable(one, model) is (not why or "works in" in why)
    if not why:
        check_worn(wearing({"s0": 1.0}), model, "generate")
        return
    with pytest.raises(PlanError) as refused:
        check_worn(wearing({"s0": 1.0}), model, "generate")
    assert why in str(refused.value)


def test_a_model_that_is_good_at_several_sizes_names_them_all() -> None:
    """Where none has the shape, each is listed; twice the native one stands for their multiples."""
    card = replace(CARD, native_sizes=((512, 512), (768, 512)), area_tolerance=(1.0, 1.0), aspect_tolerance=1.0)
    assert drawing_size(card, 1536, 1024) == (768, 512) and drawing_size(card, 1024, 1024) == (512, 512)
    said = "nor at another size of this shape, but at 512x512, 768x512; ask for one of these or a multiple"
    with pytest.raises(PlanError, match=said) as refused:
        drawing_size(card, 1024, 256)
    assert refused.value.message.endswith("such as 1024x1024")
    with pytest.raises(PlanError, match="such as 1024x1024, or give the recipe `tile: native`"):
        drawing_size(replace(card, relays=True), 1024, 256)


def test_a_share_between_two_hand_overs_has_a_whole_step() -> None:
    """From .5 until .55 of thirty steps is one and a half of them, until .53 is less than one."""
    for until, fits in ((0.55, True), (0.53, False)):
        stages = (
            Generate("sdxl", until=0.5),
            Refine("sdxl", from_=0.5, until=until),
            Refine("sdxl-refiner", from_=until),
        )
        if fits:
            assert len(make_plan("r", Chain(stages), GenerationRequest("a"), CATALOGUE, {}).steps) == 3
        else:
            with pytest.raises(PlanError, match="from leaves 'sdxl' less than one of 30 steps"):
                make_plan("r", Chain(stages), GenerationRequest("a"), CATALOGUE, {})


@pytest.mark.parametrize(("objects", "regions"), [(1, False), (2, True), (4, True), (5, False)])
def test_regions_are_of_two_to_four_objects(objects: int, regions: bool) -> None:
    """Each is a look at every picture; of more or fewer the best whole picture is kept."""
    names = ("a red circle", "a blue square", "a green star", "a yellow ring", "a white cross")[:objects]
    recipe = Fuse("regions", (Generate("sd15"), Generate("sd15")), "alignment")
    made = make_plan("r", recipe, GenerationRequest(" and ".join(names)), CATALOGUE, {})
    assert any(one.settings.get("method") == "regions" for one in made.steps) is regions
    assert sum(one.kind == "score" for one in made.steps) == (objects + 1 if regions else 1)


IMAGE, MASK = GivenPicture("image", "a", 64, 64), GivenPicture("mask", "b", 64, 64, 0.01)
REFERENCE = GivenPicture("reference", "c", 64, 64)


@pytest.mark.parametrize(
    ("given", "strength", "param"),
    [
        ((), None, ""),
        ((IMAGE, MASK), 1.0, ""),
        ((IMAGE,), 0.001, ""),
        ((IMAGE,), 0.0, "strength"),
        ((IMAGE,), 1.001, "strength"),
        ((REFERENCE,), 0.5, "strength"),
        ((IMAGE, REFERENCE), None, ""),
        ((REFERENCE, REFERENCE), None, "reference"),
        ((IMAGE, MASK, MASK), None, "mask"),
        ((REFERENCE, MASK), None, "mask"),
        ((IMAGE, replace(MASK, share=0.0)), None, "mask"),
        ((IMAGE, replace(MASK, height=65)), None, "mask"),
        ((IMAGE, replace(MASK, width=65)), None, "mask"),
        ((IMAGE, replace(IMAGE, digest="d"), MASK), None, ""),
    ],
)
def test_what_a_request_brings_goes_together(
    given: tuple[GivenPicture, ...], strength: float | None, param: str
) -> None:
    """One mask at most, of the size of the first picture and open somewhere, one reference, and a strength above 0 and
    up to 1 for a picture only."""
    asked = GenerationRequest("a", given=given, strength=strength)
    if not param:
        check_brought(asked)
        return
    with pytest.raises(RequestError) as refused:
        check_brought(asked)
    assert refused.value.param == param


@pytest.mark.parametrize(("height", "fits"), [(512, True), (488, True), (487, False), (537, True), (538, False)])
def test_a_given_picture_is_squeezed_by_a_twentieth_at_most(height: int, fits: bool) -> None:
    """Either way; beyond it, the height of its shape is named."""
    image = GivenPicture("image", "a", 256, 256)
    if fits:
        check_shape(image, 512, height)
        return
    with pytest.raises(PlanError, match="such as 512x512, or extend the picture"):
        check_shape(image, 512, height)
