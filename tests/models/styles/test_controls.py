"""ControlNets of diffusers beside tiny pipelines: loaded from their folders, followed, and gone without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models import Engine
from models.catalogue import load_card, load_catalogue
from models.embedded.checker import find_objects
from models.embedded.world import Placement, Scene, render
from models.engine.diffusion import DiffusionEngine
from models.given.controls import canny
from router.errors import CatalogueError, StepError
from router.types import Mask, ModelCard, Picture, Step, StepResult, Value

Engines = Callable[[str], Engine]
SIDE = 32


def network(engine: DiffusionEngine) -> Any:
    """A ControlNet for the network of an engine, which says something from the start."""
    from diffusers import ControlNetModel, FluxControlNetModel

    pipe: Any = engine._pipe
    torch.manual_seed(5)
    if engine.card.family == "flux":
        config = {key: pipe.transformer.config[key] for key in pipe.transformer.config if key in FLUX}
        made: Any = FluxControlNetModel(**config)
    else:
        strides = engine.card.vae_scale.bit_length() - 1
        made = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8,) * (strides + 1))
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return made


FLUX = ("patch_size", "in_channels", "num_layers", "num_single_layers", "attention_head_dim", "num_attention_heads",
        "joint_attention_dim", "pooled_projection_dim", "guidance_embeds", "axes_dims_rope")  # fmt: skip


@pytest.fixture(scope="module")
def guided(cards: dict[str, ModelCard], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DiffusionEngine]:
    """Engines whose cards name a ControlNet for edges, each loaded on first use."""
    loaded: dict[str, DiffusionEngine] = {}

    def get(model: str) -> DiffusionEngine:
        if model not in loaded:
            folder = tmp_path_factory.mktemp("control") / model
            bare = DiffusionEngine(cards[model], threads=1)
            network(bare).save_pretrained(folder, safe_serialization=True)
            card = replace(cards[model], controlnets={"canny": {"path": str(folder)}, "gone": {"path": f"{folder}-no"}})
            loaded[model] = DiffusionEngine(card, threads=1)
        return loaded[model]

    return get


def drawn(engine: DiffusionEngine, kind: str, *inputs: Value, **settings: Any) -> np.ndarray[Any, Any]:
    """The pixels of a step of a kind."""
    result = engine.run(_step(engine, kind, inputs, **settings), inputs)
    assert isinstance(result.value, Picture)
    return result.value.pixels


def _step(engine: DiffusionEngine, kind: Any, inputs: tuple[Value, ...], **settings: Any) -> Step:
    # FLUX's classes for edits beside a ControlNet know no second pass; the planner says so.
    once = {"guidance_scale": 1.0} if engine.card.family == "flux" else {}
    own = {} if kind == "generate" else {"strength": 0.8, **once}
    names = tuple(map(str, range(len(inputs))))
    told = {"prompt": "red dot", "seed": 1, "steps": 3, "width": SIDE, "height": SIDE, **own, **settings}
    return Step("it", kind, engine.card.id, names, "image", told)


@pytest.fixture(scope="module")
def maps() -> tuple[Picture, Picture]:
    """Edges of a disc, and of a bar."""
    blank = np.zeros((SIDE, SIDE, 3), np.uint8)
    disc = cv2.circle(blank.copy(), (16, 16), 9, (255, 0, 0), -1)
    bar = cv2.rectangle(blank.copy(), (4, 12), (28, 20), (0, 255, 0), -1)
    return Picture(canny(disc)), Picture(canny(bar))


@pytest.mark.parametrize("kind", ["generate", "refine", "inpaint"])
@pytest.mark.parametrize("model", ["sd15", "sdxl", "flux"])
def test_a_control_is_followed_and_leaves_no_trace(
    guided: Callable[[str], DiffusionEngine], maps: tuple[Picture, Picture], model: str, kind: str
) -> None:
    """Real ControlNet classes load and draw: the map counts, the same one gives the same bytes, two in a batch are
    those made alone, and without a control the picture is what it was before."""
    engine, (disc, bar) = guided(model), maps
    given = Picture(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    before: tuple[Value, ...] = {"generate": (), "refine": (given,)}.get(
        kind, (given, Mask(np.full((SIDE, SIDE), 255, np.uint8)))
    )
    bare = drawn(engine, kind, *before)
    one = drawn(engine, kind, *before, disc, control="canny")
    other = drawn(engine, kind, *before, bar, control="canny")
    weak = drawn(engine, kind, *before, disc, control="canny", control_scale=0.0)
    assert not np.array_equal(one, bare) and not np.array_equal(one, other)
    if engine.card.family != "flux":  # whose map is encoded by the same generator, before the noise is drawn
        assert np.abs(weak.astype(int) - bare).max() <= 1
    assert np.array_equal(drawn(engine, kind, *before, disc, control="canny"), one)
    assert np.array_equal(drawn(engine, kind, *before), bare)
    inputs = [(*before, disc), (*before, bar)]
    steps = [_step(engine, kind, values, control="canny") for values in inputs]
    for result, alone in zip(engine.run_batch(steps, inputs), (one, other), strict=True):
        assert isinstance(result, StepResult) and isinstance(result.value, Picture)
        assert result.facts["control"] == "canny"
        assert np.abs(result.value.pixels.astype(int) - alone).max() <= 2


def test_the_shipped_controlnet_places_shapes_where_the_map_has_them() -> None:
    """The embedded SD1.5 draws an object of its prompt where the map's edges are, and without the map elsewhere."""
    card = load_catalogue({"sd15": "embedded/sd15"}).cards["sd15"]
    engine = DiffusionEngine(card, threads=1)
    near: list[int] = []
    for control in ({"control": "canny"}, {}):
        hits = 0
        for seed, (x, y) in enumerate(((18, 18), (46, 20), (20, 46), (46, 46))):
            spot = Placement(x, y, 12.0, "red", "circle")
            wanted = render(Scene("one", (), background="black", placements=(spot,)))
            inputs = (Picture(canny(wanted)),) if control else ()
            told = {"prompt": "a red circle", "seed": seed, "steps": 6, "width": 64, "height": 64, **control}
            names = tuple(map(str, range(len(inputs))))
            result = engine.run(Step("it", "generate", card.id, names, "image", told), inputs)
            assert isinstance(result.value, Picture)
            _, found = find_objects(result.value.pixels)
            hits += any(np.hypot(one.x - x, one.y - y) < 4 for one in found)
        near.append(hits)
    assert near[0] == 4 and near[1] <= 1, near


