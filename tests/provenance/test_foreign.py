"""Files of other programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.provenance.foreign import origin_of

A1111 = (
    "a cat, masterpiece\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, "
    "Model hash: 6ce0161689, Model: v1-5"
)
GRAPH: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["1", 1]}},
    "4": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 7.0, "sampler_name": "euler",
          "scheduler": "normal", "denoise": 1.0, "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]}},
}  # fmt: skip
LINKS = {"links": [[1, 1, 0, 4, 0, "MODEL"], [2, 2, 0, 4, 1, "CONDITIONING"], [3, 3, 0, 4, 2, "CONDITIONING"]]}
INVOKE = {
    "positive_prompt": "a cat", "negative_prompt": "a dog", "seed": 5, "steps": 20, "cfg_scale": 7.0,
    "scheduler": "euler", "model": {"model_name": "sdxl", "base_model": "sdxl", "model_type": "main"},
    "width": 64, "height": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("AUTOMATIC1111", {"parameters": A1111}),
        ("ComfyUI", {"prompt": json.dumps(GRAPH), "workflow": json.dumps(LINKS)}),
        ("InvokeAI", {"invokeai_metadata": json.dumps(INVOKE)}),
    ],
)
def test_prompts_and_settings_of_other_programs_are_found(program: str, texts: dict[str, str]) -> None:
    """A1111, ComfyUI and InvokeAI: who it was, both prompts, seed and steps."""
    origin = origin_of(texts)
    assert origin is not None
    assert origin.program == program
    assert "cat" in origin.prompt and "dog" in origin.negative_prompt
    told = {key.lower(): str(value) for key, value in origin.samplers[0].items()}
    assert (told["seed"], told["steps"]) == ("5", "20")
    assert "eul" in str(origin.samplers[0]).lower()


def test_a_graph_alone_is_told_by_its_nodes() -> None:
    """A workflow of ComfyUI without the rest is counted by kind of node."""
    nodes = {"nodes": [{"type": "KSampler"}, {"type": "VAEDecode"}, {"type": "KSampler"}]}
    origin = origin_of({"workflow": json.dumps(nodes)})
    assert origin is not None
    assert (origin.program, origin.rest) == ("ComfyUI", {"nodes": {"KSampler": 2, "VAEDecode": 1}})


@pytest.mark.parametrize(
    "texts",
    [{}, {"parameters": ""}, {"parameters": "Steps"}, {"prompt": "[" * 50_000}, {"prompt": "{}", "workflow": "[]"},
     {"prompt": '{"1": 3}', "workflow": '{"links": 3}'}, {"invokeai_metadata": "[]"}, {"sd-metadata": "{}"},
     {"Dream": "x"}, {"Comment": "{", "Software": "NovelAI", "Source": "", "Description": ""},
     {"parameters": "a,b:c" * 9}],
)  # fmt: skip
def test_texts_that_say_nothing_have_no_origin(texts: dict[str, str]) -> None:
    """Whatever stands in them, there is no crash."""
    assert origin_of(texts) is None
