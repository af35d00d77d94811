"""Styles of kind attention: perturbed-attention guidance, and words that count more or less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models import Engine
from models.schedulers import build_scheduler
from models.styles.attention import places
from models.styles.wearing import styled
from router.errors import StepError
from router.types import Picture, Step, StepResult, Style

Engines = Callable[[str], Engine]
PROMPT = "red dot left of blue dot"


def pag(family: str = "sd15", scale: float = 3.0) -> Style:
    return Style("pag", family, "attention", settings={"pag": scale, "blocks": "mid"}, passes=1)


def words(family: str = "sd15", begin: float = 0.0, end: float = 1.0, **factors: float) -> Style:
    return Style("words", family, "attention", settings={"words": factors, "from": begin, "to": end})


def step(card: Any, **settings: Any) -> Step:
    asked = {"prompt": PROMPT, "seed": 1, "steps": 3, "guidance_scale": 4.0, **settings}
    return Step("made", "generate", card.id, (), "image", asked)


def drawn(engine: Engine, *worn: Style, **settings: Any) -> np.ndarray[Any, Any]:
    """The picture of an engine whose pipeline wears styles."""
    with styled(engine._pipe, [(style, 1.0) for style in worn], own_scheduler=True):  # type: ignore[attr-defined]
        value = engine.run(step(engine.card, **settings)).value
    assert isinstance(value, Picture)
    return value.pixels


def wearing(engine: Engine, *styles: Style) -> Engine:
    """The same engine, whose card knows styles."""
    engine.card = replace(engine.card, styles={style.id: style for style in styles})
    return engine


@pytest.fixture(params=["sd15", "sdxl"])
def tiny(engine: Engines, request: pytest.FixtureRequest) -> Any:
    """A tiny SD1.5 and a tiny SDXL; what their cards know is put back."""
    found = engine(request.param)
    before = found.card
    yield found
    found.card = before


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_perturbed_guidance_has_the_bytes_of_diffusers_pipelines(tiny: Any, guidance: float) -> None:
    """Worn by the usual pipeline, the style draws what diffusers' PAG pipeline draws, with guidance and without."""
    from diffusers import StableDiffusionPAGPipeline, StableDiffusionXLPAGPipeline

    wearing(tiny, style := pag(tiny.card.family))
    asked = step(tiny.card, guidance_scale=guidance)
    ours = tiny.run(replace(asked, settings={**asked.settings, "style": "pag*1"})).value.pixels
    parts = dict(tiny._pipe.components.items())
    parts["scheduler"] = build_scheduler(tiny.card.scheduler, tiny.card, tiny._scheduler)
    xl = tiny.card.family == "sdxl"
    more = {"add_watermarker": False} if xl else {"requires_safety_checker": False}
    theirs = (StableDiffusionXLPAGPipeline if xl else StableDiffusionPAGPipeline)(
        **parts, **more, pag_applied_layers="mid"
    )
    theirs.set_progress_bar_config(disable=True)
    width, height = tiny.card.native_size
    made = theirs(
        PROMPT, num_inference_steps=3, guidance_scale=guidance, pag_scale=style.settings["pag"], output_type="np",
        width=width, height=height, generator=torch.Generator("cpu").manual_seed(1),
    ).images[0]  # fmt: skip
    assert np.array_equal(ours, np.rint(made * 255).astype(np.uint8))
    assert not np.array_equal(ours, drawn(tiny, guidance_scale=guidance))


