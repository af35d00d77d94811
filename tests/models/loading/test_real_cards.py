"""No test downloads the real checkpoints; their full-size networks are built on the meta device instead."""

import importlib
import inspect
import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from models import load_card
from models.engine.settings import arguments, read_call
from models.families import FAMILIES
from models.schedulers import build_scheduler, schedulers_for
from models.weights.loading import img2img, inpaint, pipeline_class
from models.weights.needs.memory import check_fits, estimate_memory_gb
from models.weights.needs.networks import count_parameters
from router.errors import LoadError
from router.types import ModelCard, Step
from tests.models import real_configs

BASES = tuple(name for name in real_configs.PIPELINES if name != "sdxl-refiner")

GUIDANCE = {
    "sd15": 7.5, "sdxl": 5.0, "sdxl-turbo": 0.0, "flux-schnell": None, "flux-dev": 3.5, "sd35-medium": 4.5,
    "flux-fill": 30.0, "flux-kontext": 2.5,
    "flux2-klein": 1.0, "qwen-image": 4.0, "z-image-turbo": 0.0,
}  # fmt: skip
"""What the pipelines get of each card, as their publishers call them."""


def config(name: str) -> dict[str, Any]:
    return getattr(real_configs, name)


@cache
def build(library: str, class_name: str, name: str) -> Any:
    cls = getattr(importlib.import_module(library), class_name)
    with torch.device("meta"):
        return cls(cls.config_class(**config(name))) if library == "transformers" else cls(**config(name))


@pytest.fixture(scope="session")
def real_cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelCard]:
    """The shipped real cards over folders that hold the published configurations and no weights."""
    root, made = tmp_path_factory.mktemp("real"), {}
    for name, parts in real_configs.PIPELINES.items():
        index = {"_class_name": "any"}
        for part, (library, class_name, written) in parts.items():
            (root / name / part).mkdir(parents=True)
            (root / name / part / "config.json").write_text(json.dumps(config(written)))
            index[part] = [library, class_name]  # type: ignore[assignment]
        (root / name / "model_index.json").write_text(json.dumps(index))
        made[name] = replace(load_card(f"real/{name}"), source={"local": str(root / name)})
    return made


@pytest.fixture(scope="session")
def pipes() -> dict[str, Any]:
    """The real pipelines with full-size networks that hold no numbers."""
    import diffusers

    made: dict[str, Any] = {}
    for name, parts in real_configs.PIPELINES.items():
        card = load_card(f"real/{name}")
        row, cls = FAMILIES[card.family], pipeline_class(card)
        euler = diffusers.EulerDiscreteScheduler(**real_configs.NOISE)
        shifting = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        given = {part: build(*written) for part, written in parts.items()} | {
            "scheduler": shifting if row.flow else euler
        }
        known = {"requires_aesthetics_score": name == "sdxl-refiner", "is_distilled": True, **row.extra}
        wanted = [key for key in inspect.signature(cls.__init__).parameters if key != "self"]
        made[name] = cls(**{key: given.get(key, known.get(key)) for key in wanted})
    return made


@pytest.mark.parametrize("name", real_configs.PIPELINES)
def test_full_size_networks_have_the_published_number_of_parameters(
    real_cards: dict[str, ModelCard], name: str
) -> None:
    """What count_parameters builds from a configuration alone is as large as the checkpoint that was published."""
    counts = count_parameters(real_cards[name])
    for part, (_, _, written) in real_configs.PIPELINES[name].items():
        tolerance = real_configs.ROUNDED.get(written, 0)
        assert counts[part] == pytest.approx(real_configs.PUBLISHED[written], rel=tolerance), part


@pytest.mark.parametrize(
    ("card", "name", "written"),
    [
        ("clip-alignment", "CLIP", "CLIP_VIT_B32"),
        ("pickscore", "CLIP", "PICKSCORE"),
        ("vqa-alignment", "Blip", "BLIP_VQA"),
    ],
)
def test_scorers_have_the_published_number_of_parameters(card: str, name: str, written: str) -> None:
    """The networks behind the real scorers are as large as what was published, and the card has memory for them."""
    import transformers

    network = {"CLIP": "CLIPModel", "Blip": "BlipForQuestionAnswering"}[name]
    with torch.device("meta"):
        model = getattr(transformers, network)(getattr(transformers, f"{name}Config")(**config(written)))
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(real_configs.PUBLISHED[written], rel=0.01 if written == "BLIP_VQA" else 0)
    loaded = load_card(f"real/{card}")
    size = 2 if loaded.dtype == "float16" else 4
    assert count * size / 1e9 < loaded.memory_gb < 1.4 * count * size / 1e9 or card == "clip-alignment"


