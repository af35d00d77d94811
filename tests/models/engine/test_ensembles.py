"""Two models that predict every step together: what the mean is of, and that neither is lost in it."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from models import Cancelled, Engine, load_engine
from models.engine.guests import converted, levels
from models.schedulers import build_scheduler
from models.weights.needs.memory import check_fits, estimate_memory_gb, guest_memory_gb
from router.errors import LoadError, StepError
from router.types import ModelCard, Picture, Step
from tests.models import tiny

SCHEDULERS = ("ddim", "euler", "dpmsolver++", "unipc")
KINDS = ("epsilon", "v_prediction", "sample")


@pytest.fixture(scope="module")
def members(cards: dict[str, ModelCard], tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelCard]:
    """Models of one space: sdxl; `twin`, its copy; `other`, another SDXL; `small`, an SD1.5; `velocity`, which predicts
    velocities; `strange`, of another noise schedule."""
    root = tmp_path_factory.mktemp("members")
    torch.manual_seed(5)
    pipes = {"other": tiny.sdxl(), "velocity": tiny.sdxl(), "strange": tiny.sdxl(), "small": tiny.sd15()}
    pipes["velocity"].scheduler = build(prediction_type="v_prediction")
    pipes["strange"].scheduler = build(beta_end=0.02)
    vae = diffusers.AutoencoderKL.from_pretrained(str(cards["sdxl"].source["local"]), subfolder="vae")
    for name, pipe in pipes.items():
        pipe.vae = vae  # which is what a latent space is
        pipe.save_pretrained(root / name, safe_serialization=True)
    made = {"sdxl": cards["sdxl"], "twin": replace(cards["sdxl"], id="twin")}
    made["lost"] = replace(cards["sdxl"], id="lost", source={"local": str(root / "nowhere")})
    made |= {name: replace(cards["sdxl"], id=name, source={"local": str(root / name)}) for name in pipes}
    return made | {"small": replace(made["small"], family="sd15")}


def build(**config: object) -> diffusers.EulerDiscreteScheduler:
    return diffusers.EulerDiscreteScheduler(**{**tiny.NOISE, "timestep_spacing": "leading", **config})


@pytest.fixture(scope="module")
def worker(members: dict[str, ModelCard]) -> Engine:
    """SDXL with all the others beside it."""
    return load_engine(members["sdxl"], threads=1, guests=[card for name, card in members.items() if name != "sdxl"])


def step(kind: str, model: str = "sdxl", **settings: object) -> Step:
    usual = {"prompt": "red dot", "seed": 1, "steps": 4, "scheduler": "euler"}
    return Step("it", kind, model, (), "image", {**usual, **settings})  # type: ignore[arg-type]


def pixels(engine: Engine, asked: Step) -> np.ndarray:
    value = engine.run(asked).value
    assert isinstance(value, Picture)
    return value.pixels.astype(int)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_model_together_with_its_equal_is_itself(worker: Engine, scheduler: str) -> None:
    """Halves of two equal predictions are the prediction, whatever steps it; the facts name both revisions."""
    alone = pixels(worker, step("generate", scheduler=scheduler))
    result = worker.run(step("denoise", scheduler=scheduler, guest="twin", guest_weight=0.5))
    assert isinstance(result.value, Picture)
    assert np.array_equal(alone, result.value.pixels)
    assert (result.facts["guest"], result.facts["guest_revision"]) == ("twin", worker.revision)
    assert result.facts["steps"] == 4


def test_a_guest_that_counts_nothing_leaves_the_picture_as_it_is(worker: Engine) -> None:
    """Weight 0 gives the host's picture to the last bit, and another weight gives another one."""
    alone = pixels(worker, step("generate"))
    assert np.array_equal(alone, pixels(worker, step("denoise", guest="other", guest_weight=0.0)))
    assert not np.array_equal(alone, pixels(worker, step("denoise", guest="other", guest_weight=0.5)))


@pytest.mark.parametrize("guest", ["other", "small", "velocity"])
def test_a_guest_that_counts_alone_makes_its_own_picture(
    worker: Engine, members: dict[str, ModelCard], guest: str
) -> None:
    """Weight 1 gives what the guest makes by itself: its encoders, guidance, negative prompt, kind of prediction."""
    words = {"negative_prompt": "blue", "scheduler": "ddim"}
    own = pixels(load_engine(members[guest], threads=1), step("generate", guest, guidance_scale=5.0, **words))
    asked = step("denoise", guidance_scale=2.0, guest=guest, guest_guidance_scale=5.0, guest_weight=1.0, **words)
    assert np.abs(own - pixels(worker, asked)).max() <= 1


def test_it_does_not_matter_who_is_the_guest(worker: Engine, members: dict[str, ModelCard]) -> None:
    """A third of one and two thirds of the other are the same picture on either worker."""
    swapped = load_engine(members["small"], threads=1, guests=[members["sdxl"]])
    asked = {"guidance_scale": 2.0, "guest_guidance_scale": 4.0}
    here = pixels(worker, step("denoise", guest="small", guest_weight=2 / 3, **asked))
    asked = {"guidance_scale": 4.0, "guest_guidance_scale": 2.0}
    there = pixels(swapped, step("denoise", "small", guest="sdxl", guest_weight=1 / 3, **asked))
    assert np.abs(here - there).max() <= 1


