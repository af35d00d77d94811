"""Tuning: what changes a picture is said, what changes none changes nothing, and what cannot be done is refused."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models import Engine, load_engine
from models.catalogue import load_catalogue
from models.engine.diffusion import DiffusionEngine
from models.profiling.phases import Clock
from models.tuning import applying
from models.tuning.settings import Tuning
from models.weights.loading import place
from models.weights.needs import memory
from models.weights.needs.memory import estimate_memory_gb, held_bytes, working_bytes
from models.weights.sharing import SharedNetworks
from router.errors import CatalogueError, LoadError, StepError
from router.types import ModelCard, Picture, Step, StepResult

SETTINGS = {"prompt": "a red circle", "seed": 7, "width": 32, "height": 32, "steps": 4}


def tuned(card: ModelCard, **keys: Any) -> ModelCard:
    """The card as a catalogue makes it of `tuning: {keys}`."""
    tuning = Tuning.model_validate(keys)
    return replace(card, tuning=tuning.said(), tuned=tuning.tuned, changes=tuning.changes)


def draw(engine: Engine, **settings: Any) -> StepResult:
    return engine.run(Step("1", "generate", engine.card.id, (), "image", {**SETTINGS, **settings}))


def pixels(result: StepResult) -> np.ndarray:
    assert isinstance(result.value, Picture)
    return result.value.pixels.astype(int)


def refine(engine: Engine, picture: np.ndarray) -> StepResult:
    settings = {**SETTINGS, "strength": 0.75}
    step = Step("2", "refine", engine.card.id, ("1",), "image", settings)
    return engine.run(step, (Picture(picture.astype(np.uint8)),))


CLOSE: list[tuple[str, dict[str, Any]]] = [
    ("sd15", {"channels_last": True, "vae_slicing": True, "attention": "sdpa"}),
    ("flux", {"attention": "_native_math"}),
    ("qwen-image", {"attention": "sdpa", "channels_last": True}),
]
CHANGING: list[tuple[str, dict[str, Any]]] = [
    ("flux", {"cache": {"first_block": 0.9}}),
    ("flux", {"cache": {"taylorseer": {"every": 2, "after": 1}}}),
    ("flux-dev", {"cache": {"faster": {"every": 2, "below": 1000}}}),
    ("qwen-image", {"cache": {"taylorseer": {"every": 2, "after": 1}}}),
    ("sdxl", {"quantize": "int8"}),
    ("flux", {"quantize": "int8"}),
    ("flux", {"quantize": "fp8"}),
    ("sd15", {"vae_tiling": 32}),
]


@pytest.mark.parametrize(("name", "keys"), CLOSE)
def test_what_only_rounds_otherwise_draws_the_same_picture(cards: dict[str, ModelCard], name: str, keys: Any) -> None:
    """Memory layout, slices and exact kernels change a picture by two levels of 255 at most, and no revision."""
    plain, other = load_engine(cards[name], threads=1), load_engine(tuned(cards[name], **keys), threads=1)
    one, two = draw(plain), draw(other)
    assert np.abs(pixels(one) - pixels(two)).max() <= 2
    assert other.revision == plain.revision
    assert two.facts["tuning"] == other.card.tuned and "tuning" not in one.facts


@pytest.mark.parametrize(("name", "keys"), CHANGING)
def test_what_changes_pictures_is_part_of_the_revision(cards: dict[str, ModelCard], name: str, keys: Any) -> None:
    """A cache, fewer bits and tiles draw another picture, the same one each time, under a revision of its own."""
    plain, other = load_engine(cards[name], threads=1), load_engine(tuned(cards[name], **keys), threads=1)
    size = {"width": 64, "height": 64} if "vae_tiling" in keys else {}
    one, two = draw(plain, **size), draw(other, **size)
    assert (pixels(one) != pixels(two)).any()
    assert (pixels(draw(other, **size)) == pixels(two)).all()
    assert other.revision == f"{plain.revision}+{other.card.changes}" == two.facts["revision"]
    if other.card.refines:
        again = pixels(refine(other, pixels(one)))
        assert (pixels(refine(other, pixels(one))) == again).all()
        assert (pixels(draw(other, **size)) == pixels(two)).all()


def test_pictures_of_one_call_do_not_decide_for_each_other_what_a_cache_skips(cards: dict[str, ModelCard]) -> None:
    """With a cache that looks at what it skips, a batch gives the bytes that its pictures have alone."""
    engine = load_engine(tuned(cards["flux"], cache={"first_block": 0.9}), threads=1)
    steps = [Step(str(n), "generate", "flux", (), "image", {**SETTINGS, "seed": n}) for n in range(3)]
    alone = [pixels(engine.run(step)) for step in steps]
    for one, other in zip(alone, engine.run_batch(steps, [()] * 3), strict=True):
        assert isinstance(other, StepResult) and (pixels(other) == one).all()


def test_a_step_that_fails_leaves_nothing_in_a_cache(cards: dict[str, ModelCard], monkeypatch: Any) -> None:
    """After a failure in mid-step, the next picture is that of before."""
    engine = load_engine(tuned(cards["flux"], cache={"first_block": 0.9}), threads=1)
    assert isinstance(engine, DiffusionEngine)
    before = pixels(draw(engine))
    with monkeypatch.context() as patch:
        patch.setattr(engine._pipe.transformer.norm_out, "forward", lambda *_: 1 / 0)
        with pytest.raises(StepError, match="ZeroDivisionError"):
            draw(engine, prompt="another")
    assert (pixels(draw(engine)) == before).all()


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("flux", {"attention": "flash"}, "tuning.attention: flash needs a CUDA device"),
        ("sd15", {"attention": "_native_math"}, "is for transformers; U-Nets of diffusers take sdpa or xformers"),
        ("sd15", {"attention": "xformers"}, "xformers needs a CUDA device"),
        ("sd15", {"cache": {"first_block": 0.1}}, "no caches for UNet2DConditionModel"),
        ("sd3", {"cache": {"first_block": 0.1}}, "no caches for SD3Transformer2DModel"),
        ("flux", {"cache": {"faster": {}}}, "faster counts one pass a step"),
        ("qwen-image", {"cache": {"first_block": 0.1}}, "first_block does not fit QwenImageTransformer2DModel"),
        ("flux", {"offload": "model"}, "tuning.offload: layers wait"),
        ("flux", {"quantize": "nf4"}, "nf4 needs a CUDA device"),
    ],
)
def test_what_cannot_be_done_is_refused(cards: dict[str, ModelCard], name: str, keys: Any, words: str) -> None:
    """What the device, the family or the machine lacks ends the load, with key, reason and remedy."""
    with pytest.raises(LoadError, match=r"model .*tuning\.") as refused:
        load_engine(tuned(cards[name], **keys), threads=1)
    assert words in refused.value.message


def test_without_a_compiler_nothing_is_compiled(cards: dict[str, ModelCard], monkeypatch: Any) -> None:
    """`compile` without a C++ compiler is refused before a weight is read, with what to install."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(LoadError, match=r"tuning\.compile: .*there is no g\+\+.*install g\+\+"):
        applying.check(tuned(cards["sd15"], compile="regional"), "cpu")
    monkeypatch.setattr(applying, "_installed", lambda package: False)
    for keys, words in (
        ({"quantize": "int8"}, "torchao"),
        ({"quantize": "nf4"}, "bitsandbytes"),
        ({"compile": "full"}, "triton"),
    ):
        with pytest.raises(LoadError, match=f"pip install {words}"):
            applying.check(tuned(cards["sd15"], **keys), "cuda:0")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("sd15", "regional"), ("flux", "full")])
