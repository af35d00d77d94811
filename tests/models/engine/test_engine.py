import threading
from collections.abc import Callable
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from models import Cancelled, Engine, load_engine
from models.families import FAMILIES
from models.schedulers import ve_factor
from router.errors import StepError
from router.types import Latents, ModelCard, Picture, Progress, Step, Value

Engines = Callable[[str], Engine]
BASES = ("sd15", "sdxl", "flux", "sd3", "flux2-klein", "qwen-image", "z-image")


def generate(model: str, **settings: object) -> Step:
    return Step("made", "generate", model, (), "image", {"prompt": "red dot", "seed": 1, **settings})


def refine(model: str, **settings: object) -> Step:
    return Step("refined", "refine", model, ("made",), "image", {"prompt": "red dot", "seed": 1, **settings})


def pixels(engine: Engine, step: Step, *inputs: Value) -> np.ndarray:
    value = engine.run(step, inputs).value
    assert isinstance(value, Picture)
    return value.pixels


@pytest.mark.parametrize("model", [*BASES, "flux-dev", "flux2-base"])
def test_every_family_makes_a_picture_of_the_size_asked_for(engine: Engines, model: str) -> None:
    """Each base model gives uint8 RGB at the requested width and height, not only at its native size."""
    made = pixels(engine(model), generate(model, width=48, height=32))
    assert made.shape == (32, 48, 3)
    assert made.dtype == np.uint8


@pytest.mark.parametrize("model", BASES)
def test_same_seed_gives_same_bytes_whatever_ran_before(engine: Engines, model: str) -> None:
    """A seed decides the picture; requests in between, with other schedulers and sizes, do not change a byte of it."""
    first = pixels(engine(model), generate(model))
    other = "flowmatch" if FAMILIES[engine(model).card.family].flow else "ddim"
    pixels(engine(model), generate(model, seed=2, width=48, steps=3, scheduler=other))
    if engine(model).card.refines:
        engine(model).run(refine(model, strength=0.5), (Picture(first),))
    assert np.array_equal(first, pixels(engine(model), generate(model)))
    assert not np.array_equal(first, pixels(engine(model), generate(model, seed=3)))


@pytest.mark.parametrize("model", [model for model in BASES if model != "flux2-klein"])
def test_a_batch_gives_each_step_its_own_picture(engine: Engines, model: str) -> None:
    """Pictures made in one batch are those made one by one, up to rounding, refined ones too."""
    steps = [generate(model, seed=seed, prompt=prompt) for seed, prompt in ((1, "red dot"), (2, "blue"))]
    again = [refine(model, seed=seed, strength=0.5) for seed in (1, 2)]
    made = engine(model).run_batch(steps, [(), ()])
    for step, refining, result, refined in zip(
        steps, again, made, engine(model).run_batch(again, [(result.value,) for result in made]), strict=True
    ):
        for one, alone in (
            (result, pixels(engine(model), step)),
            (refined, pixels(engine(model), refining, result.value)),
        ):
            assert isinstance(one.value, Picture)
            assert np.abs(one.value.pixels.astype(int) - alone.astype(int)).max() <= 2


def test_a_batch_of_unlike_steps_is_refused(engine: Engines) -> None:
    """Steps that differ in more than prompt and seed cannot share a call."""
    with pytest.raises(StepError, match="prompt and seed"):
        engine("sd15").run_batch([generate("sd15", steps=2), generate("sd15", steps=3)], [(), ()])


def test_a_batch_with_and_without_negative_prompts_is_refused(engine: Engines) -> None:
    """One call guides all its pictures alike, so it would drop the negative prompts that only some of them have."""
    steps = [generate("sd15", steps=2), generate("sd15", steps=2, negative_prompt="blue")]
    with pytest.raises(StepError, match="negative prompt"):
        engine("sd15").run_batch(steps, [(), ()])


def test_a_fresh_engine_repeats_the_bytes_of_another(engine: Engines, cards: dict[str, ModelCard]) -> None:
    """Two engines of the same card, as on two replicas, give the same picture for the same step."""
    assert np.array_equal(
        pixels(engine("sd15"), generate("sd15")), pixels(load_engine(cards["sd15"]), generate("sd15"))
    )


