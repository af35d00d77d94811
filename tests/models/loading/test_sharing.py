"""Networks that are loaded once for several pipelines: what counts as the same, and that nothing is kept alive."""

import gc
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from models.weights.loading import load_pipeline
from models.weights.sharing import SharedNetworks
from router.types import ModelCard


@pytest.fixture
def copy(cards: dict[str, ModelCard], tmp_path: Path) -> tuple[ModelCard, Path]:
    """The tiny SDXL under another name, from files of its own."""
    shutil.copytree(str(cards["sdxl"].source["local"]), tmp_path / "copy")
    return replace(cards["sdxl"], id="copy", source={"local": str(tmp_path / "copy")}), tmp_path / "copy"


def test_files_of_the_same_content_are_one_network(cards: dict[str, ModelCard], copy: tuple[ModelCard, Path]) -> None:
    """Two folders with the same bytes give two pipelines over the same modules."""
    networks = SharedNetworks()
    first, second = load_pipeline(cards["sdxl"], networks=networks), load_pipeline(copy[0], networks=networks)
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        assert getattr(first, part) is getattr(second, part)


def test_other_weights_settings_or_dtypes_are_other_networks(
    cards: dict[str, ModelCard], copy: tuple[ModelCard, Path]
) -> None:
    """One byte of the weights, one value of the configuration, or the dtype: each makes a module of its own."""
    card, folder = copy
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.25}))
    networks = SharedNetworks()
    first, second = load_pipeline(cards["sdxl"], networks=networks), load_pipeline(card, networks=networks)
    half = load_pipeline(cards["sdxl"], dtype="bfloat16", networks=networks)
    shared = {part for part in ("text_encoder", "text_encoder_2", "unet", "vae")
              if getattr(first, part) is getattr(second, part)}  # fmt: skip
    assert shared == {"text_encoder", "text_encoder_2"}
    assert half.text_encoder is not first.text_encoder


def test_networks_that_no_pipeline_uses_are_gone(cards: dict[str, ModelCard], copy: tuple[ModelCard, Path]) -> None:
    """What is shared lives as long as one of its pipelines does, and no longer."""
    networks = SharedNetworks()
    first, second = load_pipeline(cards["sdxl"], networks=networks), load_pipeline(copy[0], networks=networks)
    del first
    gc.collect()
    assert networks.at_hand(cards["sdxl"], "cpu", second.unet.dtype).keys() == {
        "text_encoder", "text_encoder_2", "unet", "vae"
    }  # fmt: skip
    dtype = second.unet.dtype
    del second
    gc.collect()
    assert networks.at_hand(cards["sdxl"], "cpu", dtype) == {}
