"""Styles on real pipelines: the embedded SD1.5 with what is shipped for it."""

from __future__ import annotations

import functools
import gc
import os
import random
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import Engine, load_card, load_engine
from models.embedded.checker import check
from models.embedded.outcomes import held_out_prompts
from models.embedded.outlines import fill_share, outlined_objects, render_outlined, shows_outlines
from models.embedded.world import TIERS, render, sample_scene
from models.styles import adapters
from models.styles.cards import SHIPPED, load_style, load_styles
from models.styles.wearing import styled
from router.errors import CatalogueError, StepError
from router.types import ModelCard, Picture, Step, Style, spelled, wearing

STYLES = load_styles()
KINDS = {style.kind: name for name, style in STYLES.items()}


@pytest.fixture(scope="module")
def sd15() -> Engine:
    """The embedded SD1.5, which knows the shipped styles."""
    return load_engine(replace(load_card("embedded/sd15"), styles=STYLES), threads=1)


@pytest.fixture(scope="module")
def pipe(sd15: Engine) -> object:
    """Its pipeline of diffusers."""
    return sd15._pipe  # type: ignore[attr-defined]


def drawn(engine: Engine, seed: int = 1, prompt: str = "a red circle", **style: float) -> np.ndarray:
    settings: dict[str, object] = {"prompt": prompt, "seed": seed, "steps": 3}
    if style:
        settings["style"] = spelled(wearing(style))
    value = engine.run(Step("made", "generate", "sd15", (), "image", settings)).value  # type: ignore[arg-type]
    assert isinstance(value, Picture)
    return value.pixels


def state_of(pipe: object) -> dict[str, object]:
    """All that a style could leave behind: names of modules and parameters, their numbers, what is set by hand."""
    found: dict[str, object] = {}
    for name, part in pipe.components.items():  # type: ignore[attr-defined]
        if isinstance(part, torch.nn.Module):
            found |= {f"{name}.{key}": (id(p), p.requires_grad, float(p.sum())) for key, p in part.named_parameters()}
            found |= {f"{name}:{key}": (id(module), sorted(vars(module))) for key, module in part.named_modules()}
        else:
            found[name] = id(part)
    found["own"] = sorted(vars(pipe))
    return found


@pytest.mark.parametrize("name", sorted(STYLES))
def test_every_kind_changes_the_picture_and_leaves_no_trace(sd15: Engine, name: str) -> None:
    """A style changes the picture; before and after it, the same seed gives the same bytes."""
    before = drawn(sd15)
    assert not np.array_equal(drawn(sd15, **{name: 1.0}), before)
    assert np.array_equal(drawn(sd15), before)


@pytest.mark.parametrize("name", sorted(STYLES))
def test_a_failure_inside_leaves_no_trace(sd15: Engine, pipe: object, name: str) -> None:
    """After an exception while a style is worn, modules, parameters and attributes are the ones from before."""
    before = drawn(sd15)
    with styled(pipe, [(STYLES[name], 1.0)]):  # the first time leaves what diffusers caches
        pass
    state = state_of(pipe)
    with pytest.raises(ZeroDivisionError), styled(pipe, [(STYLES[name], 1.0)]):
        raise ZeroDivisionError
    assert state_of(pipe) == state
    assert np.array_equal(drawn(sd15), before)


@pytest.mark.parametrize("name", [n for n in sorted(STYLES) if n != "outlined"])
def test_no_weight_is_the_base(sd15: Engine, pipe: object, name: str) -> None:
    """A style of weight 0 gives the bytes of the model without it."""
    with styled(pipe, [(STYLES[name], 0.0)]) as extra:
        assert extra == {}
        assert np.array_equal(drawn(sd15), drawn(sd15, **{name: 0.0}))