@pytest.mark.parametrize("name", real_configs.PIPELINES)
def test_the_memory_on_a_card_is_what_its_configuration_needs(real_cards: dict[str, ModelCard], name: str) -> None:
    """memory_gb of each real card lies within a quarter of the estimate from parameters and activations."""
    card = real_cards[name]
    assert estimate_memory_gb(card) == pytest.approx(card.memory_gb, rel=0.25)


def test_a_model_that_does_not_fit_is_refused_before_it_is_moved(
    real_cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUX.1 does not fit into 24 GB in bfloat16, and the error says how much it needs and what would help."""
    monkeypatch.setattr("models.weights.needs.memory.free_memory_gb", lambda device: 24.0)
    with pytest.raises(LoadError, match=r"'flux' needs about 3\d\.\d GB in bfloat16, but cuda has 24\.0 GB"):
        check_fits(real_cards["flux-dev"], "cuda")
    check_fits(real_cards["sdxl"], "cuda")


@pytest.mark.parametrize("name", BASES)
def test_the_real_cards_settings_fit_the_real_calls(pipes: dict[str, Any], name: str) -> None:
    """Generate and refine steps become arguments that the pipeline of that family takes, guidance as published."""
    card, pipe = load_card(f"real/{name}"), pipes[name]
    said = {"prompt": "a red circle", "negative_prompt": "blue"}
    step = Step("s", "generate", card.id, (), "image", said)
    if card.role == "editor":
        step = Step("s", "inpaint", card.id, ("picture", "mask"), "image", {**said, "strength": 1.0})
    made = arguments(read_call(step, card), card, pipe)
    assert set(made) <= set(inspect.signature(type(pipe).__call__).parameters)
    assert (made["width"], made["height"]) == card.native_size
    assert made["num_inference_steps"] == card.steps
    row = FAMILIES[card.family]
    assert made.get("max_sequence_length") == (card.max_prompt_tokens if row.takes_length else None)
    assert made.get("guidance_scale", made.get("true_cfg_scale")) == GUIDANCE[name]
    # Without guidance there is nothing for a negative prompt to steer.
    assert made.get("negative_prompt") == ("blue" if name in ("sd15", "sdxl", "sd35-medium", "qwen-image") else None)
    if row.img2img:
        again = replace(step, kind="refine", settings={**step.settings, "strength": 0.5})
        sibling = img2img(card, pipe)
        redone = arguments(read_call(again, card), card, sibling)
        assert set(redone) <= set(inspect.signature(type(sibling).__call__).parameters)
        assert ("width" in redone) == row.flow


def test_the_refiner_takes_over_where_the_base_stops(pipes: dict[str, Any]) -> None:
    """until and from become denoising_end and denoising_start of the two SDXL pipelines."""
    base, refiner = load_card("real/sdxl"), load_card("real/sdxl-refiner")
    first = Step("a", "generate", base.id, (), "latents", {"prompt": "a", "until": 0.8})
    second = Step("b", "refine", refiner.id, ("a",), "image", {"prompt": "a", "from": 0.8})
    made = arguments(read_call(first, base), base, pipes["sdxl"])
    redone = arguments(read_call(second, refiner), refiner, pipes["sdxl-refiner"])
    assert (made["denoising_end"], made["output_type"]) == (0.8, "latent")
    assert redone["denoising_start"] == 0.8
    assert "width" not in redone


@pytest.mark.parametrize("name", real_configs.PIPELINES)
def test_siblings_share_their_networks(pipes: dict[str, Any], name: str) -> None:
    """img2img and inpainting of a real pipeline are other views of the same networks; nothing is loaded or cast
    twice."""
    card = load_card(f"real/{name}")
    siblings = [img2img(card, pipes[name]), inpaint(card, pipes[name])]
    row = FAMILIES[card.family]
    assert [one is not None for one in siblings] == [bool(row.img2img), bool(row.inpaint) and card.role != "refiner"]
    for sibling in filter(None, siblings):
        for part in real_configs.PIPELINES[name]:
            assert getattr(sibling, part) is getattr(pipes[name], part)
        if name == "sdxl-refiner":
            assert sibling.config.requires_aesthetics_score


@pytest.mark.parametrize("name", real_configs.PIPELINES)
def test_every_scheduler_of_a_family_is_built_from_the_checkpoints_own(pipes: dict[str, Any], name: str) -> None:
    """The noise schedule of the checkpoint is kept whichever solver is asked for, and each use gets a fresh one."""
    card, original = load_card(f"real/{name}"), pipes[name].scheduler
    for wanted in schedulers_for(card):
        made = build_scheduler(wanted, card, original)
        assert made is not original
        for key in ("beta_schedule", "beta_end", "shift", "use_dynamic_shifting", "num_train_timesteps"):
            if key in original.config and key in made.config:
                assert made.config[key] == original.config[key]
        made.set_timesteps(4, **({"mu": 1.0} if FAMILIES[card.family].flow else {}))
        assert len(made.timesteps) == 4
