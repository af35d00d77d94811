"""Styles of kind ip_adapter: a reference picture beside the words, by diffusers' own loading."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models import Engine
from models.schedulers import build_scheduler
from models.styles.cards import load_style
from models.styles.wearing import styled
from router.errors import CatalogueError, StepError
from router.types import Mask, Picture, Step, StepResult, Style
from tests.models import ip_adapters

Engines = Callable[[str], Engine]
PROMPT = "red dot"
RNG = np.random.default_rng(0)
ONE, OTHER = (Picture(RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(2))


@pytest.fixture(params=["sd15", "sdxl"])
def tiny(engine: Engines, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A tiny engine whose card knows an adapter `look` and perturbed attention."""
    found: Any = engine(request.param)
    before, family = found.card, found.card.family
    look = load_style(ip_adapters.write(tmp_path / "adapter", found._pipe.unet, family))
    pag = Style("pag", family, "attention", settings={"pag": 3.0}, passes=1)
    found.card = replace(before, styles={"look": look, "pag": pag})
    yield found
    found.card = before


def step(engine: Any, kind: Any = "generate", inputs: int = 0, **settings: Any) -> Step:
    asked = {"prompt": PROMPT, "seed": 1, "steps": 3, "guidance_scale": 4.0, **settings}
    return Step("made", kind, engine.card.id, tuple(map(str, range(inputs))), "image", asked)


def drawn(engine: Any, *inputs: Any, kind: Any = "generate", **settings: Any) -> np.ndarray[Any, Any]:
    value = engine.run(step(engine, kind, len(inputs), **settings), inputs).value
    assert isinstance(value, Picture)
    return value.pixels


def state_of(pipe: Any) -> dict[str, Any]:
    """All that an adapter could leave behind; each run has a scheduler of its own."""
    found: dict[str, Any] = {name: id(part) for name, part in pipe.components.items() if name != "scheduler"}
    for key, module in pipe.unet.named_modules():
        found[key] = id(module), sorted(vars(module)), sorted(module._modules)
    found["own"] = sorted(vars(pipe)), pipe.unet.config.encoder_hid_dim_type
    return found


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_a_reference_is_drawn_after_as_diffusers_does_it(tiny: Any, tmp_path: Path, guidance: float) -> None:
    """With its reference, the engine's picture has the bytes of `load_ip_adapter` on a pipeline of its own; another
    reference is another picture, and without one the bytes of before come back, with every part in its place."""
    before, state = drawn(tiny, guidance_scale=guidance), state_of(tiny._pipe)
    worn = {"guidance_scale": guidance, "style": "look*0.6", "reference": "0"}
    made = drawn(tiny, ONE, **worn)
    assert not np.array_equal(made, before) and not np.array_equal(made, drawn(tiny, OTHER, **worn))
    assert np.array_equal(made, drawn(tiny, ONE, **worn))
    assert np.array_equal(drawn(tiny, guidance_scale=guidance), before)
    assert state_of(tiny._pipe) == state
    parts = dict(tiny._pipe.components)
    parts["scheduler"] = build_scheduler(tiny.card.scheduler, tiny.card, tiny._scheduler)
    more = {"add_watermarker": False} if tiny.card.family == "sdxl" else {"requires_safety_checker": False}
    plain = type(tiny._pipe)(**parts, **more)
    plain.set_progress_bar_config(disable=True)
    processors = dict(plain.unet.attn_processors)
    plain.load_ip_adapter(str(tmp_path / "adapter"), "", "look.safetensors", image_encoder_folder="encoder")
    plain.set_ip_adapter_scale(0.6)
    width, height = tiny.card.native_size
    theirs = plain(
        PROMPT, ip_adapter_image=Image.fromarray(ONE.pixels), num_inference_steps=3, guidance_scale=guidance,
        width=width, height=height, generator=torch.Generator("cpu").manual_seed(1), output_type="np",
    ).images[0]  # fmt: skip
    plain.unload_ip_adapter()
    tiny._pipe.unet.set_attn_processor(processors)
    assert np.array_equal(np.rint(theirs * 255).astype(np.uint8), made)


