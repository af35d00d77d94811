"""What goes wrong in a step or a load leaves the next one as if it had not been."""

from __future__ import annotations

import gc
import resource
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deployments.workers.worker import ModelWorker
from models import Engine, load_engine
from models.engine.device import free
from models.engine.diffusion import DiffusionEngine
from models.tuning.settings import Tuning
from models.weights import loading
from router.errors import LoadError, StepError
from router.types import ModelCard, Picture, Step

SETTINGS = {"prompt": "a red circle", "seed": 7, "width": 32, "height": 32, "steps": 2}


@pytest.fixture(scope="module")
def half(cards: dict[str, ModelCard]) -> DiffusionEngine:
    """SDXL in half precision, whose VAE diffusers upcasts for each decode."""
    engine = load_engine(cards["sdxl"], dtype="float16", threads=1)
    assert isinstance(engine, DiffusionEngine)
    vae = engine._pipe.vae
    vae.register_to_config(force_upcast=True)
    return engine


def draw(engine: Engine) -> np.ndarray:
    made = engine.run(Step("1", "generate", engine.card.id, (), "image", dict(SETTINGS))).value
    assert isinstance(made, Picture)
    return made.pixels


def again(engine: Engine, picture: np.ndarray) -> np.ndarray:
    settings = {**SETTINGS, "strength": 0.5, "steps": 4}
    made = engine.run(Step("2", "refine", engine.card.id, ("1",), "image", settings), (Picture(picture),)).value
    assert isinstance(made, Picture)
    return made.pixels


def out_of_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


PLACES: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "decode": lambda pipe: (pipe.vae.decoder, "forward"),
    "encode": lambda pipe: (pipe.vae.encoder, "forward"),
    "first text encoder": lambda pipe: (pipe.text_encoder, "forward"),
    "second text encoder": lambda pipe: (pipe.text_encoder_2, "forward"),
    "network": lambda pipe: (pipe.unet, "forward"),
    "middle of the network": lambda pipe: (pipe.unet.mid_block, "forward"),
}


def broken(*_: Any, **__: Any) -> Any:
    return 1 / 0


@pytest.mark.parametrize(("place", "failure"), [*((place, out_of_memory) for place in PLACES), ("decode", broken)])
def test_after_a_failure_the_same_bytes_are_drawn(
    half: DiffusionEngine, monkeypatch: pytest.MonkeyPatch, place: str, failure: Callable[..., Any]
) -> None:
    """Wherever a step fails, dtypes are as before and the next pictures are those of before, drawn and refined."""
    before = draw(half)
    refined = again(half, before)
    dtypes = {name: p.dtype for part in half._networks() for name, p in part.named_parameters()}
    module, name = PLACES[place](half._pipe)
    half.prompts.forget()  # else no prompt would be read again
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failure)
        with pytest.raises(StepError, match=r"out of memory|ZeroDivisionError"):
            again(half, before)
        if place != "encode":  # nothing is encoded when a picture begins from noise
            with pytest.raises(StepError, match=r"out of memory|ZeroDivisionError"):
                draw(half)
    assert {name: p.dtype for part in half._networks() for name, p in part.named_parameters()} == dtypes
    assert (draw(half) == before).all()
    assert (again(half, before) == refined).all()
    assert half.broken == ""


def test_a_failed_step_keeps_nothing_of_what_it_made(half: DiffusionEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the error of a step is held, the tensors that it was working on are gone."""
    working: list[weakref.ref[Any]] = []

    def fail(sample: Any, *_: Any, **__: Any) -> Any:
        working.append(weakref.ref(sample))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(half._pipe.vae.decoder, "forward", fail)
    with pytest.raises(StepError, match="ran out of memory on cpu; ask for a smaller size") as caught:
        draw(half)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert [ref() for ref in working] == [None, None]  # whole, and once more in tiles


def test_an_error_of_the_device_marks_the_engine_as_broken(
    cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error that leaves CUDA useless, the engine says so; after others it does not."""
    engine = load_engine(cards["sd15"], threads=1)
    assert isinstance(engine, DiffusionEngine)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(engine._pipe.unet, "forward", fail)
    with pytest.raises(StepError):
        draw(engine)
    assert engine.broken == "cpu failed: CUDA error: an illegal memory access was encountered"


def test_what_does_not_fit_is_refused_before_it_is_loaded(
    cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that needs more memory than there is, or a device that is not there, is refused with nothing read."""
    read: list[Any] = []
    monkeypatch.setattr(loading, "_from_source", lambda *args: read.append(args))
    monkeypatch.setattr("models.weights.needs.memory.free_memory_gb", lambda device: 1e-9)
    with pytest.raises(LoadError, match="needs about"):
        load_engine(cards["sd15"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LoadError, match="torch sees no GPU"):
        load_engine(cards["sd15"], device="cuda")
    assert read == []


def test_a_guest_that_fails_keeps_nothing_of_its_weights(
    cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose guest could not be loaded remembers why, and no frame that holds what was loaded of it."""
    from models.engine import guests

    kept: list[weakref.ref[Any]] = []
    real = guests.load_pipeline

    def load(*args: Any, **more: Any) -> Any:
        pipe = real(*args, **more)
        kept.append(weakref.ref(pipe.unet))
        raise LoadError("the rest is missing", "model")

    monkeypatch.setattr(guests, "load_pipeline", load)
    card = replace(cards["sd15"], id="guest")
    engine = load_engine(cards["sd15"], threads=1, guests=(card,))
    assert isinstance(engine, DiffusionEngine)
    gc.collect()
    assert [ref() for ref in kept] == [None]
    error = engine._guests["guest"]
    assert isinstance(error, LoadError) and error.message == "the rest is missing"
    assert error.__traceback__ is None and error.__context__ is None


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_hundred_loads_and_unloads_leave_no_memory_behind(cards: dict[str, ModelCard]) -> None:
    """A worker that gives its weights up and loads them again holds as many tensors and about as much memory as at
    first, with hooks, quantised layers and a cache in them."""
    tuning = Tuning.model_validate({"cache": {"first_block": 0.2}, "quantize": "int8"})
    card = replace(cards["flux"], tuning=tuning.said(), tuned=tuning.tuned, changes=tuning.changes)

    def load() -> Engine:
        engine = load_engine(card, threads=1)
        engine.warm_up()
        return engine

    worker = ModelWorker("flux", load)
    found: list[tuple[int, float]] = []
    for _ in range(110):
        worker.load()
        assert worker.loaded, worker.status().reason
        worker.unload()
        free()
        tensors = sum(isinstance(one, torch.Tensor) for one in gc.get_objects())
        found.append((tensors, resident_mb()))
    (tensors, mb), (tensors_then, mb_then) = found[9], found[-1]  # what is imported and cached at first is kept
    assert tensors_then <= tensors + 2
    assert mb_then - mb < 60, f"{mb:.0f} MB after ten loads, {mb_then:.0f} after {len(found)}"