def test_weights_may_change_on_the_way(worker: Engine) -> None:
    """From 1 to 0 differs from 0 to 1 and from the half throughout; from a half to a half does not."""
    courses = {(1.0, 0.0): 0, (0.0, 1.0): 0, (0.5, 0.5): 0}
    made = [pixels(worker, step("denoise", guest="other", guest_weight=a, guest_weight_end=b)) for a, b in courses]
    assert not any(np.array_equal(made[i], made[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert np.array_equal(made[2], pixels(worker, step("denoise", guest="other", guest_weight=0.5)))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("given", KINDS)
def test_every_kind_of_prediction_steps_to_the_same_latents(given: str, scheduler: str, worker: Engine) -> None:
    """A converted prediction moves the latents as the original does under a scheduler that expects the original."""
    torch.manual_seed(2)
    card, sample, output = worker.card, torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    moved = {}
    for wanted in ("epsilon", given):
        made = build_scheduler(scheduler, card, build(prediction_type=wanted))
        made.set_timesteps(6)
        for timestep in made.timesteps[:3]:
            held = moved.get(wanted, sample)
            noisy = made.scale_model_input(held, timestep)
            prediction = converted(output, noisy, *levels(made, timestep), given, wanted)
            moved[wanted] = made.step(prediction, timestep, held, return_dict=False)[0]
    assert torch.allclose(moved["epsilon"], moved[given], atol=1e-4, rtol=1e-4)


def test_a_wide_picture_is_denoised_together_in_windows(worker: Engine) -> None:
    """Both networks see windows: with the twin, the wide picture is the one of a single model."""
    wide = {"width": 64, "height": 32, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}
    alone = pixels(worker, step("generate", **wide))
    assert alone.shape == (32, 64, 3)
    assert np.array_equal(alone, pixels(worker, step("denoise", guest="twin", guest_weight=0.5, **wide)))
    assert not np.array_equal(alone, pixels(worker, step("denoise", guest="other", guest_weight=0.5, **wide)))


def test_a_batch_is_its_pictures(worker: Engine) -> None:
    """Prompts and seeds of one batch stay apart, on both sides."""
    asked = [step("denoise", guest="other", guest_weight=0.5, seed=k, prompt=f"dot {k}") for k in range(3)]
    for one, result in zip(asked, worker.run_batch(asked, [()] * 3), strict=True):
        assert isinstance(result.value, Picture)
        assert np.abs(result.value.pixels.astype(int) - pixels(worker, one)).max() <= 1


def test_it_reports_and_stops_as_other_steps_do(worker: Engine) -> None:
    """Progress counts the common steps, with previews, and a caller who has gone ends it in between."""
    seen: list[tuple[int, int, bool]] = []
    asked = step("denoise", guest="other", guest_weight=0.5)
    worker.run(asked, on_progress=lambda p: seen.append((p.done, p.total, p.preview is not None)))
    assert [(done, total) for done, total, _ in seen] == [(k, 4) for k in range(1, 5)]
    assert any(preview for _, _, preview in seen)
    asks = iter((False, False, True))  # before the first step, and after each
    with pytest.raises(Cancelled, match="after 2 denoising steps"):
        worker.run(asked, should_stop=lambda: next(asks))


@pytest.mark.parametrize(
    ("guest", "message"),
    [
        ("nobody", "'sdxl' has no guest 'nobody'"),
        ("lost", "guest 'lost' of 'sdxl' is not there: model 'lost'"),
        ("strange", "a timestep is not one noise level for both"),
    ],
)
def test_a_guest_that_is_not_there_fails_its_own_steps_only(worker: Engine, guest: str, message: str) -> None:
    """The step says what is wrong with the guest; the worker goes on with its own model."""
    with pytest.raises(StepError, match=message):
        worker.run(step("denoise", guest=guest, guest_weight=0.5))
    assert pixels(worker, step("generate")).shape == (32, 32, 3)


@pytest.mark.parametrize("key", ["guest_weight", "guest_weight_end", "guest_guidance_scale"])
def test_settings_of_the_guest_are_checked(worker: Engine, key: str) -> None:
    """A weight or scale out of range is refused by name, before anything runs."""
    with pytest.raises(StepError, match=key):
        worker.run(step("denoise", guest="other", **{key: -0.1}))


def test_memory_is_counted_for_both(members: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest adds its weights without the VAE, and what does not fit is refused before it is loaded, by name."""
    alone, added = estimate_memory_gb(members["sdxl"]), guest_memory_gb(members["other"])
    assert 0 < added < alone
    monkeypatch.setattr("models.weights.needs.memory.free_memory_gb", lambda device: alone + added / 2)
    check_fits(members["sdxl"], "cpu")
    with pytest.raises(LoadError, match="for its guest 'other'"):
        load_engine(members["sdxl"], guests=[members["other"]])


def test_the_vae_is_there_once(worker: Engine) -> None:
    """A guest decodes nothing: it shares the VAE of the model that it is beside."""
    guest = worker._guests["other"]
    assert not isinstance(guest, LoadError)
    assert guest.pipe.vae is worker._pipe.vae
