import cv2
import numpy as np
import pytest

from models.fusion.agreement import disagreement
from models.fusion.kinds import FUSERS, fuse, run_step
from router.errors import StepError
from router.types import Picture, Scores, Step


def flat(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def noise(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", FUSERS)
@pytest.mark.parametrize("sizes", [((64, 48), (64, 48)), ((64, 48), (33, 21)), ((7, 5), (9, 5))])
def test_fusers_keep_flat_colours(method: str, sizes: tuple[tuple[int, int], ...]) -> None:
    """Two pictures of one flat colour, of whatever sizes, fuse to that colour at the larger size."""
    made = fuse(method, [flat((200, 30, 90), *size) for size in sizes], [0.1, 0.9])
    width, height = sizes[1] if method == "best_of" else max(sizes)
    assert made.shape == (height, width, 3)
    assert np.abs(made.astype(int) - (200, 30, 90)).max() <= 1


def test_best_of_returns_the_winner_untouched() -> None:
    """best_of gives the picture of the highest score, bit for bit, and the first among equals."""
    pictures = [noise(1), noise(2), noise(3)]
    assert fuse("best_of", pictures, [0.2, 0.9, 0.4]) is pictures[1]
    assert fuse("best_of", pictures, [0.5, 0.5, 0.4]) is pictures[0]


def test_average_is_taken_in_linear_light() -> None:
    """Black and white average to the grey that emits half the light (sRGB 188), not to 128."""
    assert np.unique(fuse("average", [flat((0, 0, 0)), flat((255, 255, 255))])).tolist() == [188]


def test_pyramid_takes_detail_from_where_it_is() -> None:
    """With detail on the left in one picture and on the right in the other, the fused one has both."""
    left, right = flat((128, 128, 128)), flat((128, 128, 128))
    left[:, :32], right[:, 32:] = noise(1)[:, :32], noise(2)[:, 32:]
    made = fuse("pyramid", [left, right]).astype(int)
    assert np.corrcoef(made[:, :28].ravel(), left[:, :28].ravel())[0, 1] > 0.9
    assert np.corrcoef(made[:, 36:].ravel(), right[:, 36:].ravel())[0, 1] > 0.9


def test_frequency_takes_colour_from_the_first_and_detail_from_the_second() -> None:
    """The mean colour is that of `low`, the fine structure that of `high`."""
    detail = np.clip(noise(1).astype(int) // 4 + 96, 0, 255).astype(np.uint8)
    made = fuse("frequency", [flat((60, 120, 180)), detail]).astype(float)
    assert np.abs(made.mean(axis=(0, 1)) - (60, 120, 180)).max() < 3
    assert np.corrcoef((made[..., 0] - 60).ravel(), detail[..., 0].astype(float).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("weights", ["saliency", "mask"])
def test_a_pyramid_takes_objects_from_where_they_stand_out(weights: str) -> None:
    """A disc on the left of one grey picture and one on the right of another are both in the fused one, in colour."""
    left, right = (np.full((64, 96, 3), 128, np.uint8) for _ in range(2))
    cv2.circle(left, (24, 32), 14, (220, 25, 35), -1)
    cv2.circle(right, (72, 32), 14, (35, 70, 225), -1)
    made = fuse(f"pyramid by {weights}", [left, right]).astype(int)
    tolerance = 12 if weights == "mask" else 60
    assert np.abs(made[32, 24] - (220, 25, 35)).max() < tolerance
    assert np.abs(made[32, 72] - (35, 70, 225)).max() < tolerance
    assert np.abs(made[5, 48] - 128).max() <= 1


def test_steps_say_by_what_a_pyramid_weighs() -> None:
    """The weights of a plan reach the blend."""
    values = (Picture(noise(1)), Picture(noise(2)))
    made = [
        run_step(Step("b", "blend", None, ("a", "b"), "image", {"method": "pyramid", **settings}), values).value
        for settings in ({}, {"weights": "contrast"}, {"weights": "mask"})
    ]
    first, second, third = (value.pixels for value in made if isinstance(value, Picture))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
    with pytest.raises(StepError, match="unknown method 'pyramid by masks'; did you mean 'pyramid by mask'"):
        run_step(Step("b", "blend", None, ("a", "b"), "image", {"method": "pyramid", "weights": "masks"}), values)


@pytest.mark.parametrize(
    ("method", "count", "scores", "message"),
    [
        ("best_off", 2, [1.0, 0.0], "unknown method 'best_off'; did you mean 'best_of'"),
        ("best_of", 2, None, "2 pictures need as many scores, not 0"),
        ("best_of", 2, [0.5, float("nan")], "not all numbers"),
        ("average", 0, None, "no picture to fuse"),
        ("frequency", 3, None, "takes two pictures, low and high, not 3"),
    ],
)
def test_what_cannot_be_fused_is_refused(method: str, count: int, scores: list[float] | None, message: str) -> None:
    """Wrong methods and counts are StepErrors."""
    with pytest.raises(StepError, match=message):
        fuse(method, [flat((0, 0, 0))] * count, scores)


def test_steps_without_a_model_run_from_plan_values() -> None:
    """select, blend and upscale take the values of a plan and say which picture was chosen."""
    values = (Picture(noise(1)), Picture(noise(2)), Scores((0.1, 0.8)))
    chosen = run_step(Step("s", "select", None, ("a", "b", "c"), "image", {"method": "best_of"}), values)
    assert np.array_equal(chosen.value.pixels, values[1].pixels)  # type: ignore[union-attr]
    assert chosen.facts["chosen"] == 1
    blended = run_step(Step("b", "blend", None, ("a", "b"), "image", {"method": "average"}), values[:2])
    larger = run_step(Step("u", "upscale", None, ("b",), "image", {"factor": 1.5}), (blended.value,))
    assert larger.value.pixels.shape == (72, 96, 3)  # type: ignore[union-attr]
    with pytest.raises(StepError, match=r"outside 1\.\.8"):
        run_step(Step("u", "upscale", None, ("b",), "image", {"factor": 9.0}), (blended.value,))


# ------------------------------------------------------------------------------------------ pictures that disagree


def drawn(x: int, y: int, colour: tuple[int, int, int] = (220, 30, 30), ground: int = 255) -> np.ndarray:
    picture = flat((ground, ground, ground), 64, 64)
    cv2.circle(picture, (x, y), 9, colour, -1)
    return picture


def test_disagreement_is_of_what_is_where() -> None:
    """A picture agrees with itself, its enlargement, and with itself moved by a pixel or sharpened; it disagrees with
    another place, colour or ground, and is the same in either order."""
    circle = drawn(20, 30)
    softer = cv2.GaussianBlur(circle, (0, 0), 1.0)
    larger = cv2.resize(circle, (128, 128), interpolation=cv2.INTER_CUBIC)
    assert disagreement([circle, circle]) == 0.0
    assert max(disagreement([circle, like]) for like in (softer, larger, drawn(21, 30))) < 0.05
    unlike = [drawn(44, 30), drawn(20, 30, (30, 60, 220)), drawn(20, 30, ground=0)]
    assert min(disagreement([circle, other]) for other in unlike) > 0.2
    assert disagreement([circle, unlike[0]]) == pytest.approx(disagreement([unlike[0], circle]))
    assert disagreement([circle, softer, unlike[0]]) == pytest.approx(disagreement([circle, unlike[0]]), rel=0.1)
    assert disagreement([flat((200, 30, 90)), flat((10, 30, 90))]) == pytest.approx(0.0, abs=1e-3)
    assert disagreement([circle]) == 0.0


@pytest.mark.parametrize("method", ["average", "pyramid", "frequency"])
def test_pictures_that_disagree_are_chosen_among_and_not_blended(method: str) -> None:
    """Within the bound the blend is made as ever; beyond it the best picture comes back untouched, with the reason."""
    here, near, there = drawn(20, 30), drawn(21, 30), drawn(44, 30)
    settings = {"method": method, "blend_within": 0.05}
    step = Step("f", "blend", None, ("a", "b", "s"), "image", settings)  # type: ignore[arg-type]
    blended = run_step(step, (Picture(here), Picture(near), Scores((0.2, 0.9))))
    assert isinstance(blended.value, Picture)
    assert np.array_equal(blended.value.pixels, fuse(method, [here, near]))
    assert "kept" not in blended.facts and float(blended.facts["disagreement"] or 0) < 0.05
    chosen = run_step(step, (Picture(here), Picture(there), Scores((0.2, 0.9))))
    assert isinstance(chosen.value, Picture)
    assert np.array_equal(chosen.value.pixels, there)
    assert chosen.facts["kept"] == 1 and float(chosen.facts["disagreement"] or 0) > 0.05
    with pytest.raises(StepError, match="need as many scores"):
        run_step(step, (Picture(here), Picture(there)))
