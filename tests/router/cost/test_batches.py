"""Which steps can be made in one call, and how many at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router.cost.batches import ENOUGH, LOOK_AGAIN, BatchSizes, batch_key
from router.cost.model import CostModel
from router.types import Latents, Picture, Step, Value
from tests.router.cards import CATALOGUE

SETTINGS = {
    "prompt": "a dog", "width": 512, "height": 512, "steps": 20, "guidance_scale": 7.5, "scheduler": "euler", "seed": 1,
}  # fmt: skip


def generate(**settings: Any) -> Step:
    return Step("1", "generate", "sd15", (), "image", {**SETTINGS, **settings})


def refine(**settings: Any) -> Step:
    return Step("2", "refine", "sdxl", ("1",), "image", {**SETTINGS, **settings})


def picture(width: int = 512) -> Picture:
    return Picture(np.zeros((512, width, 3), np.uint8))


def latents(denoised: float = 0.8, space: str = "sdxl", side: int = 64) -> Latents:
    return Latents(np.zeros((4, side, side), np.float32), space, denoised)


def test_prompt_seed_and_the_text_of_a_negative_prompt_may_differ() -> None:
    """Pictures of different prompts and seeds are made together, whatever their steps are called."""
    key = batch_key(generate(), ())
    assert key is not None
    assert key == batch_key(replace(generate(prompt="a cat", seed=2), id="other"), ())
    assert batch_key(generate(negative_prompt="blue"), ()) == batch_key(generate(negative_prompt="red"), ())


@pytest.mark.parametrize(
    "other",
    [
        generate(width=768),
        generate(height=768),
        generate(steps=21),
        generate(guidance_scale=7.0),
        generate(scheduler="ddim"),
        generate(until=0.8),
        generate(negative_prompt="blue"),
        replace(generate(), kind="denoise"),
        replace(generate(), model="sdxl"),
        replace(generate(), produces="latents"),
    ],
)
def test_everything_else_keeps_steps_apart(other: Step) -> None:
    """Another model, kind, size, number of steps, guidance, scheduler or share of the schedule, or a negative prompt
    where the other has none, is never made in the same call."""
    assert batch_key(other, ()) != batch_key(generate(), ())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (picture(), picture(256)),
        (latents(), latents(side=32)),
        (latents(), latents(0.5)),
        (latents(), latents(space="sd")),
        (latents(), picture()),
    ],
)
def test_what_is_continued_has_one_shape(one: Value, other: Value) -> None:
    """Pictures or latents of unlike shape, space or progress are not continued together."""
    assert batch_key(refine(), (one,)) != batch_key(refine(), (other,))
    assert batch_key(refine(), (one,)) == batch_key(refine(prompt="other"), (one,))


def test_tiles_and_steps_without_a_model_are_alone() -> None:
    """Tiles are made one after the other, and a blend is made in this process."""
    assert batch_key(generate(tiles=4), ()) is None
    assert batch_key(Step("3", "blend", None, ("1", "2"), "image"), (picture(), picture())) is None


def test_pictures_of_any_size_are_scored_together() -> None:
    """A scorer brings them to its own size; only their number has to agree."""
    step = Step("s", "score", "alignment", ("1",), "scores", {"prompt": "a dog"})
    assert batch_key(step, (picture(),)) == batch_key(step, (picture(256),))
    assert batch_key(step, (picture(),)) != batch_key(step, (picture(), picture()))


# --------------------------------------------------------------------------------------------------------------- sizes


def learned(law: Callable[[int], float], turns: int, most: int = 8, noise: float = 0.0) -> tuple[BatchSizes, list[int]]:
    """Sizes chosen when as many wait as anyone may want, and a picture takes law(size) seconds."""
    costs, rng, chosen = CostModel(CATALOGUE), random.Random(0), []
    sizes = BatchSizes(costs, lambda model: most)
    for _ in range(turns):
        size = sizes.best(generate())
        chosen.append(size)
        seconds = law(size) * rng.uniform(1 - noise, 1 + noise)
        for _ in range(size):
            costs.observe(generate(), seconds, batch=size)
    return sizes, chosen


def test_sizes_grow_as_long_as_that_pays() -> None:
    """Where every picture more costs little, batches grow to the most that is allowed."""
    sizes, chosen = learned(lambda size: 1.0 / size + 0.1, 30)
    assert chosen[:ENOUGH] == [1] * ENOUGH
    assert sorted(chosen) == chosen
    assert sizes.best(generate()) == 8


def test_where_nothing_is_gained_steps_are_made_one_by_one() -> None:
    """If a picture takes as long in a batch as alone, two are tried until they are known, and again at each fiftieth
    turn after that."""
    _, chosen = learned(lambda size: 1.0, 5 + 2 * LOOK_AGAIN)
    again = [1] * (LOOK_AGAIN - 1) + [2]
    assert chosen == [1, 1, 1, 2, 2, *again, *again]


@pytest.mark.parametrize("best", [2, 4])
def test_growth_stops_where_more_costs_more(best: int) -> None:
    """Beyond the best size each picture takes longer: that is seen with noise in the measurements, too."""

    def law(size: int) -> float:
        return 1 / min(size, best) + 0.3 * max(0, size / best - 1)

    _, chosen = learned(law, 100, noise=0.1)
    assert chosen[30:].count(best) > 60


def test_a_change_is_followed() -> None:
    """When batches begin to pay, since the machine is another one, they grow."""
    costs = CostModel(CATALOGUE)
    sizes = BatchSizes(costs, lambda model: 8)
    for turn in range(12 * LOOK_AGAIN):
        size = sizes.best(generate())
        seconds = 1.0 if turn < 2 * LOOK_AGAIN else 1.0 / size
        costs.observe(generate(), seconds, batch=size)
    assert sizes.best(generate()) >= 4


def test_a_size_that_ran_out_of_memory_is_never_tried_again() -> None:
    """Below it batches go on; of other sizes of pictures nothing is concluded."""
    sizes, _ = learned(lambda size: 1.0 / size, 40)
    assert sizes.best(generate()) == 8
    sizes.ran_out_of_memory(generate(), 8)
    assert sizes.best(generate()) == 4
    sizes.ran_out_of_memory(generate(), 3)
    assert sizes.best(generate()) == 2
    sizes.ran_out_of_memory(generate(), 8)
    assert sizes.best(generate()) == 2
    assert all(sizes.best(generate()) == 2 for _ in range(3 * LOOK_AGAIN))
    assert sizes.best(generate(width=256)) == 1


def test_no_more_than_allowed() -> None:
    """`max_batch: 1` turns batches off, and 6 leaves 4 as the largest."""
    assert set(learned(lambda size: 1.0 / size, 50, most=1)[1]) == {1}
    assert max(learned(lambda size: 1.0 / size, 50, most=6)[1]) == 4
