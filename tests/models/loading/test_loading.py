import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import load_card, load_engine
from models.weights.loading import load_pipeline
from models.weights.needs.networks import count_parameters
from models.weights.revisions import digest, revision
from router.errors import LoadError
from router.types import ModelCard, Step


@pytest.fixture
def copy(cards: dict[str, ModelCard], tmp_path: Path) -> Callable[[str], tuple[ModelCard, Path]]:
    """A card over its own copy of a tiny model, to be damaged."""

    def made(name: str) -> tuple[ModelCard, Path]:
        folder = tmp_path / name
        shutil.copytree(str(cards[name].source["local"]), folder)
        return replace(cards[name], source={"local": str(folder)}, card_path="tiny.yaml"), folder

    return made


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("sd15", "unet/diffusion_pytorch_model.safetensors"),
        ("sd15", "text_encoder/model.safetensors"),
        ("sd15", "vae/config.json"),
        ("sdxl", "text_encoder_2/model.safetensors"),
        ("flux", "transformer/diffusion_pytorch_model.safetensors"),
        ("flux", "model_index.json"),
    ],
)
def test_a_missing_file_is_named(copy: Callable[[str], tuple[ModelCard, Path]], model: str, file: str) -> None:
    """A folder without one of its files gives a LoadError with that file's path and what to do."""
    card, folder = copy(model)
    (folder / file).unlink()
    with pytest.raises(LoadError) as caught:
        load_engine(card)
    assert f"{folder / file} is missing; check the folder named by 'source' in tiny.yaml" in str(caught.value)


def test_a_missing_shard_is_named(copy: Callable[[str], tuple[ModelCard, Path]]) -> None:
    """Weights in several files are checked file by file."""
    card, folder = copy("flux")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shard = weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors")
    weights.rename(shard)
    index = {"weight_map": {"a": shard.name, "b": shard.name.replace("00001-of", "00002-of")}}
    weights.with_name(weights.name + ".index.json").write_text(json.dumps(index))
    with pytest.raises(LoadError, match=r"00002-of-00002\.safetensors is missing"):
        load_engine(card)


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", b"\xff" * 64])
def test_damaged_weights_are_a_load_error(copy: Callable[[str], tuple[ModelCard, Path]], damage: bytes) -> None:
    """A truncated or foreign file in place of the weights is refused in one sentence."""
    card, folder = copy("sd15")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(damage)
    with pytest.raises(LoadError, match="cannot load") as caught:
        load_engine(card)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_opened(copy: Callable[[str], tuple[ModelCard, Path]]) -> None:
    """A folder that has .bin files only counts as a folder without weights."""
    card, folder = copy("sd15")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(LoadError, match=r"diffusion_pytorch_model\.safetensors is missing"):
        load_engine(card)


