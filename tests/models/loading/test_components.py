"""Components from sources of their own, and files that are not what they should be."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.workers.host import ModelHost
from models import Engine, load_card, load_engine
from models.catalogue import load_catalogue
from models.engine.diffusion import DiffusionEngine
from models.tuning.applying import KEPT_WHOLE
from models.weights.needs.memory import held_bytes
from models.weights.precision import cast
from models.weights.revisions import digest
from models.weights.sharing import SharedNetworks
from router.errors import CatalogueError, LoadError
from router.types import ModelCard, Picture, Step

SETTINGS = {"prompt": "a red circle", "seed": 3, "steps": 2, "width": 32, "height": 32}


def pixels(engine: Engine) -> np.ndarray:
    made = engine.run(Step("1", "generate", engine.card.id, (), "image", dict(SETTINGS))).value
    assert isinstance(made, Picture)
    return made.pixels.astype(int)


def folder_of(card: ModelCard) -> Path:
    return Path(str(card.source["local"]))


@pytest.fixture
def other(cards: dict[str, ModelCard], tmp_path: Path) -> Path:
    """sd15 with a VAE and a text encoder of other numbers."""
    folder = tmp_path / "other"
    shutil.copytree(folder_of(cards["sd15"]), folder)
    for file in (folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "text_encoder" / "model.safetensors"):
        generator = torch.Generator().manual_seed(1)
        weights = {
            name: value + 0.2 * torch.randn(value.shape, generator=generator) for name, value in load_file(file).items()
        }
        save_file(weights, file, {"format": "pt"})
    return folder


def test_a_component_from_elsewhere_draws_as_if_it_were_in_the_folder(cards: dict[str, ModelCard], other: Path) -> None:
    """A VAE and a text encoder by folder, or as single files, give the bytes of a folder that holds them, and the
    revision names each."""
    whole = pixels(load_engine(replace(cards["sd15"], source={"local": str(other)}), threads=1))
    by_folder = {
        "vae": {"local": str(other / "vae")},
        "text_encoder": {"local": str(other), "subfolder": "text_encoder"},
    }
    by_file = {
        "vae": {"file": str(other / "vae" / "diffusion_pytorch_model.safetensors")},
        "text_encoder": {"file": str(other / "text_encoder" / "model.safetensors")},
    }
    plain = load_engine(cards["sd15"], threads=1)
    assert (pixels(plain) != whole).any()
    for components in (by_folder, by_file):
        engine = load_engine(replace(cards["sd15"], components=components), threads=1)
        assert (pixels(engine) == whole).all()
        first, *parts = engine.revision.split("+")
        assert first == plain.revision and [part.partition("=")[0] for part in parts] == ["text_encoder", "vae"]
    assert parts[1] == f"vae={digest(other / 'vae' / 'diffusion_pytorch_model.safetensors')}"


def test_models_of_one_worker_share_a_component_from_elsewhere(cards: dict[str, ModelCard], other: Path) -> None:
    """Two models that take the same VAE from a folder have one module; one that takes its own has another."""
    components = {"vae": {"local": str(other / "vae")}}
    networks = SharedNetworks()
    one, two, own = (
        load_engine(replace(cards["sd15"], id=name, components=parts), threads=1, networks=networks)
        for name, parts in (("one", components), ("two", components), ("own", {}))
    )
    assert isinstance(one, DiffusionEngine) and isinstance(two, DiffusionEngine) and isinstance(own, DiffusionEngine)
    assert one._pipe.vae is two._pipe.vae is not own._pipe.vae
    assert one._pipe.unet is two._pipe.unet is own._pipe.unet


def write_gguf(card: ModelCard, file: Path, architecture: str = "flux", lost: int = 0) -> None:
    """The transformer of a tiny FLUX as GGUF: 8 bits where rows allow it."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(file), architecture)
    weights = load_file(folder_of(card) / "transformer" / "diffusion_pytorch_model.safetensors")
    for name, value in list(weights.items())[lost:]:
        numbers = value.numpy().astype(np.float32)
        if value.dim() == 2 and value.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_transformer_is_read_from_gguf(cards: dict[str, ModelCard], tmp_path: Path) -> None:
    """A denoiser in 8 bits draws nearly the picture of the whole one, takes the memory of its file, and is part of the
    revision."""
    file = tmp_path / "tiny-Q8_0.gguf"
    write_gguf(cards["flux"], file)
    card = replace(cards["flux"], components={"transformer": {"file": str(file)}})
    engine, plain = load_engine(card, threads=1), load_engine(cards["flux"], threads=1)
    apart = np.abs(pixels(engine) - pixels(plain))
    assert apart.max() > 0 and apart.mean() < 3
    assert (pixels(engine) == pixels(engine)).all()
    assert held_bytes(card, 4)["transformer"] == pytest.approx(file.stat().st_size)
    assert "+transformer=sha256:" in engine.revision or engine.revision.count("+") == 1