def test_the_engine_equals_the_bare_pipeline(engine: Engines, cards: dict[str, ModelCard]) -> None:
    """The engine adds nothing to what diffusers makes from the same arguments."""
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(str(cards["sdxl"].source["local"]))
    generator = torch.Generator("cpu").manual_seed(1)
    call = {"num_inference_steps": 4, "guidance_scale": 3.0, "width": 32, "height": 32}
    bare = np.asarray(pipe("red dot", generator=generator, **call).images[0])
    assert np.array_equal(bare, pixels(engine("sdxl"), generate("sdxl")))


def test_handing_latents_over_equals_one_run(engine: Engines) -> None:
    """SDXL stopped half-way and continued from its latents gives the picture of the uninterrupted run."""
    whole = pixels(engine("sdxl"), generate("sdxl", steps=6))
    half = engine("sdxl").run(replace(generate("sdxl", steps=6, until=0.5), produces="latents"), ())
    rest = engine("sdxl").run(refine("sdxl", steps=6, **{"from": 0.5}), (half.value,))
    assert isinstance(half.value, Latents)
    assert half.value.data.shape == (4, 16, 16)
    assert half.facts["steps"] + rest.facts["steps"] == 6  # type: ignore[operator]
    assert np.abs(whole.astype(int) - rest.value.pixels.astype(int)).max() <= 1  # type: ignore[union-attr]


def test_base_to_refiner_is_what_diffusers_does(engine: Engines, cards: dict[str, ModelCard]) -> None:
    """The chain base until 0.5, refiner from 0.5, equals diffusers' own ensemble of the two pipelines."""
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    base = StableDiffusionXLPipeline.from_pretrained(str(cards["sdxl"].source["local"]))
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(str(cards["sdxl-refiner"].source["local"]))
    shared = {"num_inference_steps": 6, "guidance_scale": 3.0}
    noise = torch.Generator("cpu").manual_seed(1)
    latents = base(
        "red dot", denoising_end=0.5, output_type="latent", width=32, height=32, generator=noise, **shared
    ).images
    bare = np.asarray(refiner("red dot", image=latents, denoising_start=0.5, **shared).images[0])
    half = engine("sdxl").run(generate("sdxl", steps=6, until=0.5)).value
    ours = pixels(engine("sdxl-refiner"), refine("sdxl-refiner", steps=6, **{"from": 0.5}), half)
    assert np.abs(bare.astype(int) - ours.astype(int)).max() <= 1


def test_latents_may_change_the_scheduler_on_the_way(engine: Engines) -> None:
    """Latents travel in one convention, so DDIM may continue what Euler began and end near Euler's own picture."""
    half = engine("sdxl").run(generate("sdxl", steps=10, until=0.5, scheduler="euler")).value
    same = pixels(engine("sdxl"), refine("sdxl", steps=10, scheduler="euler", **{"from": 0.5}), half)
    other = pixels(engine("sdxl"), refine("sdxl", steps=10, scheduler="ddim", **{"from": 0.5}), half)
    assert np.abs(same.astype(int) - other.astype(int)).mean() < 4


def test_flux_goes_to_the_sdxl_refiner_through_pixels(engine: Engines) -> None:
    """A FLUX picture, even of another size, is refined by SDXL's refiner with img2img at the size of the step."""
    picture = engine("flux").run(generate("flux", width=48, height=48)).value
    result = engine("sdxl-refiner").run(refine("sdxl-refiner", strength=0.5), (picture,))
    assert result.value.pixels.shape == (32, 32, 3)  # type: ignore[union-attr]
    assert result.facts["steps"] == 2


@pytest.mark.parametrize("model", ["sd15", "sdxl", "sdxl-refiner", "flux", "sd3", "qwen-image", "z-image"])
def test_a_small_strength_still_runs_a_step_and_says_so(engine: Engines, model: str) -> None:
    """Strength 0.1 of four steps is less than one; the steps are raised until one is run, and the trace shows it."""
    grey = Picture(np.full((32, 32, 3), 128, np.uint8))
    result = engine(model).run(refine(model, strength=0.1), (grey,))
    assert result.facts["steps_raised_from"] == 4
    assert result.facts["steps"] == (2 if model == "sd15" else 1)  # PNDM, its default, begins with a double step