def test_a_compiled_network_draws_the_same_picture(cards: dict[str, ModelCard], name: str, kind: str) -> None:
    """Compiled, as a whole or block by block, a picture is the same but for rounding, also refined and in windows."""
    plain, other = load_engine(cards[name], threads=1), load_engine(tuned(cards[name], compile=kind), threads=1)
    one = pixels(draw(plain))
    assert np.abs(pixels(draw(other)) - one).max() <= 2
    assert np.abs(pixels(refine(other, one)) - pixels(refine(plain, one))).max() <= 2
    if name == "sd15":
        tiles = {"width": 64, "height": 32, "tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 3}
        assert np.abs(pixels(draw(other, **tiles)) - pixels(draw(plain, **tiles))).max() <= 2


def test_models_share_a_network_only_if_it_is_tuned_alike(cards: dict[str, ModelCard]) -> None:
    """Of two models of the same weights, one of them tuned, text encoders are shared and the network is not."""
    networks = SharedNetworks()
    plain = load_engine(cards["sd15"], threads=1, networks=networks)
    other = load_engine(tuned(cards["sd15"], quantize="int8"), threads=1, networks=networks)
    same = load_engine(tuned(cards["sd15"], quantize="int8"), threads=1, networks=networks)
    assert isinstance(plain, DiffusionEngine) and isinstance(other, DiffusionEngine)
    assert isinstance(same, DiffusionEngine)
    assert plain._pipe.unet is not other._pipe.unet and same._pipe.unet is other._pipe.unet
    assert plain._pipe.text_encoder is other._pipe.text_encoder
    assert (pixels(draw(same)) == pixels(draw(other))).all()


def test_a_worker_draws_the_shapes_that_it_is_told_before_it_is_ready(cards: dict[str, ModelCard]) -> None:
    """`shapes` are drawn by the warm-up, each once."""
    engine = load_engine(tuned(cards["sd15"], shapes=["32x64", "64x32"]), threads=1)
    drawn: list[Any] = []
    run = engine.run
    engine.run = lambda step, inputs=(): drawn.append(step.settings) or run(step, inputs)  # type: ignore
    engine.warm_up()
    assert [(settings["width"], settings["height"]) for settings in drawn] == [(32, 64), (64, 32)]


def test_memory_is_counted_as_it_is_tuned(cards: dict[str, ModelCard]) -> None:
    """Fewer bits, offloading and tiles lower the estimate; offloaded networks count one at a time."""
    card = cards["flux"]
    plain = held_bytes(card, 4)
    assert held_bytes(tuned(card, quantize="fp8"), 4)["transformer"] == plain["transformer"] / 4
    assert plain["transformer"] / 4 < held_bytes(tuned(card, quantize="int8"), 4)["transformer"] < plain["transformer"]
    assert held_bytes(tuned(card, offload="model"), 4) == {}
    whole, layers = (working_bytes(tuned(card, offload=kind), 4) for kind in ("model", "group"))
    assert max(plain.values()) <= whole <= sum(plain.values()) + working_bytes(card, 4)
    assert working_bytes(card, 4) < layers
    assert estimate_memory_gb(tuned(card, vae_tiling=16)) < estimate_memory_gb(card)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"compil": "full"}, "unknown key 'compil'; did you mean 'compile'?"),
        ({"cache": {"first_block": 0.1, "faster": {}}}, "exactly one of"),
        ({"cache": {}}, "exactly one of"),
        ({"cache": {"taylorseer": {"evry": 2}}}, "did you mean 'every'"),
        ({"shapes": ["64"]}, "write WIDTHxHEIGHT"),
        ({"attention": "flash_hub"}, "Input should be"),
        ({"vae_tiling": 7}, "neither true nor the side of a tile"),
        ({"vae_tiling": "large"}, "neither true nor the side of a tile"),
    ],
)
def test_what_may_be_said_is_checked(keys: Any, words: str) -> None:
    """Unknown keys, two caches, sizes that are none and kernels from a hub are refused in words."""
    with pytest.raises(ValidationError) as refused:
        Tuning.model_validate(keys)
    assert words in str(refused.value)


