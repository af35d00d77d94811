"""Tiles of large pictures, and relays between models of one latent space."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import Engine, load_catalogue, load_engine
from models.engine.diffusion import DiffusionEngine
from models.engine.tiles import Tiling, blend, boxes, windows
from router.errors import StepError
from router.planning.tiling import along
from router.types import Latents, ModelCard, Picture, Step, Value

Engines = Callable[[str], Engine]
WEIGHTS = Path(__file__).resolve().parents[3] / "models" / "embedded" / "weights"


def step(kind: str, model: str, **settings: object) -> Step:
    inputs = () if kind == "generate" else ("before",)
    return Step("it", kind, model, inputs, "image", {"prompt": "red dot", "seed": 1, **settings})  # type: ignore[arg-type]


def run(engine: Engine, asked: Step, *inputs: Value) -> Value:
    return engine.run(asked, inputs).value


def scene(width: int, height: int) -> np.ndarray:
    """Smooth colours, so that a seam would show."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (np.stack([x, y, 1 - x], axis=2) * 255).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (65, 40), (200, 96), (1000, 333), (512, 512)])
@pytest.mark.parametrize("tiling", [Tiling(64, 64, 16, 0), Tiling(64, 48, 32, 0), Tiling(512, 512, 128, 0)])
def test_tiles_cover_and_weights_add_up_to_one(width: int, height: int, tiling: Tiling) -> None:
    """Every pixel belongs to a tile, neighbours overlap, the weights sum to one, and the plan counts the same tiles."""
    places = boxes(width, height, tiling, 1)
    across, down = min(tiling.width, width), min(tiling.height, height)
    assert len(places) == along(width, across, tiling.overlap) * along(height, down, tiling.overlap)
    total = np.zeros((height, width), np.float32)
    for box, weight in zip(places, windows(places, width, height), strict=True):
        assert (box.width, box.height) == (across, down)
        assert weight.min() > 0
        box.of(total)[...] += weight
    assert np.allclose(total, 1, atol=1e-5)


def test_tiles_that_were_not_changed_give_the_picture_back() -> None:
    """Cutting a picture up and blending it is exact, bit for bit."""
    picture = np.random.default_rng(1).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    places = boxes(130, 90, Tiling(64, 64, 24, 0), 8)
    assert np.array_equal(blend([box.of(picture) for box in places], places, 130, 90), picture)


def test_a_step_between_tiles_fades_instead_of_jumping() -> None:
    """Two tiles of different grey meet without a jump larger than the overlap spreads."""
    places = boxes(96, 64, Tiling(64, 64, 32, 0), 8)
    parts = [np.full((64, 64, 3), grey, np.uint8) for grey in (100, 140)]
    row = blend(parts, places, 96, 64)[10, :, 0].astype(int)
    assert (row[0], row[-1]) == (100, 140)
    assert np.diff(row).max() <= 3


@pytest.mark.parametrize("model", ["sd15", "sdxl", "flux", "sd3", "qwen-image", "z-image"])
def test_tiled_refine_works_on_pictures_beyond_the_tile(engine: Engines, model: str) -> None:
    """A picture of six tiles keeps its size, is the same each time, and reports its tiles."""
    picture = Picture(scene(64, 48))
    asked = step(
        "refine", model, width=64, height=48, strength=0.5, steps=2,
        tile_width=32, tile_height=32, tile_overlap=16, tiles=6,
    )  # fmt: skip
    result = engine(model).run(asked, (picture,))
    assert isinstance(result.value, Picture)
    assert result.value.pixels.shape == (48, 64, 3)
    assert result.facts["tiles"] == 6
    again = run(engine(model), asked, picture)
    assert isinstance(again, Picture)
    assert np.array_equal(result.value.pixels, again.pixels)


