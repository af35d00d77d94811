"""Every row of the table draws with tiny weights of its class, and says truly what its pipeline does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from models import Catalogue, Engine, load_card, load_engine
from models.call import Call
from models.catalogue import card_names
from models.families import FAMILIES
from models.fusion.kinds import run_step
from models.handover import upscale
from router.errors import LoadError, PlanError, StepError
from router.planning.execution import execute
from router.planning.plan import make_plan
from router.types import (
    Chain,
    Edit,
    Generate,
    GenerationRequest,
    GivenPicture,
    Mask,
    ModelCard,
    Picture,
    Plan,
    Refine,
    Step,
    StepResult,
    Upscale,
    Value,
)

Engines = Callable[[str], Engine]
DRAWN = {
    "sd15": "sd15",
    "sdxl": "sdxl",
    "flux": "flux",
    "sd3": "sd3",
    "flux2-klein": "flux2-klein",
    "qwen-image": "qwen-image",
    "z-image": "z-image",
    "flux-kontext": "flux-kontext",
}
"""For each family that draws from noise, the tiny model that stands for it."""
DISTILLED = ("flux2-klein", "flux-kontext")
"""Those that are never guided by a second pass."""
REFINING = [model for family, model in DRAWN.items() if FAMILIES[family].img2img]


def generate(model: str, **settings: object) -> Step:
    return Step("made", "generate", model, (), "image", {"prompt": "red dot", "seed": 1, **settings})  # type: ignore[arg-type]


def pixels(engine: Engine, step: Step, *inputs: Value) -> np.ndarray:
    value = engine.run(step, inputs).value
    assert isinstance(value, Picture)
    return value.pixels


def test_every_family_has_a_tiny_model_and_a_real_card() -> None:
    """No row is without weights to be tried on, nor without a checkpoint that is published."""
    assert set(DRAWN) == {name for name, row in FAMILIES.items() if row.draws}
    assert {load_card(name).family for name in card_names() if name.startswith("real/")} >= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_arguments_are_those_that_the_pipelines_take(family: str) -> None:
    """Whatever is asked, a row names only arguments that both of its classes know, and classes that there are."""
    row = FAMILIES[family]
    guided = SimpleNamespace(guidance_embeds=False)
    pipe = SimpleNamespace(config=SimpleNamespace(is_distilled=False), transformer=SimpleNamespace(config=guided))
    call = Call("red", "blue", 64, 64, 8, 4.0, "default", 1)
    painted = replace(call, strength=0.5)
    masked = replace(painted, masked=True)
    kinds = {row.pipeline: call if row.draws else masked, row.img2img: painted, row.inpaint: masked}
    for name, asked in kinds.items():
        if name:
            known = set(inspect.signature(getattr(diffusers, name).__call__).parameters)
            assert set(row.arguments(asked, ModelCard("m", family, "base", {}), pipe)) <= known


@pytest.mark.parametrize("model", REFINING)
def test_img2img_is_another_view_of_the_same_networks(engine: Engines, model: str) -> None:
    """The sibling that diffusers finds for a pipeline is the class of the row; nothing is loaded or cast twice."""
    made: Any = engine(model)
    row = FAMILIES[made.card.family]
    assert type(made._img2img).__name__ == row.img2img
    assert getattr(made._img2img, row.denoiser) is getattr(made._pipe, row.denoiser)
    assert made._img2img.vae is made._pipe.vae
    assert type(made._inpaint).__name__ == row.inpaint
    assert getattr(made._inpaint, row.denoiser) is getattr(made._pipe, row.denoiser)


def walked(plan: Plan, engine: Engines, given: np.ndarray, mask: np.ndarray) -> dict[str, Value]:
    """What each step of a plan makes of a picture and a mask, by tiny models."""
    values: dict[str, Value] = {}
    for step in plan.steps:
        inputs = [values[name] for name in step.inputs]
        if step.kind == "given":
            values[step.id] = Picture(given) if step.produces == "image" else Mask(mask)
        else:
            values[step.id] = (engine(step.model).run(step, inputs) if step.model else run_step(step, inputs)).value
    return values


@pytest.mark.parametrize("model", REFINING)
def test_a_mask_is_drawn_in_as_planned(engine: Engines, catalogue: Catalogue, model: str) -> None:
    """An edit under a mask runs as planned: every byte outside is the given one, inside it is drawn by prompt and
    seed alone, and two in one batch are those made one by one, up to rounding."""
    width, height = catalogue[model].native_size
    rng = np.random.default_rng(3)
    given = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    brought = (GivenPicture("image", "a" * 64, width, height), GivenPicture("mask", "b" * 64, width, height, 0.5))
    request = GenerationRequest("red dot", seed=1, given=brought)
    plan = make_plan("edit", Edit(model, steps=3), request, catalogue, {})
    values = walked(plan, engine, given, mask)
    made = values[plan.output]
    assert isinstance(made, Picture) and np.array_equal(made.pixels[height // 2 :], given[height // 2 :])
    assert not np.array_equal(made.pixels[: height // 4], given[: height // 4])
    drawing = next(step for step in plan.steps if step.kind == "inpaint")
    other = replace(drawing, settings={**drawing.settings, "seed": 2})
    inputs = [values[name] for name in drawing.inputs]
    for step, result in zip((drawing, other), engine(model).run_batch((drawing, other), (inputs, inputs)), strict=True):
        assert isinstance(result, StepResult) and isinstance(result.value, Picture)
        alone = pixels(engine(model), step, *inputs)
        assert np.abs(result.value.pixels.astype(int) - alone).max() <= 2


def test_an_edit_is_enlarged_and_refined_as_planned(engine: Engines, catalogue: Catalogue) -> None:
    """A chain of edit, upscale and refine draws in the mask at twice the size, and each byte outside is the given
    picture's, enlarged."""
    width, height = catalogue["sd15"].native_size
    rng = np.random.default_rng(4)
    given = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    brought = (GivenPicture("image", "a" * 64, width, height), GivenPicture("mask", "b" * 64, width, height, 0.5))
    request = GenerationRequest("red dot", seed=1, given=brought)
    chain = Chain((Edit("sd15", steps=3), Upscale(2.0), Refine("sdxl", strength=0.5)))
    plan = make_plan("larger", chain, request, catalogue, {})
    values = walked(plan, engine, given, mask)
    kinds = [step.kind for step in plan.steps]
    assert kinds == ["given", "given", "inpaint", "paste", "upscale", "refine", "paste"]
    made, refined = values[plan.output], values[plan.steps[-2].id]
    assert isinstance(made, Picture) and isinstance(refined, Picture)
    assert made.pixels.shape == (2 * height, 2 * width, 3)
    outside = np.s_[height + 4 :]
    assert np.array_equal(made.pixels[outside], upscale(given, 2.0)[outside])
    assert not np.array_equal(refined.pixels[outside], made.pixels[outside])
    assert np.array_equal(made.pixels[: height // 2], refined.pixels[: height // 2])


@pytest.mark.parametrize("model", DRAWN.values())
def test_the_cells_of_previews_are_what_the_autoencoder_encodes(engine: Engines, model: str) -> None:
    """The latents that a run ends with, laid out as cells, are what `encode` makes of the latents that are decoded."""
    made: Any = engine(model)
    pipe, layout = made._pipe, FAMILIES[made.card.family].layout
    held: list[torch.Tensor] = []
    decoded: list[torch.Tensor] = []
    decode = pipe.vae.decode

    def decoding(latents: torch.Tensor, **given: object) -> object:
        decoded.append(latents)
        return decode(latents, **given)

    def hold(pipe: object, index: int, timestep: object, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        held.append(tensors["latents"])
        return tensors

    pipe.vae.decode = decoding
    try:
        sized = {"max_area": 48 * 32} if model == "flux-kontext" else {}
        pipe(prompt="red dot", width=48, height=32, num_inference_steps=3, callback_on_step_end=hold, **sized)
    finally:
        del pipe.vae.decode
    dist = SimpleNamespace(latent_dist=SimpleNamespace(mean=decoded[0]))
    vae = SimpleNamespace(config=pipe.vae.config, encode=lambda given: dist)
    cells = layout.cells(pipe, held[-1], 48, 32)
    assert cells.shape[2:] == (16, 24)
    assert torch.allclose(cells, layout.encode(vae, torch.zeros(1, 3, 32, 48)), atol=1e-4)


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """How many pictures the denoiser sees in each of its calls while inside."""
    made: Any = engine
    denoiser = getattr(made._pipe, FAMILIES[engine.card.family].denoiser)
    usual, seen = denoiser.forward, []

    def forward(*given: Any, **named: Any) -> Any:
        seen.append(len(given[0] if given else named["hidden_states"]))
        return usual(*given, **named)

    denoiser.forward = forward
    try:
        yield seen
    finally:
        del denoiser.forward


@pytest.mark.parametrize("model", [*DRAWN.values(), "flux2-base"])
def test_guidance_at_or_below_one_is_a_single_pass(engine: Engines, model: str) -> None:
    """Each step then sees the picture once, whatever the family calls guidance; above 1 it sees it twice."""
    passes = {}
    for scale in (0.0, 1.0, 4.0):
        with counted(engine(model)) as seen:
            engine(model).run(generate(model, guidance_scale=scale, steps=2, scheduler="default"))
        passes[scale] = sum(seen)
    assert passes[0.0] == passes[1.0]
    assert passes[4.0] == passes[1.0] * (1 if model in DISTILLED else 2)


@pytest.mark.parametrize("model", DRAWN.values())
def test_a_negative_prompt_counts_or_is_said_to_be_ignored(engine: Engines, model: str) -> None:
    """Where there is guidance, another negative prompt gives another picture; elsewhere the facts say so."""
    results = [engine(model).run(generate(model, guidance_scale=4.0, negative_prompt=text)) for text in ("blue", "b")]
    one, other = (result.value for result in results)
    assert isinstance(one, Picture) and isinstance(other, Picture)
    ignored = bool(results[0].facts.get("negative_prompt_ignored"))
    assert ignored == (model in DISTILLED)
    assert np.array_equal(one.pixels, other.pixels) == ignored


def test_guidance_means_the_same_for_z_image(engine: Engines) -> None:
    """Its pipeline counts guidance from the prompt's prediction, ours from the negative one's: 2 there is 3 here."""
    made: Any = engine("z-image")
    noise = torch.Generator("cpu").manual_seed(1)
    call = {"num_inference_steps": 4, "width": 32, "height": 32, "max_sequence_length": 48, "output_type": "np"}
    bare = made._pipe("red dot", guidance_scale=2.0, negative_prompt="blue", generator=noise, **call).images[0]
    ours = pixels(engine("z-image"), generate("z-image", guidance_scale=3.0, negative_prompt="blue"))
    assert np.abs((bare * 255).round() - ours).max() <= 1


@pytest.mark.parametrize("model", ["sd3", "qwen-image", "z-image", "flux2-klein"])
def test_tokens_beyond_the_limit_are_counted(engine: Engines, model: str) -> None:
    """A prompt that just fits loses nothing, and each further letter is one token that is not read."""
    card = engine(model).card
    around = {"z-image": 6, "flux2-klein": 6, "sd3": 2}.get(model, 0)  # a mark and "user\n"; T5's first and last
    fits = card.max_prompt_tokens - around
    row, pipe = FAMILIES[card.family], engine(model)._pipe  # type: ignore[attr-defined]
    unread = [row.unread_tokens(card, pipe, "a" * length) for length in (fits, fits + 5)]
    assert unread == [0, 5]


# ---------------------------------------------------------------------------------------------------------- in plans


@pytest.fixture(scope="module")
def catalogue(cards: Mapping[str, ModelCard]) -> Catalogue:
    return Catalogue(dict(cards))


@pytest.mark.parametrize("model", DRAWN.values())
def test_every_family_goes_to_the_sdxl_refiner_through_pixels(
    engine: Engines, catalogue: Catalogue, model: str
) -> None:
    """A planned chain of a base model and the refiner makes one picture, and the plan says how it is handed over."""
    refine = Refine("sdxl-refiner", strength=0.5)
    request = GenerationRequest("red dot", width=48, height=32, seed=1)
    plan = make_plan("polished", Chain((Generate(model), refine)), request, catalogue, {})
    assert [(each.kind, each.space) for each in plan.handovers] == [("pixels", "srgb")]

    async def perform(step: Step, inputs: Sequence[Value]) -> StepResult:
        return engine(str(step.model)).run(step, inputs)

    made = asyncio.run(execute(plan, perform))
    assert isinstance(made.output, Picture)
    assert made.output.pixels.shape == (32, 48, 3)
    assert [trace.step.model for trace in made.traces] == [model, "sdxl-refiner"]


@pytest.mark.parametrize("model", REFINING)
def test_what_has_img2img_refines(engine: Engines, catalogue: Catalogue, model: str) -> None:
    """A picture is continued by the share of the steps that was asked for, and the same step gives the same bytes."""
    make_plan("p", Chain((Generate("sdxl"), Refine(model, strength=0.5))), GenerationRequest("red"), catalogue, {})
    grey = Picture(np.full((32, 32, 3), 128, np.uint8))
    step = Step("it", "refine", model, ("made",), "image", {"prompt": "red", "seed": 1, "strength": 0.5})
    assert np.array_equal(pixels(engine(model), step, grey), pixels(engine(model), step, grey))
    assert engine(model).run(step, (grey,)).facts["steps"] == (3 if model == "sd15" else 2)  # PNDM doubles its first


def test_what_has_no_img2img_is_refused_before_it_is_run(engine: Engines, catalogue: Catalogue) -> None:
    """FLUX.2 [klein] cannot refine: the planner says so with what to do instead, and the engine does, too."""
    recipe = Chain((Generate("sdxl"), Refine("flux2-klein", strength=0.5)))
    with pytest.raises(PlanError, match=r"'flux2-klein' cannot go on from a picture: .* refine with another model"):
        make_plan("p", recipe, GenerationRequest("red"), catalogue, {})
    assert engine("flux2-klein")._img2img is None  # type: ignore[attr-defined]
    step = Step("it", "refine", "flux2-klein", ("made",), "image", {"prompt": "red", "strength": 0.5})
    with pytest.raises(StepError, match="cannot go on from a picture; refine with another model"):
        engine("flux2-klein").run(step, (Picture(np.zeros((32, 32, 3), np.uint8)),))


@pytest.mark.parametrize("model", [model for family, model in DRAWN.items() if not FAMILIES[family].relays])
def test_families_that_shift_their_schedule_do_not_relay(catalogue: Catalogue, model: str) -> None:
    """Half of one is not half of another, so the planner refuses to hand unfinished latents over."""
    recipe = Chain((Generate(model, until=0.5), Refine(model, from_=0.5)))
    with pytest.raises(PlanError, match="cannot hand latents over in mid-denoising"):
        make_plan("p", recipe, GenerationRequest("red", steps=8), catalogue, {})


def test_fewer_steps_than_the_schedule_needs_are_refused(engine: Engines, catalogue: Catalogue) -> None:
    """Qwen-Image's schedule divides by nothing in a single step; planner and engine ask for two."""
    with pytest.raises(PlanError, match=r"1 steps are outside 2\.\.150, which 'qwen-image' takes"):
        make_plan("p", Generate("qwen-image"), GenerationRequest("red", steps=1), catalogue, {})
    with pytest.raises(StepError, match=r"steps 1 is not a whole number in 2\.\.150"):
        engine("qwen-image").run(generate("qwen-image", steps=1))


def test_a_family_that_is_unknown_proposes_the_nearest() -> None:
    """A card that was made without a file is refused when it is loaded, and names the nearest family."""
    with pytest.raises(LoadError, match="family 'flux3' has no pipeline; did you mean 'flux'"):
        load_engine(ModelCard("m", "flux3", "base", {"local": "nowhere"}))


def test_a_scorer_has_no_guests(cards: Mapping[str, ModelCard]) -> None:
    """Nothing is denoised beside a scorer, so a guest of one is a mistake that is named."""
    with pytest.raises(LoadError, match="'clip' is a scorer and has no guests; leave 'sdxl' out"):
        load_engine(cards["clip"], guests=[cards["sdxl"]])