@pytest.mark.parametrize("model", ["sd15", "sdxl", "flux"])
def test_each_tile_follows_its_own_part_of_the_map(guided: Callable[[str], DiffusionEngine], model: str) -> None:
    """A picture of twice the size is painted over tile by tile beside a ControlNet, and where the map changes in one
    corner, the opposite one keeps its bytes."""
    engine, side = guided(model), 2 * SIDE
    given = Picture(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    changed = given.pixels.copy()
    changed[: SIDE // 2, : SIDE // 2] = 0
    tiles = {"tile_width": SIDE, "tile_height": SIDE, "tile_overlap": SIDE // 4, "tiles": 9}
    asked = {"width": side, "height": side, "control": "canny", **tiles}
    one, other = (drawn(engine, "refine", given, guide, **asked) for guide in (given, Picture(changed)))
    assert one.shape == (side, side, 3) and not np.array_equal(one[:SIDE, :SIDE], other[:SIDE, :SIDE])
    assert np.array_equal(one[-SIDE // 4 :, -SIDE // 4 :], other[-SIDE // 4 :, -SIDE // 4 :])
    if model == "sd15":
        with pytest.raises(StepError, match="a control is followed whole"):
            drawn(engine, "generate", given, **asked)


def test_what_is_not_there_is_the_step_s_failure(guided: Callable[[str], DiffusionEngine], maps: Any) -> None:
    """A ControlNet that is unknown or whose weights are missing fails its step with the reason, and no other."""
    engine = guided("sd15")
    for kind, why in (("gone", "no folder"), ("depth", "has no control")):
        with pytest.raises(StepError, match=why):
            drawn(engine, "generate", maps[0], control=kind)
    with pytest.raises(StepError, match="a control map"):
        drawn(engine, "generate", control="canny")
    assert drawn(engine, "generate").shape == (SIDE, SIDE, 3)


def test_cards_name_controlnets_where_their_family_has_some(tmp_path: Path) -> None:
    """A card's `controlnets` are paths beside it or repositories, for families with ControlNet classes."""
    text = "id: it\nfamily: {}\nrole: base\nlatent_space: s\nsource: {{local: it}}\ncontrolnets: {}\n"
    card = tmp_path / "it.yaml"
    card.write_text(text.format("sd15", "{canny: {path: edges}, depth: {hub: owner/depth, revision: abc}}"))
    found = load_card(card).controlnets
    assert found["canny"] == {"path": str(tmp_path / "edges")}
    assert found["depth"] == {"hub": "owner/depth", "revision": "abc"}
    for family, nets, why in (
        ("qwen-image", "{canny: {path: x}}", "sd15, sdxl, flux"),
        ("sd15", "{canny: {}}", "exactly one"),
    ):
        card.write_text(text.format(family, nets))
        with pytest.raises(CatalogueError, match=why):
            load_card(card)


def test_edges_are_where_colours_meet() -> None:
    """Canny marks the border of a shape in white on black, and nothing of a flat picture."""
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert not canny(flat).any()
    shape = cv2.rectangle(flat.copy(), (20, 20), (44, 44), (250, 40, 40), -1)
    found = canny(shape)
    assert set(np.unique(found)) == {0, 255} and found.shape == shape.shape
    ys, xs = np.nonzero(found[..., 0])
    assert min(ys.min(), xs.min()) >= 18 and max(ys.max(), xs.max()) <= 46