def test_a_lora_of_weight_zero_is_the_base_even_when_it_is_put_on(sd15: Engine, pipe: object) -> None:
    """A LoRA that is on the network with the factor 0 gives the base's bytes, so its effect begins at nothing."""
    mute = replace(STYLES["outlined"], weight=0.0)
    with styled(pipe, [(mute, 1.0)]):
        worn = drawn(sd15)
    assert np.array_equal(worn, drawn(sd15))


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, style in sorted(STYLES.items())
        if style.blends and style.kind != "clip_skip" and "scheduler" not in style.settings
    ],
)
def test_more_weight_is_more_change(sd15: Engine, name: str) -> None:
    """At one step from the base's noise, the distance to the base's picture grows with the weight."""
    base = drawn(sd15).astype(float)
    away = [float(np.abs(drawn(sd15, **{name: weight}) - base).mean()) for weight in (0.05, 0.2, 0.5)]
    assert 0 <= away[0] < away[1] < away[2]


def test_two_styles_compose(sd15: Engine) -> None:
    """Two styles together differ from either alone, and the order in which they are named does not matter."""
    both = drawn(sd15, outlined=0.7, gray=0.6)
    assert not np.array_equal(both, drawn(sd15, outlined=0.7))
    assert not np.array_equal(both, drawn(sd15, gray=0.6))
    assert np.array_equal(both, drawn(sd15, gray=0.6, outlined=0.7))


def test_a_lora_twice_by_halves_is_the_lora(sd15: Engine, pipe: object) -> None:
    """Two LoRAs add up: half of one and half of its copy draw what the whole one does, up to rounding."""
    one = STYLES["outlined"]
    with styled(pipe, [(one, 1.0)]):
        whole = drawn(sd15).astype(int)
    with styled(pipe, [(one, 0.5), (replace(one, id="copy"), 0.5)]):
        halves = drawn(sd15).astype(int)
    assert np.abs(whole - halves).max() <= 1


