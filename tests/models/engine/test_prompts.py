"""Prompts: read once each, in chunks where they are long, with weights where a card has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models import Engine, load_card, load_engine
from models.engine.diffusion import DiffusionEngine
from models.prompts.remembered import RememberedPrompts
from models.prompts.weights import parts, plain
from router.errors import CatalogueError, StepError
from router.types import ModelCard, Picture, Step, StepResult, Style

LONG = " ".join(["a", "red", "circle", "left", "of", "two", "blue", "squares", "and", "a", "star"] * 4)
"""More than the tiny encoders read, letter by letter."""


def step(prompt: str, seed: int = 1, kind: Any = "generate", **settings: Any) -> Step:
    own = {"prompt": prompt, "seed": seed, "steps": 2, "width": 32, "height": 32, **settings}
    return Step(str(seed), kind, "any", ("0",) if kind == "refine" else (), "image", own)


def pixels(result: Any) -> np.ndarray:
    assert isinstance(result, StepResult) and isinstance(result.value, Picture), result
    return result.value.pixels.astype(int)


def counted(engine: Engine, name: str) -> list[int]:
    """A list that grows by the number of prompts in each call of a text encoder."""
    assert isinstance(engine, DiffusionEngine)
    calls: list[int] = []
    getattr(engine._pipe, name).register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(len(args[0] if args else kwargs["input_ids"])), with_kwargs=True
    )
    return calls


@pytest.mark.parametrize(
    ("name", "encoder"), [("sd15", "text_encoder"), ("sdxl", "text_encoder_2"), ("flux", "text_encoder_2")]
)
def test_a_prompt_is_read_once_for_all_its_seeds(cards: dict[str, ModelCard], name: str, encoder: str) -> None:
    """Four seeds, alone and in one batch, and img2img, read the prompt once; the bytes are those of a fresh engine."""
    engine = load_engine(cards[name], threads=1)
    calls = counted(engine, encoder)
    first = [pixels(engine.run(step("a red circle", seed))) for seed in range(2)]
    once = len(calls)
    batch = engine.run_batch([step("a red circle", seed) for seed in range(2, 4)], [()] * 2)
    again = engine.run(step("a red circle", 5, "refine", strength=0.6), (Picture(first[0].astype(np.uint8)),))
    assert all(isinstance(one, StepResult) for one in (*batch, again))
    assert len(calls) == once and set(calls) == {1}
    fresh = load_engine(cards[name], threads=1)
    assert (pixels(fresh.run(step("a red circle", 1))) == first[1]).all()
    engine.run(step("another", 1))
    assert len(calls) > once
    assert (pixels(engine.run(step("a red circle", 0))) == first[0]).all()


def test_prompts_of_a_batch_have_the_embeddings_that_they_have_alone(cards: dict[str, ModelCard]) -> None:
    """What the network reads of each is the same to the bit, whatever it is made together with."""
    engine = load_engine(cards["sdxl"], threads=1)
    assert isinstance(engine, DiffusionEngine)
    engine.prompts.serve(engine._pipe)
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    texts = ["a red circle", "two stars", "a red circle"]
    together = engine._pipe.encode_prompt(prompt=texts, negative_prompt=["x", "x", "x"], **options)
    for number, text in enumerate(texts):
        alone = type(engine._pipe).encode_prompt(engine._pipe, prompt=[text], negative_prompt=["x"], **options)
        for all_of_them, one in zip(together, alone, strict=True):
            assert torch.equal(all_of_them[number : number + 1], one)


def test_what_is_remembered_is_bounded_and_knows_its_styles(cards: dict[str, ModelCard]) -> None:
    """The oldest prompts give way; while a style is worn nothing is remembered, and afterwards the engine's reading is
    there again."""
    style = Style("mixed", "sd15", "embedding_mix", {"text": "{prompt} blue"})
    engine = load_engine(replace(cards["sd15"], styles={"mixed": style}), threads=1)
    assert isinstance(engine, DiffusionEngine)
    plain_one = pixels(engine.run(step("a red circle")))
    reads = engine._pipe.encode_prompt
    known = len(engine.prompts._known)
    worn = pixels(engine.run(step("a red circle", style="mixed*1")))
    assert (worn != plain_one).any() and len(engine.prompts._known) == known
    assert engine._pipe.encode_prompt is reads
    assert (pixels(engine.run(step("a red circle"))) == plain_one).all()
    small = RememberedPrompts(cards["sd15"], room_bytes=3000)
    engine.prompts = small
    del engine._pipe.encode_prompt
    calls = counted(engine, "text_encoder")
    for prompt in ("a", "b", "c", "a"):
        engine.run(step(prompt, guidance_scale=1.0))
    assert len(calls) == 4 and len(small._known) <= 2


def test_a_step_that_fails_while_reading_is_not_remembered(cards: dict[str, ModelCard], monkeypatch: Any) -> None:
    """A text encoder that raises once does so for one picture; the next has the right bytes."""
    engine = load_engine(cards["sd15"], threads=1)
    assert isinstance(engine, DiffusionEngine)
    right = pixels(load_engine(cards["sd15"], threads=1).run(step("a red circle")))
    with monkeypatch.context() as patch:
        patch.setattr(engine._pipe.text_encoder, "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(StepError, match="ZeroDivisionError"):
            engine.run(step("a red circle"))
    assert (pixels(engine.run(step("a red circle"))) == right).all()


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sdxl-refiner"])
def test_long_prompts_are_read_to_their_end(cards: dict[str, ModelCard], name: str) -> None:
    """With chunks, what stands at the end of a long prompt changes the picture and nothing is cut off; a short one has
    the bytes that it has without; without chunks the end is cut, and said to be."""
    card = cards[name]
    long = replace(card, prompt_chunks=8, max_prompt_tokens=(32 - 2) * 8 + 2)
    plain_engine, engine = load_engine(card, threads=1), load_engine(long, threads=1)
    kind, more, inputs = ("refine", {"strength": 0.6}, (Picture(np.full((32, 32, 3), 90, np.uint8)),))
    if name != "sdxl-refiner":
        kind, more, inputs = "generate", {}, ()

    def draw(one: Engine, prompt: str) -> StepResult:
        return one.run(step(prompt, kind=kind, negative_prompt="blurry", **more), inputs)

    assert (pixels(draw(engine, "a red")) == pixels(draw(plain_engine, "a red"))).all()
    ends = [draw(engine, f"{LONG} {end}") for end in ("zebra", "quiet")]
    cut = [draw(plain_engine, f"{LONG} {end}") for end in ("zebra", "quiet")]
    assert (pixels(ends[0]) != pixels(ends[1])).any() and (pixels(cut[0]) == pixels(cut[1])).all()
    assert ends[0].facts["truncated_tokens"] == 0 < int(cut[0].facts["truncated_tokens"])
    assert engine.revision == f"{plain_engine.revision}+prompt_chunks=8"


def test_weights_move_a_picture_away_from_the_empty_prompt(cards: dict[str, ModelCard]) -> None:
    """Weight 1 is the plain prompt to the bit, 1.3 is another picture, 0 forgets the words; without the option brackets
    are letters."""
    card = replace(cards["sdxl"], prompt_weights=True)
    engine, plain_engine = load_engine(card, threads=1), load_engine(cards["sdxl"], threads=1)
    usual = pixels(plain_engine.run(step("a red circle")))
    assert (pixels(engine.run(step("a (red:1) circle"))) == usual).all()
    made = [pixels(engine.run(step(f"a (red:{weight}) circle"))) for weight in ("0", "0.5", "1.3", "2")]
    apart = [np.abs(one - usual).mean() for one in made]
    assert min(apart) > 0 and apart[3] > apart[2]
    assert (pixels(plain_engine.run(step("a (red:1.3) circle"))) != usual).any()
    with pytest.raises(StepError, match=r"the weight of 'red' is 9, and weights go from 0 to 3"):
        engine.run(step("a (red:9) circle"))
    both = engine.run_batch([step("a (red:1.3) circle", 1), step("a red circle", 1)], [()] * 2)
    assert (pixels(both[0]) == made[2]).all() and (pixels(both[1]) == usual).all()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red circle", [("a red circle", 1.0)]),
        ("a (red:1.3) circle", [("a ", 1.0), ("red", 1.3), (" circle", 1.0)]),
        ("(two stars:.5)", [("two stars", 0.5)]),
        (r"a \(red:1.3) circle", [("a (red:1.3) circle", 1.0)]),
        ("a (red) [blue] (16:9)", [("a (red) [blue] ", 1.0), ("16", 9.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_only_words_with_a_number_are_weighted(prompt: str, expected: list[tuple[str, float]]) -> None:
    """Other brackets are letters, and an escaped one is, too; weights above the bound are refused."""
    if max(weight for _, weight in expected) > 3:
        with pytest.raises(StepError):
            parts(prompt)
    else:
        assert parts(prompt) == expected
        assert parts(prompt, weighted=False) == [(prompt, 1.0)]
        assert ":" not in plain(prompt, True) or "\\" in prompt


def test_which_cards_may_have_chunks() -> None:
    """Families that CLIP alone reads for; the card's limit is that of all chunks."""
    assert load_card("real/sdxl", {"prompt_chunks": 3}).max_prompt_tokens == 75 * 3 + 2
    for key in ({"prompt_chunks": 2}, {"prompt_weights": True}):
        with pytest.raises(CatalogueError, match="are for families that only CLIP reads for"):
            load_card("real/flux-dev", key)
    with pytest.raises(CatalogueError, match="prompt_chunks"):
        load_card("real/sdxl", {"prompt_chunks": 0})