def test_code_from_a_checkpoint_is_refused(copy: Callable[[str], tuple[ModelCard, Path]]) -> None:
    """A model_index.json that names a module of its own is refused, and the module is not imported."""
    card, folder = copy("sd15")
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["evil", "UNet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(LoadError, match="component unet wants code from 'evil'"):
        load_engine(card)


@pytest.mark.parametrize("name", ["real/sdxl", "real/flux-dev", "real/clip-alignment"])
def test_without_network_the_remedy_is_a_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, a hub model that is not in the cache says which command fetches it, and that it is gated if it is."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    card = load_card(name, {"source": {"hub": "nobody/no-such-model", "revision": "v1"}})
    with pytest.raises(LoadError) as caught:
        load_engine(card)
    assert "fetch it with `hf download nobody/no-such-model --revision v1`" in str(caught.value)
    assert "local: <folder>" in str(caught.value)
    assert (
        "accept its licence at https://huggingface.co/nobody/no-such-model and set HF_TOKEN" in str(caught.value)
    ) == card.gated


def test_a_single_file_gives_the_same_picture_as_the_folder(cards: dict[str, ModelCard], tmp_path: Path) -> None:
    """A checkpoint as one safetensors file in the original naming loads through the same card, offline."""
    from tests.models.single_file import save_single_file

    folder, path = str(cards["sd15"].source["local"]), tmp_path / "one.safetensors"
    save_single_file(load_pipeline(cards["sd15"]), path)
    card = replace(cards["sd15"], source={"file": str(path), "config": folder})
    step = Step("s", "generate", "sd15", (), "image", {"prompt": "red", "steps": 3})
    made = [load_engine(each).run(step) for each in (card, cards["sd15"])]
    assert np.array_equal(made[0].value.pixels, made[1].value.pixels)  # type: ignore[union-attr]
    assert str(made[0].facts["revision"]).startswith("sha256:")
    with pytest.raises(LoadError, match=r"there is no file .*two\.safetensors"):
        load_engine(replace(card, source={"file": str(tmp_path / "two.safetensors")}))


def test_a_device_that_is_not_there_is_a_load_error(cards: dict[str, ModelCard]) -> None:
    """Asking for a GPU on a machine without one says so."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(LoadError, match="torch sees no GPU"):
        load_engine(cards["sd15"], device="cuda")


def test_unknown_call_settings_are_refused_at_load(cards: dict[str, ModelCard]) -> None:
    """A card whose settings the pipeline does not take fails when it is loaded, not at the first request."""
    with pytest.raises(LoadError, match="settings: no 'clipskip' in StableDiffusionPipeline; did you mean 'clip_skip'"):
        load_engine(replace(cards["sd15"], settings={"clipskip": 1}))


def test_dtype_is_the_cards_unless_on_a_cpu(cards: dict[str, ModelCard]) -> None:
    """Half precision becomes float32 on a CPU, and is used there when it is asked for."""
    card = replace(cards["sdxl"], dtype="float16")
    assert load_pipeline(card).unet.dtype == torch.float32
    assert load_pipeline(card, dtype="bfloat16").unet.dtype == torch.bfloat16
    engine = load_engine(card, dtype="bfloat16")
    result = engine.run(Step("s", "generate", "sdxl", (), "image", {"prompt": "red", "steps": 2}))
    assert result.facts["dtype"] == "bfloat16"
    with pytest.raises(LoadError, match="unknown dtype 'float61'"):
        load_pipeline(card, dtype="float61")


def test_the_safety_checker_and_progress_bars_are_off(
    cards: dict[str, ModelCard], capfd: pytest.CaptureFixture
) -> None:
    """Loading and running write nothing to the terminal."""
    engine = load_engine(cards["sd15"])
    engine.run(Step("s", "generate", "sd15", (), "image", {"prompt": "red", "steps": 2}))
    assert capfd.readouterr() == ("", "")


def test_a_folders_revision_changes_with_its_weights(copy: Callable[[str], tuple[ModelCard, Path]]) -> None:
    """Without a revision of its own, a local folder is known by a digest of its weight files."""
    card, folder = copy("sd15")
    before = digest(folder)
    assert revision(card) == before
    assert len(before) == len("sha256:") + 12
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"other")
    assert digest(folder) != before
    assert revision(replace(card, source={**card.source, "revision": "v2"})) == "v2"


def test_parameters_are_counted_without_loading(cards: dict[str, ModelCard]) -> None:
    """count_parameters agrees with the pipeline that is really loaded."""
    for name in ("sd15", "sdxl", "sdxl-refiner", "flux"):
        pipe = load_pipeline(cards[name])
        real = {
            part: sum(p.numel() for p in module.parameters())
            for part, module in pipe.components.items()
            if isinstance(module, torch.nn.Module)
        }
        assert count_parameters(cards[name]) == real


def test_importing_models_loads_no_torch(tmp_path: Path) -> None:
    """The package is cheap to import: the router and the command use it without torch."""
    script = "import models, models.fusion, models.provenance, sys; sys.exit('torch' in sys.modules)"
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    assert subprocess.run([sys.executable, "-c", script], env=env, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("model", ["sd15", "sdxl", "flux"])
def test_the_embedded_cards_load_and_make_pictures(model: str) -> None:
    """The shipped card of each embedded base model runs its weights at the card's own size and settings."""
    card = load_card(f"embedded/{model}")
    if not Path(str(card.source["local"])).is_dir():
        pytest.skip("the embedded family is not trained in this checkout: `python -m models.embedded.train`")
    made = (
        load_engine(card).run(Step("s", "generate", model, (), "image", {"prompt": "a red circle", "steps": 4})).value
    )
    assert made.pixels.shape == (64, 64, 3)  # type: ignore[union-attr]
