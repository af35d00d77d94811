"""Objects of several pictures on one canvas, without seams."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.fusion.seams import seam
from models.fusion.kinds import run_step
from models.fusion.regions import compose, isolated, looks, paste, segments, without
from router.errors import StepError
from router.types import Picture, Scores, Step

RED, BLUE, GREEN = (220, 25, 35), (35, 70, 225), (25, 160, 60)
Colour = tuple[int, int, int]


def drawn(*discs: tuple[int, Colour], ground: int = 255, width: int = 96) -> np.ndarray:
    """Discs of radius 10 at the given x on a plain ground."""
    picture = np.full((64, width, 3), ground, np.uint8)
    for x, colour in discs:
        cv2.circle(picture, (x, 32), 10, colour, -1)
    return picture


def colours(picture: np.ndarray, most: int = 6) -> list[Colour]:
    """The median colours of the objects, left to right."""
    return [tuple(np.median(picture[mask], axis=0).astype(int).tolist()) for mask in segments(picture, most)]


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_segments_are_what_stands_out(ground: int) -> None:
    """Two discs are two segments from left to right, whatever the plain background, and noise is none."""
    picture = drawn((24, RED), (72, BLUE), ground=ground)
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    first, second = segments(noisy, 4)
    for mask, x in ((first, 24), (second, 72)):
        assert abs(float(np.flatnonzero(mask.any(axis=0)).mean()) - x) < 1.5
        assert 250 < mask.sum() < 420
    assert segments(np.full((64, 64, 3), 90, np.uint8), 4) == []
    assert len(segments(picture, 1)) == 1


def test_an_isolated_object_is_alone_and_unchanged() -> None:
    """The others are painted over with the background, the object keeps its pixels."""
    picture = drawn((24, RED), (72, BLUE), ground=128)
    first, second = segments(picture, 4)
    alone = isolated(picture, first, [first, second])
    assert colours(alone) == [RED]
    assert np.array_equal(alone[first], picture[first])
    assert np.abs(alone[second].astype(int) - 128).max() <= 3
    assert without(picture, []) is picture


def test_each_object_comes_from_the_picture_that_shows_it_best() -> None:
    """A red disc of the first picture and a blue one of the second stand side by side; the wrong green one is gone."""
    pictures = [drawn((24, RED), (72, GREEN)), drawn((24, GREEN), (72, BLUE))]
    scores = [[0.9, 0.0, 0.1, 0.0], [0.0, 0.1, 0.0, 0.9]]
    made, sources = compose(pictures, scores, 4)
    assert sources == (0, 1)
    for found, want in zip(colours(made), (RED, BLUE), strict=True):
        assert np.abs(np.array(found) - want).max() <= 2


def test_a_picture_that_is_right_by_itself_is_left_untouched() -> None:
    """Nothing is mixed for a gain smaller than what a scorer's noise would give."""
    pictures = [drawn((24, RED), (72, BLUE)), drawn((30, RED), (70, BLUE))]
    made, sources = compose(pictures, [[0.85, 0.0, 0.8, 0.0], [0.0, 0.85, 0.0, 0.9]], 4)
    assert sources == (0, 0)
    assert np.array_equal(made, pictures[0])


def test_objects_in_one_place_are_not_laid_over_one_another() -> None:
    """Two objects that overlap cannot both be taken, so the best picture stays as it is."""
    pictures = [drawn((40, RED)), drawn((44, BLUE))]
    made, sources = compose(pictures, [[0.9, 0.0], [0.0, 0.9]], 4)
    assert sources == (0, 0)
    assert np.array_equal(made, pictures[0])


def test_unlike_backgrounds_meet_without_a_seam() -> None:
    """A pasted object keeps its colour, its rim takes the ground's, and the seam measure sees no edge but its own."""
    ground, donor = drawn((24, RED), ground=128), drawn((72, BLUE), ground=140)
    (mask,) = segments(donor, 4)
    made = paste(ground, donor, mask)
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7))) > 0
    assert np.abs(np.median(made[mask], axis=0) - BLUE).max() <= 2
    assert np.abs(made[rim & ~(cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0)].astype(int) - 128).max() <= 3
    cut = ground.copy()
    cut[rim] = donor[rim]
    assert seam(made, rim, [ground, donor]) < 0.5 < 1.0 < seam(cut, rim, [ground, donor])


def test_a_hard_cut_scores_badly_and_a_blend_well() -> None:
    """The seam measure is a multiple for two greys cut in the middle, small for the same two faded into one another."""
    dark, light = (np.full((64, 64, 3), grey, np.uint8) for grey in (90, 150))
    mask = np.zeros((64, 64), bool)
    mask[:, 32:] = True
    cut = np.where(mask[..., None], light, dark)
    fade = np.linspace(0, 1, 64)[None, :, None]
    faded = np.rint(dark * (1 - fade) + light * fade).astype(np.uint8)
    assert seam(cut, mask, [dark, light]) > 5
    assert seam(faded, mask, [dark, light]) < 0.5
    assert seam(cut, mask, [cut, light]) < 1.0  # an edge that an input has is none of the fusion's
    assert seam(cut, np.ones((64, 64), bool), [dark, light]) == 0.0


def test_regions_run_as_a_step_and_say_where_objects_come_from() -> None:
    """A blend of a plan takes one list of scores for each phrase; a list of another length is refused."""
    pictures = [drawn((24, RED), (72, GREEN)), drawn((24, GREEN), (72, BLUE))]
    step = Step("r", "blend", None, ("a", "b", "c", "d"), "image", {"method": "regions", "segments": 4})
    values = [Picture(picture) for picture in pictures]
    result = run_step(step, [*values, Scores((0.9, 0.0, 0.1, 0.0)), Scores((0.0, 0.1, 0.0, 0.9))])
    assert result.facts["sources"] == "0 1"
    assert len(list(looks(pictures, 4))) == 4
    with pytest.raises(StepError, match="4 segments need as many scores"):
        run_step(step, [*values, Scores((0.9,)), Scores((0.1,))])


def test_pictures_without_objects_give_the_first() -> None:
    """Where nothing stands out there is nothing to mix."""
    flat = np.full((48, 64, 3), 70, np.uint8)
    made, sources = compose([flat, flat], [[], []], 4)
    assert np.array_equal(made, flat)
    assert sources == (0, 0)