def test_tuning_comes_back_as_it_was_said() -> None:
    """A tuning can be made again of what it says, and says of itself what matters to seconds and to pictures."""
    said = {"compile": "full", "cache": {"taylorseer": {"every": 5}}, "quantize": "int8", "shapes": ["64x64"]}
    tuning = Tuning.model_validate(said)
    assert Tuning.model_validate(tuning.said()) == tuning
    assert tuning.tuned == "cache.taylorseer.every=5,compile=full,quantize=int8"
    assert tuning.changes == "cache.taylorseer.every=5,quantize=int8"
    assert Tuning(attention="sage").changes == "attention=sage" and Tuning(attention="flash").changes == ""
    assert Tuning(vae_tiling=False).said() == {} == Tuning().said()


def test_the_catalogue_tunes_cards_by_name() -> None:
    """A catalogue takes tuning beside a card, names a wrong key with its path, and refuses to tune a scorer."""
    made = load_catalogue({"flux": {"card": "embedded/flux", "tuning": {"cache": {"first_block": 0.1}}}})
    assert made["flux"].changes == "cache.first_block=0.1"
    with pytest.raises(CatalogueError, match=r"model 'flux': tuning\.cache\.first_block: Input should be"):
        load_catalogue({"flux": {"card": "embedded/flux", "tuning": {"cache": {"first_block": 7}}}})
    with pytest.raises(CatalogueError, match="this one scores"):
        load_catalogue({"judge": {"card": "embedded/alignment", "tuning": {"channels_last": True}}})