def test_a_text_encoder_in_fewer_bits_is_part_of_the_revision(cards: dict[str, ModelCard]) -> None:
    """int8 and fp8 of a text encoder alone change the picture, not the network, and say so in the revision."""
    plain = load_engine(cards["flux"], threads=1)
    for kind in ("int8", "fp8"):
        card = replace(cards["flux"], components={"text_encoder_2": {"quantize": kind}})
        engine = load_engine(card, threads=1)
        assert isinstance(engine, DiffusionEngine)
        made = pixels(engine)
        assert (made == pixels(engine)).all() and np.abs(made - pixels(plain)).mean() < 20
        assert engine.revision == f"{plain.revision}+text_encoder_2={kind}"
        dtypes = {parameter.dtype for parameter in engine._pipe.text_encoder_2.parameters()}
        assert (torch.float8_e4m3fn in dtypes) == (kind == "fp8")
        assert held_bytes(card, 4)["text_encoder_2"] < held_bytes(cards["flux"], 4)["text_encoder_2"]
        assert held_bytes(card, 4)["transformer"] == held_bytes(cards["flux"], 4)["transformer"]
    assert KEPT_WHOLE


def test_a_component_of_another_precision_is_entered_by_casts() -> None:
    """What goes into it is cast to its own precision and what comes out to that around it, nested values included."""
    inner = torch.nn.Linear(4, 4).to(torch.float64)
    cast(inner, torch.float64, torch.float32)
    assert inner(torch.ones(2, 4, dtype=torch.float32)).dtype == torch.float32

    class Vae(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = torch.nn.Linear(4, 2), torch.nn.Linear(2, 4)

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.decoder(latents)
            return out

    vae = Vae().to(torch.float64)
    cast(vae, torch.float64, torch.float32)
    assert vae.decode(torch.ones(1, 2)).dtype == torch.float32


Damage = Callable[[Path, Path], dict[str, Any]]
"""(a copy of sd15, a folder to write to) to what of the card differs."""


def cut(folder: Path, _: Path) -> dict[str, Any]:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return {}


def pickled_file(folder: Path, _: Path) -> dict[str, Any]:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    return {}


def zipped_pickle(folder: Path, _: Path) -> dict[str, Any]:
    torch.save({"a": torch.ones(1)}, folder / "vae" / "diffusion_pytorch_model.safetensors")
    return {}


def only_pickles(folder: Path, _: Path) -> dict[str, Any]:
    file = folder / "text_encoder" / "model.safetensors"
    file.rename(file.with_name("pytorch_model.bin"))
    return {}


def other_family(folder: Path, _: Path) -> dict[str, Any]:
    return {"family": "sdxl"}


def no_tokenizer(folder: Path, _: Path) -> dict[str, Any]:
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    return {}


def shard_outside(folder: Path, _: Path) -> dict[str, Any]:
    index = {"weight_map": {"a": "../../secret.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return {}


def gguf_of_another(folder: Path, scratch: Path) -> dict[str, Any]:
    (scratch / "flux.gguf").write_bytes(b"GGUF")
    return {"components": {"unet": {"file": str(scratch / "flux.gguf")}}}


def no_gguf(folder: Path, scratch: Path) -> dict[str, Any]:
    (scratch / "unet.gguf").write_bytes(b"something else")
    return {"components": {"unet": {"file": str(scratch / "unet.gguf")}}}


def unknown_component(folder: Path, scratch: Path) -> dict[str, Any]:
    return {"components": {"vea": {"local": str(folder / "vae")}}}


def component_of_another(folder: Path, scratch: Path) -> dict[str, Any]:
    file = scratch / "vae.safetensors"
    save_file({"decoder.conv_in.bias": torch.zeros(8)}, file)
    return {"components": {"vae": {"file": str(file)}}}


def damaged_configuration(folder: Path, scratch: Path) -> dict[str, Any]:
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "block_out_channels": [8]}))
    return {}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "it is cut off: "),
        (pickled_file, "is a pickle, which may run code"),
        (zipped_pickle, "is a pickle, which may run code"),
        (only_pickles, r"there is pytorch_model\.bin, which is a pickle"),
        (other_family, "holds a StableDiffusionPipeline, which is of family 'sd15', and the card is of family 'sdxl'"),
        (no_tokenizer, r"tokenizer has no vocabulary \(tokenizer\.json"),
        (shard_outside, r"names '\.\./\.\./secret\.safetensors', outside of its folder"),
        (gguf_of_another, r"flux\.gguf cannot be read as GGUF"),
        (no_gguf, r"unet\.gguf is no GGUF file"),
        (unknown_component, "StableDiffusionPipeline has no 'vea'; did you mean 'vae'"),
        (component_of_another, "is of another model: it lacks"),
        (damaged_configuration, "its configuration describes no sd15 model"),
    ],
)
async def test_bad_weights_are_refused_by_name_and_the_worker_stays_up(
    cards: dict[str, ModelCard], tmp_path: Path, damage: Damage, words: str
) -> None:
    """What is wrong with the files of one model is its status, in one line, and the other model of the worker draws."""
    folder = tmp_path / "broken"
    shutil.copytree(folder_of(cards["sd15"]), folder)
    broken = replace(cards["sd15"], id="broken", source={"local": str(folder)}, **damage(folder, tmp_path))
    host = ModelHost({"broken": lambda: load_engine(broken, threads=1), "sd15": lambda: load_engine(cards["sd15"])})
    with pytest.raises(LoadError, match=words) as refused:
        load_engine(broken, threads=1)
    assert "\n" not in refused.value.message and "broken" in refused.value.message
    host.load()
    states = {model: status.state for model, status in host.statuses().items()}
    assert states == {"broken": "failed", "sd15": "ready"}
    done = await host.run(Step("1", "generate", "sd15", (), "image", dict(SETTINGS)), (), 60.0)
    assert isinstance(done.value, Picture)


