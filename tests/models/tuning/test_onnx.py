"""Exported models: the same pictures as torch's, the same behaviour around them, and what they cannot do is refused."""

from __future__ import annotations

import gc
import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import Cancelled, Engine, load_card, load_engine
from models.catalogue import load_catalogue
from models.engine.device import free
from models.exporting.export import export, smaller
from models.exporting.statistics import statistics
from models.onnx.folder import precision_of
from models.onnx.sessions import provider_of
from models.tuning.settings import Tuning
from models.weights.needs.memory import estimate_memory_gb
from router.errors import CatalogueError, LoadError, PlanError, RequestError, StepError
from router.planning.styles import worn
from router.types import Generate, GenerationRequest, ModelCard, Picture, Progress, Step, Style, Value

Engines = Callable[[str], Engine]
CLOSE = 2
"""Levels of 255 that rounding may change."""


@pytest.fixture(scope="session")
def exported(cards: dict[str, ModelCard], tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """The tiny SD1.5 as graphs."""
    return _exported(cards["sd15"], tmp_path_factory.mktemp("onnx") / "sd15")


@pytest.fixture(scope="session")
def graphs(exported: ModelCard) -> Engine:
    return load_engine(exported, threads=1)


def _exported(card: ModelCard, folder: Path, precision: str = "fp32") -> ModelCard:
    export(card, folder, precision)
    return _from(card, folder)


def _from(card: ModelCard, folder: Path) -> ModelCard:
    return replace(card, source={"onnx": str(folder)})


def generate(**settings: Any) -> Step:
    return Step("made", "generate", "sd15", (), "image", {"prompt": "red dot", "seed": 1, **settings})


def pixels(engine: Engine, step: Step, *inputs: Value) -> np.ndarray:
    value = engine.run(step, inputs).value
    assert isinstance(value, Picture)
    return value.pixels.astype(int)


@pytest.mark.parametrize(
    "settings",
    [{}, {"width": 48, "height": 32, "negative_prompt": "blue"}, {"guidance_scale": 1.0, "scheduler": "dpmsolver++"}],
)
def test_a_graph_draws_what_torch_draws(engine: Engines, graphs: Engine, settings: dict[str, Any]) -> None:
    """At the same seed, an exported model's picture is torch's up to two levels of 255, at other sizes, with other
    schedulers and without guidance, too; and a refined one as well."""
    step = generate(**settings)
    made = pixels(graphs, step)
    assert np.abs(made - pixels(engine("sd15"), step)).max() <= CLOSE
    assert made.std() > 1
    refine = Step("refined", "refine", "sd15", ("made",), "image", {**step.settings, "strength": 0.5})
    picture = Picture(made.astype(np.uint8))
    assert np.abs(pixels(graphs, refine, picture) - pixels(engine("sd15"), refine, picture)).max() <= CLOSE


def test_a_seed_decides_the_bytes_of_a_graph_alone_and_in_a_batch(graphs: Engine) -> None:
    """What ran in between changes nothing, and each picture of a batch has its own seed."""
    steps = [generate(seed=seed) for seed in (1, 2, 3)]
    alone = [pixels(graphs, step) for step in steps]
    together = graphs.run_batch(steps, [()] * 3)
    assert np.array_equal(alone[0], pixels(graphs, steps[0]))
    for one, result in zip(alone, together, strict=True):
        assert isinstance(result.value, Picture)
        assert np.abs(one - result.value.pixels).max() <= CLOSE
    assert np.abs(alone[0] - alone[1]).max() > CLOSE


def test_a_graph_tells_how_far_it_is_and_stops_within_a_step(graphs: Engine) -> None:
    """Progress, previews and cancelling are those of every pipeline."""
    seen: list[Progress] = []
    graphs.run(generate(steps=8, scheduler="ddim"), on_progress=seen.append)
    assert [one.done for one in seen] == list(range(1, 9))
    assert any(one.preview is not None for one in seen)
    with pytest.raises(Cancelled, match="after 3"):
        graphs.run(generate(steps=8), on_progress=seen.append, should_stop=lambda: seen[-1].done == 2)


def test_windows_and_tiles_go_around_a_graph(engine: Engines, exported: ModelCard) -> None:
    """A large picture in windows, decoded in tiles, is torch's, too: what cuts it up stays diffusers' own."""
    card = replace(exported, tuning=Tuning.model_validate({"vae_tiling": 16}).said(), max_pixels=64 * 64)
    tiles = {"tile_width": 32, "tile_height": 32, "tile_overlap": 16, "tiles": 6}
    step = generate(width=64, height=48, **tiles)
    made = pixels(load_engine(card, threads=1), step)
    torch_card = replace(card, source=engine("sd15").card.source)
    assert np.abs(made - pixels(load_engine(torch_card, threads=1), step)).max() <= CLOSE


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"compile": "regional"}, "compiled when it is loaded"),
        ({"compile": "tensorrt"}, "TensorRT needs a CUDA device"),
        ({"quantize": "int8"}, "--precision int8"),
        ({"channels_last": True}, "leave it out"),
        ({"attention": "sdpa"}, "leave it out"),
        ({"offload": "model"}, "leave it out"),
    ],
)
def test_tuning_that_a_graph_cannot_follow_is_refused(exported: ModelCard, keys: dict[str, Any], words: str) -> None:
    """Nothing that is asked of an exported model is ignored."""
    tuning = Tuning.model_validate(keys)
    with pytest.raises(LoadError, match=words):
        load_engine(replace(exported, tuning=tuning.said(), tuned=tuning.tuned))


