"""Several steps in one call: the pictures are those made alone up to rounding, and what fails fails alone."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import Cancelled, Engine, load_card, load_engine
from models.engine.diffusion import DiffusionEngine
from router.errors import StepError, TriptychError
from router.types import Latents, ModelCard, Picture, Progress, Scores, Step, StepResult, Value

PROMPTS = ("a red circle above a blue square", "two green stars", "a large yellow ring", "a small blue triangle")
CLOSE = 2  # of 255

Engines = Callable[[str], Engine]


@functools.cache
def embedded(model: str) -> Engine:
    card = load_card(f"embedded/{model}")
    if not Path(str(card.source["local"])).is_dir():
        pytest.skip("the embedded family is not trained in this checkout")
    return load_engine(card, threads=1)


def steps(model: str, kind: str = "generate", produces: str = "image", **settings: Any) -> list[Step]:
    inputs = () if kind == "generate" else ("1",)
    return [
        Step(f"step {seed}", kind, model, inputs, produces, {"prompt": prompt, "seed": seed, **settings})  # type: ignore[arg-type]
        for seed, prompt in enumerate(PROMPTS)
    ]


def values(made: list[StepResult | TriptychError]) -> list[Any]:
    for result in made:
        assert isinstance(result, StepResult), result
    return [result.value for result in made if isinstance(result, StepResult)]


def apart(one: Any, other: Any) -> float:
    """The largest difference of two pictures in steps of 255, of latents or scores in their own unit."""
    assert type(one) is type(other)
    if isinstance(one, Picture):
        return float(np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max())
    if isinstance(one, Latents):
        return float(np.abs(one.data - other.data).max())
    return float(np.abs(np.array(one.values) - np.array(other.values)).max())


@pytest.mark.shipped_weights
@pytest.mark.parametrize(
    ("model", "settings"),
    [("sd15", {}), ("sdxl", {}), ("sdxl-turbo", {}), ("flux", {"steps": 6}), ("sdxl", {"negative_prompt": "red"})],
)
def test_a_batch_of_four_is_four_pictures(model: str, settings: dict[str, Any]) -> None:
    """With the shipped weights, no pixel of a picture made with three others is more than 2 of 255 from that of the
    picture made alone, and the facts say how many were made together."""
    engine = embedded(model)
    asked = steps(model, **settings)
    made = engine.run_batch(asked, [()] * 4)
    for one, together in zip(asked, values(made), strict=True):
        assert apart(engine.run(one).value, together) <= CLOSE
    assert {result.facts["batch"] for result in made if isinstance(result, StepResult)} == {4}
    assert "batch" not in engine.run(asked[0]).facts


@pytest.mark.shipped_weights
def test_a_refiner_continues_four_latents_or_pictures_at_once() -> None:
    """SDXL stops four pictures at the same share and the refiner goes on from their latents; or it goes on from four
    finished pictures: both as one by one."""
    base, refiner = embedded("sdxl"), embedded("sdxl-refiner")
    halves = values(base.run_batch(steps("sdxl", produces="latents", steps=8, until=0.75), [()] * 4))
    assert all(isinstance(half, Latents) for half in halves)
    for one, half in zip(steps("sdxl", produces="latents", steps=8, until=0.75), halves, strict=True):
        assert apart(base.run(one).value, half) < 1e-3
    pictures: list[Value] = [Picture(np.full((64, 64, 3), 40 * n, np.uint8)) for n in range(4)]
    for settings, inputs in (({"from": 0.75, "steps": 8}, halves), ({"strength": 0.5}, pictures)):
        asked = steps("sdxl-refiner", "refine", **settings)
        made = values(refiner.run_batch(asked, [(value,) for value in inputs]))
        for one, value, together in zip(asked, inputs, made, strict=True):
            assert apart(refiner.run(one, (value,)).value, together) <= CLOSE


@pytest.mark.parametrize("scorer", ["alignment", "clip", "pickscore", "vqa"])
def test_pictures_are_scored_at_once_each_for_its_own_prompt(engine: Engines, scorer: str) -> None:
    """Scores of several steps in one call, with prompts of different lengths and pictures of different sizes, are those
    of the steps alone."""
    judge = embedded(scorer) if scorer == "alignment" else engine(scorer)
    noise = np.random.default_rng(0)
    inputs = [(Picture(noise.integers(0, 256, (48, 48 + 16 * n, 3), dtype=np.uint8)),) for n in range(4)]
    asked = steps(scorer, "score", "scores")
    alone = [judge.run(one, pictures).value for one, pictures in zip(asked, inputs, strict=True)]
    for one, together in zip(alone, values(judge.run_batch(asked, inputs)), strict=True):
        assert isinstance(together, Scores) and len(together.values) == 1
        assert apart(one, together) < 1e-5


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_every_picture_of_a_batch_has_its_progress_and_previews(engine: Engines, model: str) -> None:
    """Each step of a batch is reported under its own id, with previews that are those of the step alone."""
    one_by_one: dict[str, list[Progress]] = {}
    together: dict[str, list[Progress]] = {}
    asked = steps(model, steps=4)
    for step in asked:
        engine(model).run(step, on_progress=lambda told: one_by_one.setdefault(told.step, []).append(told))

    def note(number: int, told: Progress) -> None:
        assert told.step == asked[number].id
        together.setdefault(told.step, []).append(told)

    engine(model).run_batch(asked, [()] * 4, on_progress=note)
    assert one_by_one.keys() == together.keys() == {step.id for step in asked}
    for step in asked:
        for alone, beside in zip(one_by_one[step.id], together[step.id], strict=True):
            assert (alone.done, alone.total) == (beside.done, beside.total)
            assert (alone.preview is None) == (beside.preview is None)
            assert alone.preview is None or apart(alone.preview, beside.preview) <= CLOSE


def test_a_batch_nobody_waits_for_stops(engine: Engines) -> None:
    """Told to stop, a batch ends within one denoising step."""
    asks = iter((False, False, True))
    with pytest.raises(Cancelled, match="after 2 denoising steps"):
        engine("sdxl").run_batch(steps("sdxl", steps=4), [()] * 4, should_stop=lambda: next(asks))


def test_a_step_that_asks_for_what_cannot_be_fails_alone(engine: Engines) -> None:
    """A step with a wrong input is an error in its place, and the others are made."""
    asked = steps("sdxl", "refine", strength=0.5)
    good = Picture(np.zeros((32, 32, 3), np.uint8))
    made = engine("sdxl").run_batch(asked, [(good,), (), (good,), (good,)])
    assert [type(result) for result in made] == [StepResult, StepError, StepResult, StepResult]
    assert "takes one input" in str(made[1])
    judge = engine("clip")
    made = judge.run_batch(steps("clip", "score", "scores"), [(good,), (Latents(np.zeros((4, 8, 8)), "x", 1.0),)] * 2)
    assert [type(result) for result in made] == [StepResult, StepError] * 2


@pytest.fixture
def small(cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch) -> tuple[DiffusionEngine, list[int]]:
    """An engine whose memory is enough for one picture, and the sizes of the calls of its network that were tried."""
    made = load_engine(replace(cards["sd15"], steps=1), threads=1)
    assert isinstance(made, DiffusionEngine)
    usual, tried = made._pipe.unet.forward, []

    def forward(sample: Any, *args: Any, **kwargs: Any) -> Any:
        tried.append(len(sample))
        if len(sample) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return usual(sample, *args, **kwargs)

    monkeypatch.setattr(made._pipe.unet, "forward", forward)
    return made, tried


def test_a_batch_that_is_too_large_for_the_memory_is_halved_and_then_made_one_by_one(
    small: tuple[DiffusionEngine, list[int]],
) -> None:
    """Four fail, two fail, single ones succeed; the results say that two are too many, and neither two nor four are
    tried again for pictures of that size, while those of another size are."""
    engine, tried = small
    asked = steps("sd15", steps=1, guidance_scale=1.0)
    made = engine.run_batch(asked, [()] * 4)
    assert Counter(tried) == {4: 1, 2: 1, 1: 4}
    alone = [engine.run(one).value for one in asked]
    assert all(apart(one, together) == 0 for one, together in zip(alone, values(made), strict=True))
    assert {result.facts["batch_too_large"] for result in made if isinstance(result, StepResult)} == {2}
    tried.clear()
    values(engine.run_batch(asked, [()] * 4))
    assert tried == [1] * 4
    tried.clear()
    values(engine.run_batch(steps("sd15", steps=1, guidance_scale=1.0, width=48)[:2], [()] * 2))
    assert tried == [2, 1, 1]


def test_whatever_else_fails_in_a_batch_is_found_one_by_one(
    cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a call for several fails and no memory is missing, each is made alone, so that only the culprit fails."""
    engine = load_engine(replace(cards["sd15"], steps=1), threads=1)
    assert isinstance(engine, DiffusionEngine)
    usual = engine._pipe.encode_prompt

    def encode(prompt: Any, *args: Any, **kwargs: Any) -> Any:
        if PROMPTS[2] in prompt:
            raise ZeroDivisionError("that prompt")
        return usual(prompt, *args, **kwargs)

    monkeypatch.setattr(engine._pipe, "encode_prompt", encode)
    made = engine.run_batch(steps("sd15", steps=1), [()] * 4)
    assert [isinstance(result, StepResult) for result in made] == [True, True, False, True]
    assert "ZeroDivisionError" in str(made[2]) and "step 2" in str(made[2])


def test_a_broken_device_fails_all_of_a_batch_at_once(
    cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error that leaves CUDA useless nothing is tried one by one."""
    engine = load_engine(replace(cards["sd15"], steps=1), threads=1)
    assert isinstance(engine, DiffusionEngine)
    calls = []

    def fail(*_: Any, **__: Any) -> Any:
        calls.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine._pipe.unet, "forward", fail)
    made = engine.run_batch(steps("sd15", steps=1), [()] * 4)
    assert all(isinstance(result, StepError) for result in made)
    assert len(calls) == 1 and engine.broken


def test_tiles_of_a_batch_are_made_one_after_the_other(engine: Engines) -> None:
    """Wide pictures in one batch are exactly those made alone."""
    tiled = {"width": 64, "height": 32, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}
    asked = steps("sdxl", steps=2, **tiled)[:2]
    made = values(engine("sdxl").run_batch(asked, [()] * 2))
    assert [apart(engine("sdxl").run(one).value, together) for one, together in zip(asked, made, strict=True)] == [0, 0]