def test_what_a_word_adds_is_multiplied_where_it_is_looked_at(tiny: Any) -> None:
    """Of one layer with explicit attention, the style gives the sum in which the word's probabilities count so much;
    the other words, and the pass of the negative prompt, are as they were."""
    layer = next(m for m in tiny._pipe.unet.modules() if getattr(m, "is_cross_attention", False))
    seen: list[tuple[Any, Any, Any]] = []

    def look(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        seen.append((args[0], kwargs["encoder_hidden_states"], output))

    hook = layer.register_forward_hook(look, with_kwargs=True)
    try:
        with styled(tiny._pipe, [(words(tiny.card.family, red=2.5), 1.0)], own_scheduler=True):
            tiny.run(step(tiny.card, steps=2))
            place = places(tiny._pipe, PROMPT, "red")
    finally:
        hook.remove()
    states, read, output = seen[0]
    assert place == [1, 2, 3]  # its tokenizer knows letters
    with torch.no_grad():
        heads = layer.head_to_batch_dim
        query, key, value = heads(layer.to_q(states)), heads(layer.to_k(read)), heads(layer.to_v(read))
        chosen = layer.get_attention_scores(query, key, None).reshape(2, layer.heads, -1, read.shape[1])
        chosen[1, :, :, place] *= 2.5
        summed = layer.batch_to_head_dim(chosen.flatten(0, 1) @ value)
        wanted = layer.to_out[0](summed)
    assert torch.allclose(output, wanted, atol=1e-5)


def test_words_count_within_their_span_only(tiny: Any) -> None:
    """A factor of 1, a word that is not said and a span without a step change no byte; the first step alone, the rest
    alone and both together are three pictures."""
    family, before = tiny.card.family, drawn(tiny)
    assert np.array_equal(drawn(tiny, words(family, red=1.0)), before)
    assert np.array_equal(drawn(tiny, words(family, green=3.0)), before)
    assert np.array_equal(drawn(tiny, words(family, 0.9995, 1.0, red=3.0)), before)
    parts = [words(family, red=4.0), words(family, 0.0, 0.5, red=4.0), words(family, 0.5, 1.0, red=4.0)]
    made = [before, *(drawn(tiny, part) for part in parts)]
    assert all(not np.array_equal(a, b) for n, a in enumerate(made) for b in made[:n])
    assert np.array_equal(drawn(tiny), before)


def test_words_are_found_where_the_network_reads_them(engine: Engines) -> None:
    """Every occurrence counts, with all of its tokens (letters here); the ends between chunks are left out."""
    pipe = engine("sd15")._pipe  # type: ignore[attr-defined]
    room = pipe.tokenizer.model_max_length - 2
    assert places(pipe, "red dot red", "red") == [1, 2, 3, 7, 8, 9]
    assert places(pipe, "red dot", "dot red") == [] and places(pipe, "red dot", "red dot") == [1, 2, 3, 4, 5, 6]
    assert places(pipe, "dot", "green") == places(pipe, "", "red") == []
    assert places(pipe, "dot " * room + "red", "red") == [3 * (room + 2) + 1 + n for n in range(3)]
    card = replace(engine("sd15").card, prompt_weights=True)
    assert places(pipe, "a (red:1.3) dot", "dot", card) == places(pipe, "a red dot", "dot")


def test_a_batch_weighs_each_prompt_by_itself(tiny: Any) -> None:
    """Pictures of a batch, in which a word stands elsewhere or not at all, are those made alone, up to rounding."""
    wearing(tiny, pag(tiny.card.family), words(tiny.card.family, red=4.0))
    asked = [
        step(tiny.card, prompt=prompt, seed=seed, style="pag*1+words*1")
        for seed, prompt in enumerate(("red dot", "blue dot left of red dot", "blue dot"))
    ]
    for result, one in zip(tiny.run_batch(asked, [()] * 3), asked, strict=True):
        assert isinstance(result, StepResult) and isinstance(result.value, Picture)
        assert result.facts["batch"] == 3
        assert np.abs(result.value.pixels.astype(int) - tiny.run(one).value.pixels).max() <= 2


def test_attention_is_changed_in_tiles_and_on_the_way_from_a_picture(tiny: Any) -> None:
    """In windows, and going on from a picture, both are worn, and nothing stays behind."""
    wearing(tiny, pag(tiny.card.family), words(tiny.card.family, red=4.0))
    wide = {"width": 64, "height": 32, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}
    given = Picture(drawn(tiny))

    def refined(**more: Any) -> np.ndarray[Any, Any]:
        settings = {"prompt": PROMPT, "seed": 1, "steps": 4, "strength": 0.8, **more}
        made = tiny.run(Step("r", "refine", tiny.card.id, ("made",), "image", settings), (given,)).value
        return np.asarray(made.pixels)

    for draw in (lambda **more: tiny.run(step(tiny.card, **wide, **more)).value.pixels, refined):
        before = draw()
        for style in ("pag*1", "words*1"):
            assert not np.array_equal(draw(style=style), before)
            assert np.array_equal(draw(), before)


def test_a_failure_between_two_steps_leaves_nothing(tiny: Any) -> None:
    """A run that ends in its middle leaves no hook and no processor, and the next picture is that of before."""
    wearing(tiny, pag(tiny.card.family), words(tiny.card.family, red=4.0))
    before = drawn(tiny)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(StepError, match="ZeroDivisionError"):
        tiny.run(step(tiny.card, style="pag*1+words*1"), on_progress=fail)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny._pipe.unet.modules())
    assert {type(p).__name__ for p in tiny._pipe.unet.attn_processors.values()} == {"AttnProcessor2_0"}
    assert np.array_equal(drawn(tiny), before)


def test_what_cannot_be_is_said(engine: Engines) -> None:
    """A block that the network does not have, and a prompt without words, raise an error that names the style."""
    pipe = engine("sd15")._pipe  # type: ignore[attr-defined]
    lost = Style("pag", "sd15", "attention", settings={"pag": 3.0, "blocks": "attic"})
    with pytest.raises(StepError, match=r"style 'pag'.*'attic'"), styled(pipe, [(lost, 1.0)]):
        pass
    states = torch.zeros(1, pipe.tokenizer.model_max_length, pipe.unet.config.cross_attention_dim)
    with pytest.raises(StepError, match="given as embeddings"), styled(pipe, [(words(red=2.0), 1.0)]):
        pipe(prompt_embeds=states, guidance_scale=1.0, num_inference_steps=1)
