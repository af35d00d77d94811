"""The phases of a step: reading, denoising and decoding are its seconds, however it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models import Engine
from models.profiling.phases import Phases
from router.types import Latents, Picture, Step, StepResult

SETTINGS: dict[str, Any] = {"prompt": "a red circle", "seed": 7, "width": 32, "height": 32, "steps": 4}


def phases(result: StepResult) -> dict[str, float]:
    return {
        name: float(str(result.facts[name])) for name in ("text_s", "denoise_s", "decode_s") if name in result.facts
    }


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image"])
def test_the_phases_are_the_seconds_of_a_step(engine: Callable[[str], Engine], name: str) -> None:
    """In every family each phase takes some time, and all three no more than the step."""
    result = engine(name).run(Step("1", "generate", name, (), "image", SETTINGS))
    found = phases(result)
    assert len(found) == 3 and min(found.values()) > 0
    assert sum(found.values()) <= result.seconds + 1e-4


def test_pictures_of_one_call_share_its_phases(engine: Callable[[str], Engine]) -> None:
    """In a batch every picture has the same part, and no more than its seconds."""
    steps = [Step(str(n), "generate", "sd15", (), "image", {**SETTINGS, "seed": n}) for n in range(3)]
    results = engine("sd15").run_batch(steps, [()] * 3)
    assert all(isinstance(result, StepResult) for result in results)
    made = [result for result in results if isinstance(result, StepResult)]
    assert len({tuple(phases(result).items()) for result in made}) == 1
    assert sum(phases(made[0]).values()) <= made[0].seconds + 1e-4


def test_latents_are_not_decoded(engine: Callable[[str], Engine]) -> None:
    """A step that hands latents over has no seconds of decoding; the one that goes on from them has."""
    half = engine("sdxl").run(Step("1", "generate", "sdxl", (), "latents", {**SETTINGS, "until": 0.5}))
    assert isinstance(half.value, Latents) and set(phases(half)) == {"text_s", "denoise_s"}
    step = Step("2", "refine", "sdxl-refiner", ("1",), "image", {**SETTINGS, "from": 0.5})
    assert len(phases(engine("sdxl-refiner").run(step, (half.value,)))) == 3


def test_the_phases_of_tiles_add_up(engine: Callable[[str], Engine]) -> None:
    """A picture that is refined tile by tile has the phases of all its tiles."""
    tiles = {"width": 64, "height": 32, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}
    grey = Picture(np.full((32, 64, 3), 128, np.uint8))
    step = Step("1", "refine", "flux", ("0",), "image", {**SETTINGS, **tiles, "strength": 0.5})
    result = engine("flux").run(step, (grey,))
    assert 0.5 * result.seconds < sum(phases(result).values()) <= result.seconds + 1e-4


def test_phases_are_counted_from_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked out by hand: one second of reading, six of denoising and two of decoding, twice, for two pictures."""
    clock = iter([0, 1, 2, 3, 7, 9, 10, 11, 12, 13, 17, 19])
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))

    class Pipe:
        def encode_prompt(self) -> None:
            pass

    found, pipe = Phases("cpu"), Pipe()
    for _ in range(2):
        with found.of(pipe):
            pipe.encode_prompt()  # from 1 to 2
            found.stepped()  # at 3
            found.stepped()  # at 7
    assert "encode_prompt" not in vars(pipe)
    assert found.seconds(decoded=True, pictures=2) == {"text_s": 1.0, "denoise_s": 6.0, "decode_s": 2.0}
