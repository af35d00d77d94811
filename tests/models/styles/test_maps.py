"""Prompt-to-prompt: a prompt drawn with the attention maps of another one's picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from models import Engine
from models.styles.attention import BEGIN, END, PAD, tokens_read
from models.styles.maps import aligned, source_of
from models.styles.wearing import styled
from router.errors import PlanError, StepError
from router.planning.styles import check_worn
from router.types import Picture, Step, StepResult, Style

Engines = Callable[[str], Engine]
PROMPT, SOURCE = "red dot left of blue dot", "big dot left of blue dot"
ONE = {"red": "big"}


def kept(family: str = "sd15", **settings: Any) -> Style:
    given = {"instead_of": ONE, "cross_attention_until": 0.8, "self_attention_until": 0.6, **settings}
    return Style("kept", family, "attention", settings=given, passes=2)


@pytest.fixture(params=["sd15", "sdxl"])
def tiny(engine: Engines, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A tiny SD1.5 and a tiny SDXL, whose cards know the style."""
    found: Any = engine(request.param)
    before = found.card
    found.card = replace(before, styles={"kept": kept(before.family)})
    yield found
    found.card = before


def step(engine: Any, **settings: Any) -> Step:
    asked = {"prompt": PROMPT, "seed": 1, "steps": 3, "guidance_scale": 4.0, **settings}
    return Step("made", "generate", engine.card.id, (), "image", asked)


def drawn(engine: Any, *worn: Style, **settings: Any) -> np.ndarray[Any, Any]:
    """The picture of an engine whose card knows just these styles, in all of them."""
    engine.card = replace(engine.card, styles={style.id: style for style in worn} or engine.card.styles)
    value = engine.run(step(engine, style="+".join(f"{style.id}*1" for style in worn) or None, **settings)).value
    assert isinstance(value, Picture)
    return value.pixels


class Noting(AttnProcessor):  # type: ignore[misc]
    """Explicit attention whose maps of the prompt are noted in one run of a pipeline, and put back in the next."""

    maps: list[Any]
    puts = False

    def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> Any:
        usual = attn.get_attention_scores

        def scores(query: Any, key: Any, mask: Any) -> Any:
            made = usual(query, key, mask)
            half = len(made) // 2
            if self.puts:
                made[half:] = self.maps.pop(0)
            else:
                self.maps.append(made[half:].clone())
            return made

        attn.get_attention_scores = scores
        try:
            return super().__call__(attn, *args, **kwargs)
        finally:
            del attn.get_attention_scores


def test_the_maps_are_those_of_the_other_prompts_own_picture(tiny: Any) -> None:
    """What the style draws is what one gets by noting all maps while the source is drawn alone from the same noise, and
    putting them into the run of the prompt: the source's picture is made truly beside it."""
    style = kept(tiny.card.family, cross_attention_until=1.0, self_attention_until=1.0)
    worn, before = drawn(tiny, style), drawn(tiny)
    pipe, noting = tiny._pipe, Noting()
    noting.maps = []
    usual = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor(noting)
    try:
        drawn(tiny, prompt=SOURCE)
        noting.puts = True
        by_hand = drawn(tiny)
    finally:
        pipe.unet.set_attn_processor(usual)
    assert not noting.maps
    assert np.array_equal(worn, by_hand) and not np.array_equal(worn, before)
    assert np.array_equal(drawn(tiny), before)


@pytest.mark.parametrize("scheduler", ["dpmsolver++-sde", "unipc"])
def test_a_scheduler_with_noise_or_memory_steps_both_pictures_alike(tiny: Any, scheduler: str) -> None:
    """With exchanged words that say the same, the other picture is this one: its maps change nothing but rounding,
    whatever noise the scheduler adds and whatever it remembers."""
    alike = kept(tiny.card.family, instead_of={"red": "Red"}, cross_attention_until=1.0)
    before = drawn(tiny, scheduler=scheduler)
    assert np.abs(drawn(tiny, alike, scheduler=scheduler).astype(int) - before).max() <= 2
    assert not np.array_equal(drawn(tiny, kept(tiny.card.family), scheduler=scheduler), before)
    assert np.array_equal(drawn(tiny, scheduler=scheduler), before)


def test_maps_are_kept_for_their_share_only(tiny: Any) -> None:
    """No share, and a prompt that says none of the words, change no byte; a share to each step is another picture."""
    family, before = tiny.card.family, drawn(tiny)
    none = {"cross_attention_until": 0.0, "self_attention_until": 0.0}
    assert np.array_equal(drawn(tiny, kept(family, **none)), before)
    assert np.array_equal(drawn(tiny, kept(family, instead_of={"green": "big"})), before)
    assert np.array_equal(drawn(tiny, kept(family, instead_of=PROMPT)), before)
    parts = [{"cross_attention_until": share, "self_attention_until": 0.0} for share in (0.5, 1.0)]
    made = [before, *(drawn(tiny, kept(family, **part)) for part in parts)]
    assert all(not np.array_equal(a, b) for n, a in enumerate(made) for b in made[:n])