def test_a_reference_is_drawn_after_on_the_way_from_a_picture_and_in_tiles(tiny: Any) -> None:
    """A refine, an inpaint, windows, and a picture with perturbed attention draw after it, and nothing stays behind."""
    given, area = Picture(drawn(tiny)), Mask(np.full((32, 32), 255, np.uint8))
    wide = {"width": 64, "height": 32, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}
    for kind, inputs, settings in (
        ("refine", (given,), {"strength": 0.9}),
        ("inpaint", (given, area), {"strength": 1.0}),
        ("generate", (), wide),
        ("generate", (), {"style": "pag*1"}),
    ):
        before = drawn(tiny, *inputs, kind=kind, **settings)
        style = "look*1" + ("+pag*1" if "style" in settings else "")
        worn = drawn(tiny, *inputs, ONE, kind=kind, **{**settings, "style": style, "reference": "last"})
        assert not np.array_equal(worn, before), kind
        assert np.array_equal(drawn(tiny, *inputs, kind=kind, **settings), before), kind


def test_references_of_a_batch_are_drawn_after_one_by_one(tiny: Any) -> None:
    """A pipeline draws after one reference, so steps with several are made alone, with the same bytes."""
    asked = [step(tiny, inputs=1, seed=n, style="look*1", reference="0") for n in range(2)]
    results = tiny.run_batch(asked, [(ONE,), (OTHER,)])
    for result, one, picture in zip(results, asked, (ONE, OTHER), strict=True):
        assert isinstance(result, StepResult) and "batch" not in result.facts
        assert np.array_equal(result.value.pixels, tiny.run(one, (picture,)).value.pixels)  # type: ignore[union-attr]


def test_what_does_not_fit_leaves_no_trace(tiny: Any, tmp_path: Path) -> None:
    """No picture, a file for wider layers, and a failure within: the error names the style, and all is as before."""
    pipe, before = tiny._pipe, drawn(tiny)
    state, style = state_of(pipe), tiny.card.styles["look"]
    wide = load_style(ip_adapters.write(tmp_path / "wide", pipe.unet, tiny.card.family, width=24))
    for worn, picture, said in (
        (style, None, "'look' draws after a reference picture, and there is none"),
        (wide, Image.fromarray(ONE.pixels), "'look' does not fit this model"),
    ):
        with pytest.raises(StepError, match=said), styled(pipe, [(worn, 1.0)], reference=picture):
            pass
        assert state_of(pipe) == state
    with pytest.raises(ZeroDivisionError), styled(pipe, [(style, 1.0)], reference=Image.fromarray(ONE.pixels)):
        raise ZeroDivisionError
    assert state_of(pipe) == state and np.array_equal(drawn(tiny), before)
    with pytest.raises(StepError, match="no input and a reference, not 0"):
        tiny.run(step(tiny, style="look*1", reference="0"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder: encoder": "encoder: ../outside"}, "outside.*lies outside of the folders"),
        ({"encoder: encoder": "encoder: linked"}, "linked.*lies outside of the folders"),
        ({"encoder: encoder": "encoder: pickled"}, "there is no file .*pickled/model.safetensors"),
        ({", encoder: encoder": ""}, "needs source: encoder"),
        ({"family: sd15": "family: flux"}, "ip_adapter is for sd15, sdxl"),
    ],
)
def test_cards_name_encoders_in_allowed_folders_only(
    engine: Engines, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    """An encoder elsewhere, behind a link, or of another format than safetensors stops the start by name."""
    network = engine("sd15")._pipe.unet  # type: ignore[attr-defined]
    card = ip_adapters.write(tmp_path / "allowed", network, "sd15")
    ip_adapters.write(tmp_path, network, "sd15").unlink()
    (tmp_path / "encoder").rename(tmp_path / "outside")
    os.symlink(tmp_path / "outside", tmp_path / "allowed/linked")
    (tmp_path / "allowed/pickled").mkdir()
    (tmp_path / "allowed/pickled/pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    text = card.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    card.write_text(text)
    with pytest.raises(CatalogueError, match=f"(?s){said}"):
        load_style(card)