def test_tiles_other_than_planned_are_refused(engine: Engines) -> None:
    """A step whose number of tiles is not what its sizes need is not run."""
    asked = step(
        "refine", "sd15", width=64, height=32, strength=0.5, tile_width=32, tile_height=32, tile_overlap=16, tiles=2
    )
    with pytest.raises(StepError, match="2 tiles were planned, 3 are needed"):
        run(engine("sd15"), asked, Picture(scene(64, 32)))


def test_progress_counts_the_steps_of_all_tiles(engine: Engines) -> None:
    """Three tiles of two steps, finished one by one, are six steps of progress."""
    seen: list[tuple[int, int]] = []
    asked = step(
        "refine", "flux", width=64, height=32, strength=1.0, steps=2,
        tile_width=32, tile_height=32, tile_overlap=16, tiles=3,
    )  # fmt: skip
    engine("flux").run(asked, (Picture(scene(64, 32)),), on_progress=lambda p: seen.append((p.done, p.total)))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_one_window_is_the_whole_picture_and_more_are_another(engine: Engines, model: str) -> None:
    """Windows as large as the picture change nothing; smaller ones make one picture of its full size."""
    whole = run(engine(model), step("generate", model, width=32, height=32, steps=2))
    one = {"tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 1}
    same = run(engine(model), step("generate", model, width=32, height=32, steps=2, **one))
    wide = run(engine(model), step("generate", model, width=64, height=32, steps=2, **{**one, "tiles": 3}))
    assert isinstance(whole, Picture) and isinstance(same, Picture) and isinstance(wide, Picture)
    assert np.abs(whole.pixels.astype(int) - same.pixels).max() <= 1
    assert wide.pixels.shape == (32, 64, 3)


WINDOWS = {"width": 64, "height": 32, "steps": 2, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_windows_leave_the_network_and_its_hooks_as_they_were(cards: dict[str, ModelCard], model: str) -> None:
    """Hooks of torch, of accelerate (offloading) and of diffusers see the windows, the picture is the same with them,
    and all of them still run for what comes afterwards."""
    from accelerate.hooks import ModelHook, add_hook_to_module
    from diffusers.hooks import HookRegistry
    from diffusers.hooks import ModelHook as DiffusersHook

    engine = load_engine(cards[model], threads=1)
    assert isinstance(engine, DiffusionEngine)
    plain = run(engine, step("generate", model, **WINDOWS))
    small = run(engine, step("generate", model, width=32, height=32, steps=2))
    network = engine._pipe.unet
    assert "forward" not in vars(network)
    seen: Counter[str] = Counter()

    class Counting(ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            seen["accelerate"] += 1
            return args, kwargs

    class AlsoCounting(DiffusersHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            seen["diffusers"] += 1
            return args, kwargs

    network.register_forward_hook(lambda *_: seen.update(["torch"]))
    add_hook_to_module(network, Counting())
    HookRegistry.check_if_exists_or_initialize(network).register_hook(AlsoCounting(), "counting")
    windows = run(engine, step("generate", model, **WINDOWS))
    assert isinstance(plain, Picture) and isinstance(windows, Picture) and isinstance(small, Picture)
    assert (windows.pixels == plain.pixels).all()
    calls = seen["torch"]
    assert seen == {"torch": calls, "accelerate": 3 * calls, "diffusers": 3 * calls}
    assert calls >= 2
    seen.clear()
    after = run(engine, step("generate", model, width=32, height=32, steps=2))
    assert isinstance(after, Picture) and (after.pixels == small.pixels).all()
    assert seen == {"torch": calls, "accelerate": calls, "diffusers": calls}


def test_a_failure_in_a_window_leaves_the_network_as_it_was(cards: dict[str, ModelCard]) -> None:
    """After a window that raised, the network is no longer applied in windows, and the next ones are."""
    engine = load_engine(cards["sd15"], threads=1)
    assert isinstance(engine, DiffusionEngine)
    network, whole = engine._pipe.unet, run(engine, step("generate", "sd15", width=32, height=32, steps=2))
    handle = network.mid_block.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(StepError, match="ZeroDivisionError"):
        run(engine, step("generate", "sd15", **WINDOWS))
    handle.remove()
    assert "forward" not in vars(network)
    again = run(engine, step("generate", "sd15", width=32, height=32, steps=2))
    assert isinstance(whole, Picture) and isinstance(again, Picture) and (again.pixels == whole.pixels).all()
    assert run(engine, step("generate", "sd15", **WINDOWS)) is not None


@pytest.mark.parametrize("compile_", ["in place", "wrapped"])
def test_a_compiled_network_is_applied_in_windows_and_works_afterwards(
    cards: dict[str, ModelCard], compile_: str
) -> None:
    """A network under torch.compile draws in windows what it draws without, and whole pictures before and after."""
    import torch

    plain, engine = (load_engine(cards["sd15"], threads=1) for _ in range(2))
    assert isinstance(engine, DiffusionEngine)
    if compile_ == "in place":
        engine._pipe.unet.compile(backend="eager")
    else:
        engine._pipe.unet = torch.compile(engine._pipe.unet, backend="eager")
    for asked in ({"width": 32, "height": 32, "steps": 2}, WINDOWS, {"width": 32, "height": 32, "steps": 2}):
        made = [run(one, step("generate", "sd15", **asked)) for one in (plain, engine)]
        assert all(isinstance(picture, Picture) for picture in made)
        assert np.abs(made[0].pixels.astype(int) - made[1].pixels).max() <= 1  # type: ignore[union-attr]


def test_flux_cannot_generate_in_windows(engine: Engines) -> None:
    """Packed tokens have no place to cut, and the step says what to do instead."""
    asked = step("generate", "flux", width=64, height=32, tile_width=32, tile_height=32, tile_overlap=16, tiles=3)
    with pytest.raises(StepError, match="upscale, and refine"):
        run(engine("flux"), asked)


# ------------------------------------------------------------------------------------------------------------ relays


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_a_relay_of_a_model_with_itself_is_the_undivided_run(engine: Engines, model: str, scheduler: str) -> None:
    """Stopping twice on the way and going on changes nothing, with schedulers that look one step back only."""
    usual = {"steps": 6, "scheduler": scheduler}
    whole = run(engine(model), step("generate", model, **usual))
    first = run(engine(model), step("generate", model, **usual, until=0.34))
    assert isinstance(first, Latents)
    second = run(engine(model), step("refine", model, **usual, **{"from": 0.34, "until": 0.67}), first)
    assert isinstance(second, Latents)
    assert (first.denoised, second.denoised) == (0.34, 0.67)
    last = run(engine(model), step("refine", model, **usual, **{"from": 0.67}), second)
    assert isinstance(whole, Picture) and isinstance(last, Picture)
    assert np.abs(whole.pixels.astype(int) - last.pixels).max() <= 1


def test_embedded_sd15_and_sdxl_share_one_latent_space() -> None:
    """The cards name one space because the VAEs are equal, weights and scaling, and so are the noise schedules."""
    models = ("sd15", "sdxl", "sdxl-turbo", "sdxl-refiner")
    catalogue = load_catalogue({model: f"embedded/{model}" for model in models})
    assert len({catalogue[model].latent_space for model in models}) == 1
    for part in ("vae/diffusion_pytorch_model.safetensors", "vae/config.json"):
        assert len({(WEIGHTS / model / part).read_bytes() for model in models}) == 1
    schedules = [json.loads((WEIGHTS / model / "scheduler" / "scheduler_config.json").read_text()) for model in models]
    keys = (
        "beta_start", "beta_end", "beta_schedule", "trained_betas", "num_train_timesteps", "timestep_spacing",
        "prediction_type",
    )  # fmt: skip
    assert len({tuple(schedule[key] for key in keys) for schedule in schedules}) == 1