def test_a_batch_is_drawn_as_its_pictures_alone(tiny: Any) -> None:
    """Pictures of a batch, one of which says none of the words and one of which is longer, are those made alone, up to
    rounding; with guidance and without."""
    for guidance in (4.0, 1.0):
        asked = [
            step(tiny, prompt=prompt, seed=seed, style="kept*1", guidance_scale=guidance)
            for seed, prompt in enumerate(("red dot", "blue dot left of red dot", "blue dot"))
        ]
        for result, one in zip(tiny.run_batch(asked, [()] * 3), asked, strict=True):
            assert isinstance(result, StepResult) and isinstance(result.value, Picture)
            assert result.facts["batch"] == 3
            assert np.abs(result.value.pixels.astype(int) - tiny.run(one).value.pixels).max() <= 2


def test_windows_and_a_given_picture_keep_their_maps(tiny: Any) -> None:
    """In windows, each of which has maps of its own, and going on from a picture, the style is worn and comes off."""
    wide = {"width": 64, "height": 32, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}
    given = Picture(drawn(tiny))

    def refined(**more: Any) -> np.ndarray[Any, Any]:
        settings = {"prompt": PROMPT, "seed": 1, "steps": 4, "strength": 0.8, **more}
        made = tiny.run(Step("r", "refine", tiny.card.id, ("made",), "image", settings), (given,)).value
        return np.asarray(made.pixels)

    for draw in (lambda **more: tiny.run(step(tiny, **wide, **more)).value.pixels, refined):
        before = draw()
        assert not np.array_equal(draw(style="kept*1"), before)
        assert np.array_equal(draw(), before)


def test_a_failure_between_two_steps_leaves_nothing(tiny: Any) -> None:
    """A run that ends in its middle leaves no hook, no processor and nothing on pipeline or scheduler."""
    before = drawn(tiny)
    pipe, own = tiny._pipe, sorted(vars(tiny._pipe))

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(StepError, match="ZeroDivisionError"):
        tiny.run(step(tiny, style="kept*1"), on_progress=fail)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.unet.modules())
    assert {type(p).__name__ for p in pipe.unet.attn_processors.values()} == {"AttnProcessor2_0"}
    assert sorted(vars(pipe)) == own and not {"step", "scale_model_input"} & set(vars(pipe.scheduler))
    assert np.array_equal(drawn(tiny), before)


def test_the_source_says_other_words_in_the_place_of_the_cards() -> None:
    """All words are exchanged at once, in any case and never within a word; a word for which nothing stands goes."""
    swap = {"red": "green", "green": "red"}
    assert source_of("Red dot, green dot, reddish dot", swap) == "green dot, red dot, reddish dot"
    assert source_of("a dot, on black", {", on black": ""}) == "a dot"
    assert source_of("a dot  on  black", swap) == "a dot  on  black"
    assert source_of("a dot", "a ring") == "a ring"


def test_tokens_meet_by_the_longest_common_subsequence() -> None:
    """Common tokens keep their order, as many meet as many in between, and what was added meets nothing."""
    assert aligned([1, 2, 3], [1, 9, 3]) == [0, 1, 2]
    assert aligned([1, 2, 3, 4], [1, 4]) == [0, None, None, 1]
    assert aligned([1, 4], [1, 2, 3, 4]) == [0, 3]
    assert aligned([5, 1, 6, 7, 2], [1, 2, 9]) == [None, 0, None, None, 1]
    assert aligned([1, 2, 8, 9], [1, 2, 3, 4]) == [0, 1, 2, 3]
    assert aligned([], [1]) == [] and aligned([1], []) == [None]


def test_tokens_are_read_in_chunks_with_their_ends(engine: Engines) -> None:
    """What is aligned has a token for each that the network reads."""
    pipe: Any = engine("sd15")._pipe  # type: ignore[attr-defined]
    limit = pipe.tokenizer.model_max_length
    short = tokens_read(pipe, "red", limit)
    assert short[0] == BEGIN and short[4] == END and set(short[5:]) == {PAD} and len(short) == limit
    long = tokens_read(pipe, "dot " * limit, 2 * limit)
    assert len(long) == 2 * limit and long[limit - 1] == END and long[limit] == BEGIN


def test_what_cannot_be_is_said(engine: Engines) -> None:
    """A prompt given as embeddings, a second style of attention and a compiled network are refused with the reason."""
    found: Any = engine("sd15")
    pipe = found._pipe
    states = torch.zeros(1, pipe.tokenizer.model_max_length, pipe.unet.config.cross_attention_dim)
    with pytest.raises(StepError, match=r"'kept'.*given as embeddings"), styled(pipe, [(kept(), 1.0)]):
        pipe(prompt_embeds=states, guidance_scale=1.0, num_inference_steps=1)
    louder = Style("louder", "sd15", "attention", settings={"words": {"red": 2.0}})
    card = replace(found.card, styles={"kept": kept(), "louder": louder})
    with pytest.raises(PlanError, match=r"'kept' takes attention maps.*wear one"):
        check_worn((("kept", 1.0), ("louder", 1.0)), card, "generate")
    compiled = replace(card, tuning={"compile": "regional"})
    with pytest.raises(PlanError, match="attention that it changes is compiled"):
        check_worn((("kept", 1.0),), compiled, "generate")
    exported = replace(card, source={**card.source, "onnx": "folder"})
    with pytest.raises(PlanError, match="exported graphs"):
        check_worn((("kept", 1.0),), exported, "generate")
