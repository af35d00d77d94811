"""The captioned world: seeded scenes, captions that mean them, and a checker that can be believed."""

import random

import numpy as np
import pytest
from scipy import ndimage

from models.embedded.captions import FRAMES, caption, parse
from models.embedded.checker import check
from models.embedded.outcomes import held_out_prompts, wilson
from models.embedded.world import HELD_OUT_PAIRS, SIZE, TIERS, Scene, Thing, render, sample_scene


def scenes(tier: str, n: int = 40, seed: int = 1) -> list[Scene]:
    rng = random.Random(f"test {tier} {seed}")
    return [sample_scene(rng, tier) for _ in range(n)]


@pytest.mark.parametrize("tier", TIERS)
def test_the_same_seed_gives_the_same_scene_caption_and_picture(tier: str) -> None:
    """The world is a function of its seed."""
    one, two = (sample_scene(random.Random(5), tier) for _ in range(2))
    assert one == two
    assert caption(one, random.Random(3)) == caption(two, random.Random(3))
    assert render(one).shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(render(one), render(two))


@pytest.mark.parametrize("tier", TIERS)
def test_true_renders_are_exact_and_pictures_of_another_scene_are_not(tier: str) -> None:
    """The checker gives full marks to true renders and almost none to mismatches."""
    drawn = scenes(tier)
    pictures = [render(scene) for scene in drawn]
    assert all(check(picture, scene) == check(picture, scene) for picture, scene in zip(pictures, drawn, strict=True))
    assert np.mean([check(picture, scene).exact for picture, scene in zip(pictures, drawn, strict=True)]) == 1.0
    others = drawn[1:] + drawn[:1]
    assert np.mean([check(picture, scene).exact for picture, scene in zip(pictures, others, strict=True)]) <= 0.1


@pytest.mark.parametrize("tier", TIERS)
def test_mild_blur_and_noise_do_not_change_the_mark(tier: str) -> None:
    """A picture that an eye would still accept keeps its exact mark."""
    noise = np.random.default_rng(0)
    marks = []
    for scene in scenes(tier):
        soft = ndimage.gaussian_filter(render(scene).astype(float), (0.7, 0.7, 0)) + noise.normal(0, 8, (SIZE, SIZE, 3))
        marks.append(check(np.clip(soft, 0, 255).astype(np.uint8), scene).exact)
    assert np.mean(marks) >= 0.97


def test_one_wrong_attribute_costs_the_exact_mark_and_is_named() -> None:
    """Faults say what is wrong, and the partial mark says how much is right."""
    scene = next(s for s in scenes("relation") if s.relation == "above")
    wrong = Scene(scene.tier, scene.things, "below")
    mark = check(render(scene), wrong)
    assert not mark.exact
    assert mark.faults == ("not below",)
    assert 0.8 <= mark.partial < 1


def test_an_empty_picture_and_static_are_never_exact() -> None:
    """Nothing scores by drawing nothing, or everything."""
    red_circle = Scene("one", (Thing("red", "circle"),))
    static = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    for picture in (np.full((SIZE, SIZE, 3), 255, np.uint8), np.zeros((SIZE, SIZE, 3), np.uint8), static):
        assert not check(picture, red_circle).exact


def test_larger_pictures_are_checked_at_the_worlds_size() -> None:
    """A picture of 256 pixels gets the mark of the same picture at 64."""
    for scene in scenes("two", 5):
        assert check(render(scene).repeat(4, 0).repeat(4, 1), scene).exact


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("split", FRAMES)
def test_captions_parse_back_to_their_scene(tier: str, split: str) -> None:
    """Whatever the phrasing, a caption makes exactly its scene's claims."""
    rng = random.Random(2)
    for scene in scenes(tier, 80):
        text = caption(scene, rng, split)
        read = parse(text)
        assert read is not None, text
        assert (read.things, read.relation, read.position, read.background, read.tier) == (
            scene.things,
            scene.relation,
            scene.position,
            scene.background,
            scene.tier,
        ), text


def test_the_two_model_prompts_are_in_the_world() -> None:
    """The prompts that the documentation uses can be drawn and checked."""
    assert parse("A red circle.") == Scene("one", (Thing("red", "circle"),))
    assert parse("three small yellow stars above a large blue ring on a black background") == Scene(
        "counts", (Thing("yellow", "star", "small", 3), Thing("blue", "ring", "large")), "above", None, "black"
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "a photograph of a horse",
        "a red car",
        "a red circle on the beach",
        "seven red circles",
        "",
        "a pink square",
        "red",
    ],
)
def test_prompts_outside_the_world_have_no_claims(prompt: str) -> None:
    """What the world cannot hold is refused instead of half understood."""
    assert parse(prompt) is None


def test_training_never_holds_a_held_out_pair_or_frame() -> None:
    """The held-out pairs and phrasings are nowhere in the training split."""
    rng = random.Random(9)
    for tier in TIERS:
        for scene in scenes(tier, 200):
            assert not {(thing.colour, thing.shape) for thing in scene.things} & set(HELD_OUT_PAIRS)
            assert not any(caption(scene, rng).startswith(frame[:-2]) for frame in FRAMES["held out"])
    pairs = {
        (p.scene.things[0].colour, p.scene.things[0].shape) for p in held_out_prompts("one", 50, 0, new_pairs=True)
    }
    assert pairs == set(HELD_OUT_PAIRS)
    assert held_out_prompts("counts", 5, 1) == held_out_prompts("counts", 5, 1) != held_out_prompts("counts", 5, 2)


def test_an_unknown_tier_is_refused_by_name() -> None:
    """A typo in a tier fails at once and lists the tiers."""
    with pytest.raises(ValueError, match="attributes"):
        sample_scene(random.Random(0), "atributes")


def test_wilson_intervals_hold_the_share_and_stay_in_bounds() -> None:
    """Intervals of extreme shares do not leave 0..1."""
    assert wilson(0, 0) == (0.0, 1.0)
    for k in (0, 3, 10):
        low, high = wilson(k, 10)
        assert -1e-9 <= low <= k / 10 <= high <= 1 + 1e-9