def test_what_a_lora_adds_is_kept_for_the_next_time(sd15: Engine, pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second picture in a LoRA puts no adapters into the network; a LoRA too large to keep draws the same."""
    first = drawn(sd15, outlined=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(pipe, "load_lora_weights", None)
        assert np.array_equal(drawn(sd15, outlined=0.9), first)
    monkeypatch.setattr(adapters, "MOST_SUMS_BYTES", 1000)
    monkeypatch.setattr(adapters, "_sums", WeakKeyDictionary())
    assert np.abs(drawn(sd15, outlined=0.9).astype(int) - first).max() <= 2
    assert not any(len(kept) for kept in adapters._sums.values())


def test_another_file_of_the_same_name_is_worn_anew(pipe: Any, tmp_path: Path) -> None:
    """When a style's file changes, what was kept of the former one is not used."""
    file = tmp_path / "any.safetensors"
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    style = replace(STYLES["outlined"], id="any", weight=1.0, source={"file": str(file)})
    weight, seen = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight, []
    for size in (1.0, 2.0):
        parts = {"lora_A": torch.full((1, weight.shape[1]), size), "lora_B": torch.ones(weight.shape[0], 1)}
        save_file({f"{layer}.{name}.weight": value for name, value in parts.items()}, file)
        os.utime(file, (size, size))
        base = weight.detach().clone()
        with styled(pipe, [(style, 1.0)]):
            seen.append(float((weight - base).mean()))
        assert torch.equal(weight, base)
    assert seen == pytest.approx([1.0, 2.0], rel=1e-5)


def test_lcm_draws_in_a_step_without_guidance(sd15: Engine) -> None:
    """The style brings its scheduler, for one step of one pass, and most of its pictures are right."""
    prompts = held_out_prompts("one", 10, 5)
    right = 0
    for seed, prompt in enumerate(prompts):
        asked = {"prompt": prompt.text, "seed": seed, "steps": 1, "guidance_scale": 1.0, "style": "lcm*1"}
        made = sd15.run(Step("made", "generate", "sd15", (), "image", asked))  # type: ignore[arg-type]
        assert isinstance(made.value, Picture)
        assert made.facts["scheduler"] == "LCMScheduler" and made.facts["steps"] == 1
        right += check(made.value.pixels, prompt.scene).exact
    assert right >= 6


def test_a_style_of_a_hub_says_how_it_is_fetched(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cards of published styles name repository and file; without the file, the error has the command."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, style in load_styles([SHIPPED / "real"]).items():
        if "hub" not in style.source:
            continue
        assert style.settings["scheduler"] == "lcm" and style.latent_space in ("sd15", "sdxl"), name
        with pytest.raises(StepError, match=rf"hf download {style.source['hub']} "), styled(pipe, [(style, 1.0)]):
            pass


def test_a_learned_word_does_what_its_vectors_do(sd15: Engine) -> None:
    """`dusk` has the vectors of "on a black background", so it gives the picture of these words."""
    assert np.array_equal(drawn(sd15, dusk=1.0), drawn(sd15, prompt="a red circle on a black background"))


def test_a_mix_of_weight_one_is_the_other_prompt(sd15: Engine) -> None:
    """At weight 1, an embedding mix has gone over into the other prompt."""
    there = drawn(sd15, prompt="a red circle on a gray background").astype(int)
    assert np.abs(drawn(sd15, gray=1.0).astype(int) - there).max() <= 1


def test_styles_stay_out_of_the_negative_prompt(
    engine: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUX with real guidance reads the negative prompt by a call of its own: as it is."""
    pipe = engine("flux")._pipe  # type: ignore[attr-defined]
    usual, read = type(pipe).encode_prompt, []

    @functools.wraps(usual)
    def reading(self: object, *args: object, **kwargs: object) -> object:
        read.append(kwargs["prompt"])
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(type(pipe), "encode_prompt", reading)
    style = Style("film", "flux", "embedding_mix", {"text": "{prompt} on film"})
    asked = {"true_cfg_scale": 2.0, "num_inference_steps": 1, "width": 32, "height": 32, "max_sequence_length": 8}
    with styled(pipe, [(style, 1.0)]):
        for _ in range(2):
            pipe(prompt="red dot", negative_prompt="blue dot", output_type="latent", **asked)
    once = ["red dot", "red dot on film", "blue dot"]
    assert read in (once, 2 * once)  # an engine that has served its pipeline remembers them


def test_ids_that_differ_in_a_dot_are_worn_together(sd15: Engine, pipe: object) -> None:
    """`a.b` and `a_b` are two styles, whatever the libraries below call them."""
    settings = {"prompt": "a red circle", "seed": 1, "steps": 3}
    step = Step("made", "generate", "sd15", (), "image", settings)  # type: ignore[arg-type]
    both = [(replace(STYLES["outlined"], id=name), 0.5) for name in ("a.b", "a_b")]
    with styled(pipe, both):
        worn = sd15.run(step).value
    assert isinstance(worn, Picture)
    assert np.abs(worn.pixels.astype(int) - drawn(sd15, outlined=1.0)).max() <= 2


def test_a_batch_wears_what_a_picture_alone_wears(sd15: Engine) -> None:
    """Pictures made together in a style are those made one by one, up to rounding."""
    steps = [
        Step(
            f"s{n}",
            "generate",
            "sd15",
            (),
            "image",
            {"prompt": p, "seed": n, "steps": 3, "style": "gray*0.5+outlined*1"},
        )
        for n, p in enumerate(("a red circle", "a blue star"))
    ]
    for result, step in zip(sd15.run_batch(steps, [(), ()]), steps, strict=True):
        alone = sd15.run(step).value
        assert not isinstance(result, Exception) and isinstance(result.value, Picture) and isinstance(alone, Picture)
        assert result.facts["style"] == "gray*0.5+outlined*1"
        assert np.abs(result.value.pixels.astype(int) - alone.pixels.astype(int)).max() <= 2


def test_a_refine_wears_styles_too(sd15: Engine) -> None:
    """img2img shares the networks, so a style changes it, and the base's bytes come back."""
    given = Picture(drawn(sd15))
    settings = {"prompt": "a red circle", "seed": 1, "strength": 0.8}

    def refined(**more: object) -> np.ndarray:
        value = sd15.run(Step("r", "refine", "sd15", ("made",), "image", {**settings, **more}), (given,)).value  # type: ignore[dict-item]
        assert isinstance(value, Picture)
        return value.pixels

    before = refined()
    assert not np.array_equal(refined(style="outlined*1"), before)
    assert np.array_equal(refined(), before)


@pytest.mark.parametrize(
    ("model", "spell"), [("sd15", "kohya"), ("sdxl", "diffusers"), ("flux", "diffusers"), ("sd3", "diffusers")]
)
def test_files_of_other_programs_and_families_are_worn(
    engine: Callable[[str], Engine], tmp_path: Path, model: str, spell: str
) -> None:
    """A LoRA in kohya's names for SD1.5, or in diffusers' for another family, changes the picture and comes off."""
    card = engine(model).card
    pipe = engine(model)._pipe  # type: ignore[attr-defined]
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    network = getattr(pipe, part)
    names = [n for n, m in network.named_modules() if n.endswith(("to_q", "to_v")) and isinstance(m, torch.nn.Linear)]
    generator, state = torch.Generator().manual_seed(0), {}
    for name in names:
        rows, columns = network.get_submodule(name).weight.shape
        down, up = (torch.randn(shape, generator=generator) for shape in ((2, columns), (rows, 2)))
        if spell == "kohya":
            plain = f"lora_unet_{name.replace('.', '_')}"
            state |= {
                f"{plain}.lora_down.weight": down,
                f"{plain}.lora_up.weight": up,
                f"{plain}.alpha": torch.tensor(2.0),
            }
        else:
            state |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "any.safetensors")
    (tmp_path / "any.yaml").write_text(
        f"id: any\nfamily: {card.family}\nkind: lora\nsource: {{file: any.safetensors}}\n"
    )
    style = load_style(tmp_path / "any.yaml")
    step = Step("made", "generate", card.id, (), "image", {"prompt": "red dot", "seed": 1})

    def pixels() -> np.ndarray:
        value = engine(model).run(step).value
        assert isinstance(value, Picture)
        return value.pixels

    before = pixels()
    with styled(pipe, [(style, 1.0)]):
        worn = pixels()
    assert not np.array_equal(worn, before)
    assert np.array_equal(pixels(), before)


def test_weights_of_another_size_are_refused_by_name(engine: Callable[[str], Engine]) -> None:
    """A LoRA that was made for wider layers raises an error that names it, and the model draws as before."""
    tiny = engine("sd15")
    step = Step("made", "generate", tiny.card.id, (), "image", {"prompt": "red dot", "seed": 1})
    before = tiny.run(step).value
    with (
        pytest.raises(StepError, match="style 'outlined' does not fit"),
        styled(
            tiny._pipe,
            [(STYLES["outlined"], 1.0)],  # type: ignore[attr-defined]
        ),
    ):
        pass
    after = tiny.run(step).value
    assert isinstance(before, Picture) and isinstance(after, Picture)
    assert np.array_equal(before.pixels, after.pixels)


def card_in(folder: Path, **fields: object) -> Path:
    known = {"id": "mine", "family": "sd15", "kind": "lora", "source": "{file: mine.safetensors}", **fields}
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text("\n".join(f"{key}: {value}" for key, value in known.items()))
    return folder / "mine.yaml"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": "{file: mine.bin}"}, "mine.bin.*not .safetensors.*convert it"),
        ({"source": "{file: mine.ckpt}"}, "mine.ckpt.*may run code"),
        ({"source": "{file: ../outside.safetensors}"}, "outside.safetensors.*outside of the folders of styles"),
        ({"source": "{file: link.safetensors}"}, "link.safetensors.*outside of the folders of styles"),
        ({"source": "{file: none.safetensors}"}, "there is no file"),
        ({"family": "sd14"}, "unknown family 'sd14'.*sd15"),
        ({"kind": "loar"}, "unknown kind 'loar'.*lora"),
        ({"source_": "x"}, "unknown key 'source_'.*source"),
        ({"kind": "freeu", "family": "flux", "source": "{}"}, "freeu is for sd15, sdxl"),
        ({"kind": "attention", "family": "flux", "source": "{}"}, "attention is for sd15, sdxl.*share one attention"),
        ({"kind": "attention", "source": "{}"}, "needs one of settings: pag, words"),
        ({"kind": "attention", "source": "{}", "settings": "{pag: 1, words: {a: 1}}"}, "needs one of settings"),
        ({"kind": "attention", "source": "{}", "settings": "{words: {a: 9}}"}, "each word a number in 0..4"),
        ({"kind": "attention", "source": "{}", "settings": "{words: {a: 1}, from: .5, to: .2}"}, "not after from"),
        ({"kind": "attention", "source": "{}", "settings": "{pag: 1, to: .2}"}, "it belongs to 'words'"),
        ({"kind": "freeu", "source": "{}", "settings": "{s1: 1, s2: 1, b1: 1}"}, "needs settings: b2"),
        ({"kind": "scheduler", "source": "{}", "settings": "{scheduler: flowmatch}"}, "no 'flowmatch' for sd15"),
        ({"kind": "embedding_mix", "source": "{text: a dog}"}, "{prompt}"),
        ({"settings": "{rank: 4}"}, "has no settings: rank"),
    ],
)
def test_a_card_that_is_wrong_is_refused_by_name(tmp_path: Path, fields: dict[str, object], said: str) -> None:
    """Pickles, files outside the allowed folders (links followed) and unknown words are refused by name."""
    save_file({"x": torch.zeros(1)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "allowed"
    card = card_in(folder, **fields)
    (folder / "mine.bin").write_bytes(b"\x80\x04K\x01.")
    (folder / "mine.ckpt").write_bytes(b"\x80\x04K\x01.")
    os.symlink(tmp_path / "outside.safetensors", folder / "link.safetensors")
    with pytest.raises(CatalogueError, match=f"(?s)mine.yaml.*{said}"):
        load_style(card)


def test_a_further_folder_adds_styles_and_may_not_repeat_an_id(tmp_path: Path) -> None:
    """Styles of the config's folders stand beside those that are shipped; the same id twice is an error."""
    save_file({"x": torch.zeros(1)}, tmp_path / "mine.safetensors")
    card_in(tmp_path)
    assert set(load_styles([tmp_path])) == {*STYLES, "mine"}
    card_in(tmp_path, id="outlined")
    with pytest.raises(CatalogueError, match=r"'outlined' is there already .*outlined.yaml"):
        load_styles([tmp_path])


def test_what_is_shipped_is_small_and_only_safetensors() -> None:
    """A shipped style is at most two megabytes, and each file of weights belongs to a card."""
    named = {Path(style.source["file"]) for style in STYLES.values() if "file" in style.source}
    assert set(SHIPPED.glob("*.safetensors")) == {path for path in named if path.parent == SHIPPED}
    assert all(path.stat().st_size <= 2_000_000 and load_file(path) for path in named)


def test_an_outlined_picture_is_told_from_a_filled_one_wherever_that_can_be_seen() -> None:
    """Of scenes that are asked, every object of the outlined rendering counts as outlined and none of the filled one;
    rings, and stars too small for a line to leave anything empty, are not asked."""
    rng = random.Random(3)
    scenes = [sample_scene(rng, tier) for tier in TIERS[:-1] for _ in range(30)]
    asked = [scene for scene in scenes if shows_outlines(scene)]
    assert 40 < len(asked) < 100
    for scene in asked:
        assert outlined_objects(render_outlined(scene), scene) == [True] * len(scene.placements)
        assert outlined_objects(render(scene), scene) == [False] * len(scene.placements)
    left = {(spot.shape, spot.radius < 8) for scene in scenes for spot in scene.placements if scene not in asked}
    assert {("ring", True), ("star", True)} <= left
    assert not {spot.shape for scene in asked for spot in scene.placements} & {"ring"}
    assert outlined_objects(np.full((64, 64, 3), 255, np.uint8), asked[0]) == []


@pytest.mark.slow
def test_the_measure_of_a_style_rises_with_its_weight(sd15: Engine) -> None:
    """Over sixteen prompts, the more `outlined` is worn, the less of what lies inside contours is filled."""
    prompts = [p.text for p in held_out_prompts("one", 24, 5) if "ring" not in p.text][:16]
    filled = []
    for weight in (0.0, 0.4, 0.7, 1.0):
        asked = {"guidance_scale": 1.5, "style": spelled(wearing({"outlined": weight})) or None}
        shares = []
        for seed, prompt in enumerate(prompts):
            settings: Any = {"prompt": prompt, "seed": seed, **asked}
            value = sd15.run(Step("made", "generate", "sd15", (), "image", settings)).value
            assert isinstance(value, Picture)
            shares.append(fill_share(value.pixels))
        filled.append(float(np.mean([share for share in shares if share is not None])))
    assert filled == sorted(filled, reverse=True) and filled[0] > 0.9 and filled[-1] < 0.3


@pytest.mark.slow
def test_a_compiled_network_is_not_compiled_again_for_a_lora(cards: dict[str, ModelCard], tmp_path: Path) -> None:
    """A network whose blocks are compiled puts LoRAs on, at any weight, and off without compiling anything again, and
    its pictures are those of one that is not compiled, up to rounding."""
    styles = {}
    for seed, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(seed)
        network = load_engine(cards["sd15"], threads=1)._pipe.unet  # type: ignore[attr-defined]
        state = {}
        for layer, part in network.named_modules():
            if layer.endswith(("to_q", "to_v")):
                rows, columns = part.weight.shape
                state[f"unet.{layer}.lora_A.weight"] = torch.randn((2, columns), generator=generator)
                state[f"unet.{layer}.lora_B.weight"] = torch.randn((rows, 2), generator=generator)
        save_file(state, tmp_path / f"{name}.safetensors")
        styles[name] = Style(name, "sd15", "lora", {"file": str(tmp_path / f"{name}.safetensors")}, most=2, least=-2)
    card = replace(cards["sd15"], styles=styles)
    plain, compiled = (
        load_engine(card, threads=1),
        load_engine(replace(card, tuning={"compile": "regional"}), threads=1),
    )
    before = drawn(compiled, prompt="red dot")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for worn in ({"one": 1.0}, {"one": 0.5}, {"two": -1.0}, {"one": 0.7, "two": 0.7}, {}):
            made = drawn(compiled, prompt="red dot", **worn).astype(int)
            assert np.abs(made - drawn(plain, prompt="red dot", **worn)).max() <= 2
    assert np.array_equal(drawn(compiled, prompt="red dot"), before)


@pytest.mark.slow
def test_two_hundred_swaps_leak_no_memory(pipe: object) -> None:
    """After 200 more swaps the process holds at most 16 MB more, and no tensor more than after the first 50."""

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    def swaps(n: int) -> None:
        for number in range(n):
            style: Style = STYLES[sorted(STYLES)[number % len(STYLES)]]
            with styled(pipe, [(style, 1.0)]):
                pipe.encode_prompt("a red circle", "cpu", 1, False)  # type: ignore[attr-defined]

    swaps(50)
    count, peak = tensors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    swaps(200)
    assert tensors() <= count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak <= 16 * 1024


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Eight outlined pictures with captions."""
    from models.embedded.outlines import write_examples

    write_examples(tmp_path / "few", 8)
    return tmp_path / "few"


def test_a_training_that_was_ended_comes_to_the_same_weights(few: Path, tmp_path: Path) -> None:
    """Six steps at once, and two that are resumed up to six, give the same file and the same loss; other settings and
    other pictures are refused, another style in the same folder is another run, and tuning is left to serving."""
    from models.styles.pictures import examples
    from models.styles.training import Recipe, train_lora
    from router.errors import RequestError

    card, pictures, recipe = load_card("embedded/sd15"), examples(few), Recipe(rank=2, steps=6, batch=2)

    class EndedError(Exception):
        pass

    def end(step: int, loss: float) -> None:
        if step == 3:
            raise EndedError

    import models.styles.training as training

    whole = train_lora(card, pictures, tmp_path / "whole", "mine", recipe)
    usual, training.SAVE_EVERY_S = training.SAVE_EVERY_S, 0.0
    try:
        with pytest.raises(EndedError):
            train_lora(card, pictures, tmp_path / "parts", "mine", recipe, on_step=end)
    finally:
        training.SAVE_EVERY_S = usual
    seen: list[int] = []
    tuned = replace(card, tuning={"quantize": "int8"})  # is for serving, and a training goes on without
    parts = train_lora(tuned, pictures, tmp_path / "parts", "mine", recipe, on_step=lambda step, _: seen.append(step))
    assert seen[0] in (3, 4) and seen[-1] == 6
    one, other = load_file(whole.path), load_file(parts.path)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert train_lora(card, pictures, tmp_path / "parts", "mine", recipe).loss == parts.loss == whole.loss > 0
    with pytest.raises(RequestError, match="another recipe"):
        train_lora(card, pictures, tmp_path / "parts", "mine", replace(recipe, rank=4))
    dotted = train_lora(card, pictures, tmp_path / "parts", "my.own", replace(recipe, rank=4, steps=1))
    assert (dotted.step, dotted.path.name) == (1, "my.own.safetensors")
    middle = pictures[len(pictures) // 2].path
    middle.write_bytes(pictures[0].path.read_bytes())
    with pytest.raises(RequestError, match="another pictures"):
        train_lora(card, pictures, tmp_path / "parts", "mine", recipe)


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_other_backbones_are_trained_and_worn(
    engine: Callable[[str], Engine], few: Path, tmp_path: Path, model: str
) -> None:
    """The same training runs on SDXL and FLUX, and what it writes is worn by them."""
    from models.styles.pictures import examples
    from models.styles.training import Recipe, train_lora

    card = engine(model).card
    made = train_lora(card, examples(few), tmp_path, "mine", Recipe(rank=2, steps=3, batch=2, rate=0.1))
    style = Style("mine", card.family, "lora", {"file": str(made.path)})
    pipe = engine(model)._pipe  # type: ignore[attr-defined]
    step = Step("made", "generate", card.id, (), "image", {"prompt": "red dot", "seed": 1})
    before = engine(model).run(step).value
    with styled(pipe, [(style, 1.0)]):
        worn = engine(model).run(step).value
    assert isinstance(before, Picture) and isinstance(worn, Picture)
    assert not np.array_equal(before.pixels, worn.pixels)


def test_a_picture_without_caption_is_named(few: Path) -> None:
    """A folder in which one picture has no caption is refused with that picture's name; metadata may have it, too."""
    from models.provenance.files import encode_image
    from models.styles.pictures import examples
    from router.errors import RequestError

    (few / "00003.txt").unlink()
    with pytest.raises(RequestError, match=r"00003.png has no caption"):
        examples(few)
    picture = encode_image(np.zeros((64, 64, 3), np.uint8), metadata={"prompt": "nothing"})
    (few / "00003.png").write_bytes(picture)
    assert examples(few)[3].caption == "nothing"
