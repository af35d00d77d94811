"""Downloads from a hub over HTTP: exactly what is read, whole, and nothing that was there before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models import load_engine
from models.download import Hub, download, files_of, here_already, whole
from router.errors import LoadError
from router.types import ModelCard, Picture, Step
from tests.models.fake_hub import COMMIT, FakeHub, fake_hub

REPO = "somebody/tiny"
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"


@pytest.fixture
def published(cards: dict[str, ModelCard], tmp_path: Path) -> Path:
    """Tiny sd15 as publishers leave it: two variants, shards, pickles, a safety checker, a single file, pictures."""
    folder = tmp_path / "published"
    shutil.copytree(str(cards["sd15"].source["local"]), folder)
    for name in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        shutil.copy(folder / f"{name}.safetensors", folder / f"{name}.fp16.safetensors")
        (folder / f"{name}.bin").write_bytes(b"pickle")
        (folder / f"{name}.non_ema.safetensors").write_bytes(b"of training")
    (folder / "unet" / "flax_model.msgpack").write_bytes(b"flax")
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"unused")
    (folder / "v1-5-pruned.safetensors").write_bytes(b"all of it once more")
    (folder / "README.md").write_text("about")
    return folder


@pytest.fixture
def server(published: Path) -> Iterator[FakeHub]:
    with fake_hub(REPO, published) as server:
        yield server


@pytest.fixture
def hub(server: FakeHub, tmp_path: Path) -> Hub:
    return Hub(server.url, tmp_path / "cache")


@pytest.fixture
def card(cards: dict[str, ModelCard]) -> ModelCard:
    return replace(cards["sd15"], source={"hub": REPO, "variant": "fp16"})


def test_exactly_the_files_that_are_read_are_fetched(card: ModelCard, hub: Hub, server: FakeHub) -> None:
    """The variant of each component that has one, vocabulary and configurations; and what arrived makes pictures by the
    loader that serves."""
    made = download(files_of(card, hub), hub, card)
    paths = {one.wanted.path for one in made}
    assert {path for path in paths if path.endswith(".safetensors")} == {
        UNET, "text_encoder/model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    assert "model_index.json" in paths and "scheduler/scheduler_config.json" in paths
    assert not any(path.startswith("safety_checker") or (path.endswith(("index.json", ".md")) and path.count("/"))
                   for path in paths)  # fmt: skip
    assert any(path.startswith("tokenizer/") for path in paths)
    assert {name for method, name, _ in server.asked if method == "GET"} <= paths
    snapshot = next(one.place for one in made if one.wanted.path == "model_index.json").parent
    assert snapshot.name == COMMIT and all(one.fresh or one.wanted.path == "model_index.json" for one in made)
    here = replace(card, source={"local": str(snapshot), "variant": "fp16"})
    step = Step("1", "generate", card.id, (), "image", {"prompt": "a", "steps": 2})
    assert isinstance(load_engine(here, threads=1).run(step).value, Picture)


def test_what_is_here_is_not_fetched_again_and_can_be_checked(card: ModelCard, hub: Hub, server: FakeHub) -> None:
    """A second download asks for no content; with `check` a file that was damaged meanwhile is fetched anew."""
    files = files_of(card, hub)
    places = {one.wanted.path: one.place for one in download(files, hub, card)}
    server.asked.clear()
    assert not any(one.fresh for one in download(files, hub, card))
    assert [one for one in server.asked if one[0] == "GET"] == []
    places[UNET].resolve().write_bytes(b"\0" * places[UNET].stat().st_size)
    again = {one.wanted.path: one for one in download(files, hub, card, check=True)}
    assert [one[1] for one in server.asked if one[0] == "GET"] == [UNET]
    assert whole(again[UNET].place, again[UNET].wanted)


def test_what_broke_off_goes_on_where_it_was(
    card: ModelCard, hub: Hub, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file whose connection ends in the middle costs the rest of it, not all: in the same process, and in the
    next one."""
    monkeypatch.setattr("models.download.LARGE", 100_000)
    monkeypatch.setattr("models.download.CHUNK", 1000)
    monkeypatch.setattr("models.download.PAUSE_S", 0.0)
    files = files_of(card, hub)
    server.breaks[UNET] = [5000, 0, 0, 0, 0, 0]
    with pytest.raises(LoadError, match="cannot load somebody/tiny"):
        download(files, hub, card)
    server.breaks[UNET] = [20000]
    made = download(files, hub, card)
    ranges = [asked for method, name, asked in server.asked if method == "GET" and name == UNET]
    assert ranges[0] is None and set(ranges[1:7]) == {"bytes=5000-"} and ranges[-1] == "bytes=25000-"
    assert all(whole(one.place, one.wanted) for one in made)


def test_another_content_than_the_digest_says_is_not_kept(card: ModelCard, hub: Hub, server: FakeHub) -> None:
    """What arrives damaged is fetched once more; if it is damaged again, it is deleted and named."""
    files = files_of(card, hub)
    server.spoils[UNET] = 1
    assert all(whole(one.place, one.wanted) for one in download(files, hub, card))
    other = Hub(server.url, hub.cache.with_name("other"))
    server.spoils[UNET] = 2
    with pytest.raises(LoadError, match=r"fp16\.safetensors of somebody/tiny arrived twice with another content"):
        download(files, other, card)


def test_a_component_of_its_own_source_is_fetched_in_place_of_the_cards(
    cards: dict[str, ModelCard], card: ModelCard, hub: Hub, tmp_path: Path
) -> None:
    """Of a component from a hub folder, that folder; of one that is a file here, nothing."""
    own = {"vae": {"hub": REPO, "subfolder": "vae"}, "text_encoder": {"file": str(tmp_path / "t.safetensors")}}
    paths = [one.path for one in files_of(replace(card, components=own), hub)]
    assert "vae/diffusion_pytorch_model.safetensors" in paths
    assert not any(path.startswith("text_encoder/") for path in paths)
    assert here_already(cards["sd15"]) == "its weights are files here" and here_already(card) == ""


def test_what_cannot_be_had_is_said_with_the_remedy(card: ModelCard, hub: Hub, published: Path, tmp_path: Path) -> None:
    """A repository that is not there, a gated one, a component without files and a full disk end in words."""
    with pytest.raises(LoadError, match="cannot load nobody/nothing"):
        files_of(replace(card, source={"hub": "nobody/nothing"}), hub)
    with fake_hub(REPO, published, gated=True) as gate, pytest.raises(LoadError, match="licence was not accepted"):
        files_of(replace(card, gated=True), Hub(gate.url, tmp_path / "none"))
    index = json.loads((published / "model_index.json").read_text())
    index["text_encoder_2"] = ["transformers", "CLIPTextModel"]
    (published / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(LoadError, match="lists a component 'text_encoder_2' and has no files of it"):
        files_of(card, Hub(hub._endpoint, tmp_path / "fresh"))


def test_a_full_disk_is_noticed_before_anything_is_fetched(
    card: ModelCard, hub: Hub, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too little room nothing but the index is asked for, and the message says where and how much."""
    files = files_of(card, hub)
    monkeypatch.setattr("models.download.SPARE_GB", 10**9)
    with pytest.raises(LoadError, match=r"GB are to be fetched, and .*cache has .* GB left; make room, or set HF_HOME"):
        download(files, hub, card)
    assert {name for method, name, _ in server.asked if method == "GET"} == {"model_index.json"}
