"""The line of A1111, as its own reader, civitai's and `sd-parsers` read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.provenance import FORMATS, encode_image
from models.provenance.foreign import origin_of
from models.provenance.parameters import SAMPLERS, parameters, sampler_of
from models.provenance.reading import read_file
from models.provenance.texts import visible
from tests.provenance.readers import by_a1111, by_civitai

GENERATE = {
    "id": "1",
    "kind": "generate",
    "model": "sdxl",
    "inputs": [],
    "settings": {"steps": 20, "guidance_scale": 7.5, "scheduler": "default", "seed": 7, "width": 64, "height": 64},
    "facts": {"scheduler": "DPMSolverMultistepScheduler"},
}
REFINE = {"id": "2", "kind": "refine", "model": "sdxl-refiner", "settings": {"strength": 0.25, "steps": 10}}
METADATA: dict[str, Any] = {
    "generator": "Triptych 1.0", "prompt": "a red circle, (large:1.2)", "negative_prompt": "blue, green", "seed": 7,
    "size": "64x96", "recipe": "premium", "policy": "best@0123456789ab", "plan": "abcdef",
    "models": {"sdxl": "sha256:0123", "sdxl-refiner": "sha256:4567"}, "steps": [GENERATE, REFINE],
}  # fmt: skip
LINE = {
    "Steps": "20", "Sampler": "DPM++ 2M", "CFG scale": "7.5", "Seed": "7", "Size": "64x96", "Model": "sdxl",
    "Denoising strength": "0.25", "Recipe": "premium", "Step 2": "refine sdxl-refiner steps 10 strength 0.25",
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("read", [by_a1111, by_civitai])
def test_both_readers_find_everything_in_a_file(format: str, read: Any) -> None:
    """From PNG's text and from EXIF's comment: prompts, and every setting under the name that they know."""
    told = read_file(encode_image(np.zeros((8, 8, 3), np.uint8), format, METADATA)).texts["parameters"]
    found = read(told)
    assert (found.prompt, found.negative) == (METADATA["prompt"], METADATA["negative_prompt"])
    assert {key: found.settings.get(key) for key in LINE} == LINE


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HOSTILE = st.sampled_from(
    ["Negative prompt: x", "Steps: 3, Sampler: y, Seed: 2", "Template: z", '"', "\\", ":", ",", "<lora:a:1>"]
)
LINES = st.lists(WORDS | HOSTILE, min_size=1, max_size=5).map("\n".join)


@settings(max_examples=80, deadline=None)
@given(prompt=LINES, negative=LINES, recipe=WORDS)
def test_no_prompt_is_taken_for_settings(prompt: str, negative: str, recipe: str) -> None:
    """Whatever stands in a prompt, both readers find the settings that the picture was made with, and no others."""
    line = parameters({**METADATA, "prompt": prompt, "negative_prompt": negative, "recipe": recipe})
    for read in (by_a1111, by_civitai):
        found = read(line)
        assert found is not None
        known = {key: value for key, value in LINE.items() if key != "Recipe"}
        assert {key: found.settings.get(key) for key in known} == known
        assert set(found.settings) <= {*LINE, "Model revision", "Policy", "Plan", "Version"}
        assert bool(found.negative.strip()) <= bool(visible(negative).strip())


def test_a_kept_library_reads_it_too() -> None:
    """`sd-parsers` takes the line for A1111's, with sampler, model and prompts."""
    origin = origin_of({"parameters": parameters(METADATA)})
    assert origin is not None
    assert (origin.program, origin.prompt, origin.negative_prompt) == (
        "AUTOMATIC1111", METADATA["prompt"], METADATA["negative_prompt"],
    )  # fmt: skip
    assert origin.samplers[0]["sampler"] == "DPM++ 2M" and origin.samplers[0]["model"] == "sdxl"


def test_samplers_have_the_names_that_people_know() -> None:
    """Classes of diffusers by A1111's names; others by their own, and a picture without a model has none."""
    assert all(sampler_of({"facts": {"scheduler": name}}) == told for name, told in SAMPLERS.items())
    assert sampler_of({"facts": {"scheduler": "HeunDiscreteScheduler"}}) == "HeunDiscrete"
    assert by_a1111(parameters({"prompt": "x", "seed": 1, "size": "8x8"})).settings["Sampler"] == "Unknown"