@pytest.mark.parametrize("model", BASES)
def test_a_cancelled_run_stops_within_one_step_and_the_next_run_works(engine: Engines, model: str) -> None:
    """When should_stop turns true, no further denoising step is run, and the engine is as good as new."""
    wanted = pixels(engine(model), generate(model))
    stop, steps = threading.Event(), []

    def on_progress(progress: Progress) -> None:
        steps.append(progress.done)
        if progress.done == 2:
            stop.set()

    with pytest.raises(Cancelled, match="after 3 denoising steps"):
        engine(model).run(generate(model, steps=50), on_progress=on_progress, should_stop=stop.is_set)
    assert steps == [1, 2]
    assert np.array_equal(wanted, pixels(engine(model), generate(model)))


@pytest.mark.parametrize("model", BASES)
def test_progress_counts_to_the_end_and_shows_small_previews(engine: Engines, model: str) -> None:
    """Progress is reported after every step; some reports carry a preview of one pixel per latent cell."""
    seen: list[Progress] = []
    with_progress = engine(model).run(generate(model, steps=8), on_progress=seen.append).value
    assert [report.done for report in seen] == list(range(1, seen[-1].total + 1))
    previews = [report.preview for report in seen if report.preview is not None]
    assert 2 <= len(previews) <= 5
    assert all(preview.pixels.shape == (16, 16, 3) for preview in previews)
    assert np.array_equal(with_progress.pixels, pixels(engine(model), generate(model, steps=8)))  # type: ignore[union-attr]


def test_flux_without_guidance_embedding_runs_real_guidance(engine: Engines) -> None:
    """Above a guidance of 1 the negative prompt counts; at or below 1 it has no effect, and the trace says so."""
    plain = engine("flux").run(generate("flux", guidance_scale=1.0, negative_prompt="blue"))
    assert plain.facts["negative_prompt_ignored"] is True
    guided = [
        pixels(engine("flux"), generate("flux", guidance_scale=4.0, negative_prompt=text)) for text in ("", "blue")
    ]
    assert not np.array_equal(*guided)


def test_flux_with_guidance_embedding_takes_the_scale_as_an_input(engine: Engines) -> None:
    """A guidance-distilled FLUX changes with the scale, in one pass, and reports that a negative prompt is ignored."""
    low, high = (
        engine("flux-dev").run(generate("flux-dev", guidance_scale=g, negative_prompt="blue")) for g in (1.5, 9.0)
    )
    assert not np.array_equal(low.value.pixels, high.value.pixels)  # type: ignore[union-attr]
    assert high.facts["negative_prompt_ignored"] is True


def test_a_long_prompt_is_cut_and_reported(engine: Engines) -> None:
    """What the text encoder does not read is counted in the facts instead of vanishing."""
    assert engine("sd15").run(generate("sd15")).facts["truncated_tokens"] == 0
    for model, limit in (("sd15", 32), ("sdxl-refiner", 32), ("flux", 16)):
        text = "ab " * 100
        step = generate(model, prompt=text) if model != "sdxl-refiner" else refine(model, prompt=text, strength=0.5)
        inputs = () if step.kind == "generate" else (Picture(np.zeros((32, 32, 3), np.uint8)),)
        assert engine(model).run(step, inputs).facts["truncated_tokens"] >= 200 - limit  # type: ignore[operator]


def test_facts_say_what_ran(engine: Engines) -> None:
    """The trace carries revision, scheduler, dtype, device, seed and the steps that were really run, as builtins."""
    facts = engine("sd15").run(generate("sd15", scheduler="dpmsolver++", steps=3)).facts
    assert facts["scheduler"] == "DPMSolverMultistepScheduler"
    assert str(facts["revision"]).startswith("sha256:")
    assert (facts["dtype"], facts["device"], facts["seed"], facts["steps"]) == ("float32", "cpu", 1, 3)
    assert all(isinstance(fact, str | int | float | bool | None) for fact in facts.values())


def test_pictures_that_are_not_numbers_are_errors(cards: dict[str, ModelCard]) -> None:
    """A network that overflows gives a StepError, not a black picture."""
    broken = load_engine(cards["sd15"])
    with torch.no_grad():
        broken._pipe.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(StepError, match="not numbers"):
        broken.run(generate("sd15"))


LATENTS = Latents(np.zeros((4, 16, 16), np.float32), "sdxl", 0.5)
GREY = Picture(np.full((32, 32, 3), 128, np.uint8))