def test_a_gguf_of_another_model_is_refused(cards: dict[str, ModelCard], tmp_path: Path) -> None:
    """By the architecture that it names, before a weight is read; and by the weights that it lacks."""
    file = tmp_path / "tiny.gguf"
    card = replace(cards["flux"], components={"transformer": {"file": str(file)}})
    write_gguf(cards["flux"], file, "sdxl")
    with pytest.raises(LoadError, match=r"tiny\.gguf holds a model of 'sdxl', and the card is of family 'flux'"):
        load_engine(card, threads=1)
    write_gguf(cards["flux"], file, "flux", lost=3)  # of those by name
    with pytest.raises(LoadError, match="is of another model: it lacks 3 weights of FluxTransformer2DModel"):
        load_engine(card, threads=1)


@pytest.mark.parametrize(
    ("components", "words"),
    [
        ({"vae": {}}, "give a source of its own"),
        ({"vae": {"hub": "a/b", "local": "c"}}, "give one of hub and local"),
        ({"vae": {"file": "a.ckpt"}}, r"only \.safetensors and \.gguf are read"),
        ({"unet": {"file": "a.gguf", "quantize": "nf4"}}, "is in fewer bits already"),
        ({"vae": {"revision": "main", "dtype": "float32"}}, "'revision' belongs to 'hub' or 'local'"),
        ({"vae": {"hubb": "a/b"}}, "unknown key 'hubb'; did you mean 'hub'"),
        ({"vae": {"hub": "a/b", "dtype": "float8"}}, "dtype"),
    ],
)
def test_what_is_said_of_components_is_checked(components: Any, words: str) -> None:
    """A component without a meaning, with two places or a wrong key is refused with file and key."""
    with pytest.raises(CatalogueError, match=words):
        load_card("real/sdxl", {"components": components})


def test_paths_of_components_start_where_those_of_sources_do(tmp_path: Path) -> None:
    """In a card of one's own they start at its folder; pictures of a model tuned and made of parts cannot both say its
    bits."""
    card = tmp_path / "mine.yaml"
    text = (Path(load_card("real/sdxl").card_path)).read_text(encoding="utf-8")
    card.write_text(text + "components: {vae: {local: fix}, unet: {quantize: fp8}}\n", encoding="utf-8")
    made = load_card(card)
    assert made.components["vae"]["local"] == str(tmp_path / "fix")
    both = load_catalogue({"m": {"card": str(card), "tuning": {"quantize": "int8"}}})["m"]
    from models.tuning.applying import check

    with pytest.raises(LoadError, match=r"tuning\.quantize: the card says of its unet how many bits it has"):
        check(both, "cpu")