def test_tensorrt_is_for_graphs(cards: dict[str, ModelCard]) -> None:
    """A model of torch that asks for TensorRT is told how to get graphs."""
    with pytest.raises(LoadError, match="triptych models export"):
        load_engine(replace(cards["sd15"], tuning={"compile": "tensorrt"}))


def test_a_provider_that_is_not_there_is_refused() -> None:
    """Without the CUDA build of ONNX Runtime, a GPU is not replaced by the CPU in silence."""
    with pytest.raises(LoadError, match="onnxruntime-gpu"):
        provider_of("cuda:0", tensorrt=False)


def test_a_dtype_that_the_graphs_do_not_have_is_refused(exported: ModelCard) -> None:
    """What the graphs compute in was decided when they were written."""
    with pytest.raises(LoadError, match="compute in fp32"):
        load_engine(exported, dtype="float16")


def _swapped(folder: Path) -> None:
    decoder, encoder = (folder / "vae" / name / "model.onnx" for name in ("vae_decoder", "vae_encoder"))
    shutil.copy(encoder, decoder)


def _unsaid(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    del index["_onnx"]
    (folder / "model_index.json").write_text(json.dumps(index))


def _outside(folder: Path) -> None:
    """A graph whose weights are said to lie in a file above its folder."""
    import onnx

    (folder.parent / "secret.bin").write_bytes(bytes(2**20))
    file = folder / "unet" / "model.onnx"
    model = onnx.load(str(file))
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    onnx.external_data_helper.set_external_data(tensor, location="../../secret.bin", length=len(tensor.raw_data))
    tensor.ClearField("raw_data")
    file.write_bytes(model.SerializeToString())


def _code(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["evil", "UNet"]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "unet" / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda folder: (folder / "unet" / "model.onnx").write_bytes(b"no graph"), "no graph that runs here"),
        (lambda folder: (folder / "unet" / "config.json").unlink(), "config.json is missing"),
        (_swapped, "graph of another network"),
        (_unsaid, "was not written by `triptych models export`"),
        (_outside, "no graph that runs here"),
        (_code, "wants code from 'evil'"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_a_spoilt_folder_is_refused_by_name(
    exported: ModelCard, tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    """A folder that is not whole, is of something else, or points outside of itself does not load."""
    folder = tmp_path / "graphs" / "sd15"
    shutil.copytree(str(exported.source["onnx"]), folder)
    spoil(folder)
    with pytest.raises(LoadError, match=words) as raised:
        load_engine(_from(exported, folder))
    assert "sd15" in raised.value.message


def test_what_is_inside_a_graph_is_not_restyled(exported: ModelCard) -> None:
    """A LoRA or FreeU would have no effect on an exported network, so such a plan is refused; others are worn."""
    lora = Style("film", "sd15", "lora", {"file": "film.safetensors"})
    calm = Style("calm", "sd15", "guidance_rescale", {}, settings={"rescale": 0.5})
    card = replace(exported, styles={"film": lora, "calm": calm})
    request = GenerationRequest("a red dot")
    with pytest.raises(PlanError, match="exported graphs"):
        worn(Generate("sd15", style=(("film", 1.0),)), request, card, [])
    assert worn(Generate("sd15", style=(("calm", 1.0),)), request, card, []) == (("calm", 1.0),)


def test_an_input_that_a_graph_does_not_have_is_refused(graphs: Engine) -> None:
    """Residuals of a ControlNet, say, are not dropped in silence."""
    network = graphs._pipe.unet  # type: ignore[attr-defined]
    sample, states = torch.zeros(1, 4, 16, 16), torch.zeros(1, 16, network.config.cross_attention_dim)
    with pytest.raises(StepError, match="mid_block_additional_residual"):
        network(sample, 1, states, mid_block_additional_residual=sample)


def test_graphs_have_a_revision_and_a_size(exported: ModelCard, graphs: Engine, cards: dict[str, ModelCard]) -> None:
    """They are known by a digest of their own, and their memory is counted from their files."""
    assert graphs.revision.startswith("sha256:")
    assert graphs.revision != load_engine(cards["sd15"]).revision
    files = sum(file.stat().st_size for file in Path(str(exported.source["onnx"])).rglob("model.onnx")) / 1e9
    assert files < estimate_memory_gb(exported, "float32") < files + estimate_memory_gb(cards["sd15"], "float32")


def test_eight_bits_are_smaller_and_near(exported: ModelCard, graphs: Engine, tmp_path: Path) -> None:
    """A network in 8 bits is smaller, and draws nearly the same, but not the same."""
    exact, folder = Path(str(exported.source["onnx"])), tmp_path / "int8"
    smaller(exported, exact, folder)
    assert precision_of(folder) == "int8"
    file = folder / "unet" / "model.onnx"
    assert statistics(file).operators["MatMulInteger"] > 0
    assert [one.name for one in file.parent.iterdir() if one.name != "config.json"] == ["model.onnx"]
    assert file.stat().st_size < (exact / "unet" / "model.onnx").stat().st_size
    apart = np.abs(pixels(load_engine(_from(exported, folder), threads=1), generate()) - pixels(graphs, generate()))
    assert 0 < apart.mean() < 10


@pytest.mark.parametrize(
    ("model", "precision", "words"),
    [("sd3", "fp32", "family 'sd3' is not exported"), ("sd15", "fp8", "no precision 'fp8'")],
)
def test_what_cannot_be_exported_is_said_first(
    cards: dict[str, ModelCard], tmp_path: Path, model: str, precision: str, words: str
) -> None:
    """A family without graphs and an unknown precision are refused before anything is loaded or written."""
    with pytest.raises(RequestError, match=words):
        export(cards[model], tmp_path / "to", precision)
    assert not (tmp_path / "to").exists()


def test_nothing_is_written_over(cards: dict[str, ModelCard], exported: ModelCard, tmp_path: Path) -> None:
    """A folder that holds something is not touched, and graphs are not exported again."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="not an empty folder"):
        export(cards["sd15"], tmp_path)
    with pytest.raises(RequestError, match="exported already"):
        export(exported, tmp_path / "again")


def test_a_card_may_name_graphs(exported: ModelCard) -> None:
    """`source: {onnx: folder}` in an override is all that a serve config needs; other families are refused there."""
    folder = str(exported.source["onnx"])
    card = load_catalogue({"sd15": {"card": "embedded/sd15", "overrides": {"source": {"onnx": folder}}}})["sd15"]
    assert card.source == {"onnx": folder}
    with pytest.raises(CatalogueError, match="not run from 'onnx'"):
        load_card("real/qwen-image", {"source": {"onnx": folder}})


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sd15", "sdxl", "sdxl-turbo", "flux"])
def test_the_embedded_models_draw_the_same_as_graphs(model: str, tmp_path: Path) -> None:
    """Of each embedded family, a picture at equal seed is torch's up to two levels of 255."""
    card = load_card(f"embedded/{model}")
    graphs = load_engine(_exported(card, tmp_path / model), threads=1)
    step = Step("made", "generate", model, (), "image", {"prompt": "a red circle above a blue square", "seed": 5})
    assert np.abs(pixels(graphs, step) - pixels(load_engine(card, threads=1), step)).max() <= CLOSE


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_hundred_loads_and_unloads_of_graphs_leave_no_memory_behind(exported: ModelCard) -> None:
    """Sessions give back what they held."""
    found: list[tuple[int, float]] = []
    for _ in range(110):
        engine = load_engine(exported, threads=1)
        engine.warm_up()
        del engine
        free()
        found.append((sum(isinstance(one, torch.Tensor) for one in gc.get_objects()), resident_mb()))
    (tensors, mb), (tensors_then, mb_then) = found[9], found[-1]
    assert tensors_then <= tensors + 2
    assert mb_then - mb < 60, f"{mb:.0f} MB after ten loads, {mb_then:.0f} after {len(found)}"