def test_a_model_that_is_drawn_elsewhere_is_not_tuned_here(tmp_path: Path) -> None:
    """Tuning of a remote card would change nothing, so it is refused, with the place where it belongs."""
    card = tmp_path / "away.yaml"
    card.write_text(
        "id: away\nfamily: remote\nrole: base\nnative_size: [64, 64]\nseconds_per_step: 0.01\n"
        "source: {remote: {url: 'http://127.0.0.1:9/v1', model: m}}\n"
    )
    assert load_catalogue({"away": {"card": card, "tuning": {}}})["away"].tuning == {}
    with pytest.raises(CatalogueError, match=r"model 'away': tuning .* drawn by 127.*tune it there"):
        load_catalogue({"away": {"card": card, "tuning": {"compile": "full"}}})


def test_a_device_has_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the second GPU of a process, moments are of that GPU's stream, not of the first one's."""
    recorded = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any = None) -> None:
            recorded.append(stream)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: device)
    Clock("cuda:1").mark()
    assert recorded == [torch.device("cuda:1")]


def test_what_is_on_the_device_already_is_not_counted_twice(
    cards: dict[str, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that was read onto the device, as in 4 bits, needs no further room when the rest follows it."""
    card, sizes = cards["sdxl"], held_bytes(cards["sdxl"], 4)
    unet = torch.nn.Linear(2, 2, device="meta")
    pipe = SimpleNamespace(components={"unet": unet, "tokenizer": object()}, to=lambda device: "placed")
    room = estimate_memory_gb(card, "float32", ["unet"]) + memory.RESERVE_GB
    monkeypatch.setattr(memory, "free_memory_gb", lambda device: room + sizes["unet"] / 2e9)
    assert place(card, pipe, "meta", torch.float32) == "placed"
    pipe.components["unet"] = torch.nn.Linear(2, 2)
    with pytest.raises(LoadError, match="needs about"):
        place(card, pipe, "meta", torch.float32)


def test_tiles_of_one_picture_are_not_those_of_another(cards: dict[str, ModelCard], monkeypatch: Any) -> None:
    """While a picture is decoded in tiles, one of another size that comes meanwhile waits, and is decoded whole."""
    engine = load_engine(cards["sd15"], threads=1)
    assert isinstance(engine, DiffusionEngine)
    vae, small = engine._pipe.vae, pixels(draw(engine))
    usual, seen = vae.decode, []
    engine._smaller._tiled.add((64, 64))
    with ThreadPoolExecutor(1) as pool:
        meanwhile: list[Future[StepResult]] = []

        def decode(*args: Any, **kwargs: Any) -> Any:
            if not meanwhile:
                meanwhile.append(pool.submit(draw, engine))
                time.sleep(0.05)
            seen.append(vae.use_tiling)
            return usual(*args, **kwargs)

        monkeypatch.setattr(vae, "decode", decode)
        assert draw(engine, width=64, height=64).facts["decoded_in_tiles"] == 32
        whole = meanwhile[0].result()
    assert seen == [True, False]
    assert (pixels(whole) == small).all() and "decoded_in_tiles" not in whole.facts


def test_what_runs_out_of_memory_is_decoded_in_tiles(cards: dict[str, ModelCard], monkeypatch: Any) -> None:
    """The first picture of a size that does not fit is tried again in tiles, the next ones are so at once, and others
    are drawn whole; the VAE is left as it was."""
    engine = load_engine(cards["sd15"], threads=1)
    assert isinstance(engine, DiffusionEngine)
    small, decoder = pixels(draw(engine)), engine._pipe.vae.decoder
    usual, tries = decoder.forward, []

    def forward(sample: Any, *args: Any, **kwargs: Any) -> Any:
        tries.append(tuple(sample.shape[2:]))
        if max(sample.shape[2:]) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(sample, *args, **kwargs)

    monkeypatch.setattr(decoder, "forward", forward)
    made = draw(engine, width=64, height=64)
    assert made.facts["decoded_in_tiles"] == 32 and pixels(made).shape == (64, 64, 3)
    assert tries[0] == (32, 32) and len(tries) > 4
    tries.clear()
    assert (pixels(draw(engine, width=64, height=64)) == pixels(made)).all()
    assert (32, 32) not in tries
    whole = draw(engine)
    assert (pixels(whole) == small).all() and "decoded_in_tiles" not in whole.facts
    assert not engine._pipe.vae.use_tiling


def test_what_is_too_large_in_tiles_too_fails_once(cards: dict[str, ModelCard], monkeypatch: Any) -> None:
    """A network that runs out of memory in any case is tried twice, and the step fails in words."""
    engine = load_engine(cards["sd15"], threads=1)
    assert isinstance(engine, DiffusionEngine)
    tries = []

    def forward(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine._pipe.unet, "forward", forward)
    with pytest.raises(StepError, match="ask for a smaller size"):
        draw(engine)
    assert len(tries) == 2