@pytest.mark.parametrize(
    ("model", "step", "inputs", "message"),
    [
        (
            "sdxl",
            refine("sdxl", **{"from": 0.5}),
            (replace(LATENTS, space="sd15"),),
            "latents of space 'sd15' cannot go",
        ),
        ("sdxl", refine("sdxl", **{"from": 0.8}), (LATENTS,), "starts at 0.8 .* latents are at 0.5"),
        ("sdxl", refine("sdxl", **{"from": 0.5}), (GREY,), "not a picture; use 'strength'"),
        ("sdxl", refine("sdxl", **{"from": 0.5}), (replace(LATENTS, data=np.zeros((16, 16, 16))),), "4 channels"),
        ("sdxl", refine("sdxl", width=64, **{"from": 0.5}), (LATENTS,), "cannot become a picture of 64x32"),
        ("sdxl", refine("sdxl", strength=0.5), (LATENTS,), "takes a picture here, not latents"),
        ("sdxl", refine("sdxl"), (GREY,), "either 'from' .* or 'strength'"),
        ("sdxl", generate("sdxl", until=0.1), (), "leave none to run"),
        ("flux", generate("flux", until=0.5), (), "family 'flux' cannot hand latents over"),
        ("sdxl-refiner", generate("sdxl-refiner"), (), "is a refiner and cannot 'generate'"),
        ("sd15", generate("sd15", width=33), (), "33x32 is no multiple of 8"),
        ("sd15", generate("sd15", width=1024, height=1024), (), "outside of what 'sd15' makes"),
        ("sd15", generate("sd15", steps=0), (), "steps 0 is not a whole number in 1..150"),
        ("sd15", generate("sd15", guidance_scale=float("nan")), (), "guidance_scale nan is not a number"),
        ("sd15", generate("sd15", scheduler="eulr"), (), "did you mean 'euler'"),
        ("sd15", generate("sd15", scheduler="flowmatch"), (), "does not fit family 'sd15'"),
        ("sd15", generate("sd15", stepz=3), (), "unknown setting 'stepz'; did you mean 'steps'"),
        ("sd15", generate("sd15"), (GREY,), "generate takes no input, not 1"),
        ("sd15", refine("sd15", strength=0.0), (GREY,), "strength 0 must lie"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(
    engine: Engines, model: str, step: Step, inputs: tuple[Value, ...], message: str
) -> None:
    """Steps that do not fit the model, the size or the latent space are StepErrors that name the cause."""
    with pytest.raises(StepError, match=message):
        engine(model).run(step, inputs)


@pytest.mark.parametrize("model", [*BASES, "sdxl-refiner", "clip"])
def test_warm_up_runs_every_kind_of_model(engine: Engines, model: str) -> None:
    """warm_up finds a step that the model can run, and returns its seconds."""
    assert engine(model).warm_up() > 0


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "LMSDiscreteScheduler", "DDIMScheduler"])
def test_latents_of_exploding_variance_are_scaled_by_the_root_of_one_and_sigma_squared(name: str) -> None:
    """x_0 + sigma * noise is what the preserving form becomes times sqrt(1 + sigma^2); other schedulers hold it as it
    is."""
    scheduler = getattr(diffusers, name)(num_train_timesteps=1000)
    scheduler.set_timesteps(10)
    for index in (0, 4, 9):
        factor = ve_factor(scheduler, index)
        if name == "DDIMScheduler":
            assert factor == 1.0
        else:
            sigma = float(scheduler.sigmas[index])
            assert sigma > 0.01 and factor**2 == pytest.approx(1 + sigma * sigma)


@pytest.mark.parametrize("scheduler", ["dpmsolver++-sde", "lcm"])
def test_a_scheduler_that_adds_noise_takes_it_from_the_seed_of_each_picture(engine: Engines, scheduler: str) -> None:
    """Drawn alone, again and in a batch, a picture is the same, though noise is added in every step."""
    steps = [generate("sd15", seed=seed, scheduler=scheduler, steps=3) for seed in (1, 2)]
    alone = [pixels(engine("sd15"), step) for step in steps]
    assert np.array_equal(alone[0], pixels(engine("sd15"), steps[0]))
    for one, result in zip(alone, engine("sd15").run_batch(steps, [(), ()]), strict=True):
        assert isinstance(result.value, Picture)  # type: ignore[union-attr]
        assert np.abs(one.astype(int) - result.value.pixels.astype(int)).max() <= 2  # type: ignore[union-attr]
