"""The memory plan: what models need is counted from what was published; what does not fit is refused or changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models import load_card
from models.fitting.changes import CHANGES, fit_in, tuned_by
from models.fitting.gpus import parse_gpu
from models.fitting.placement import Wanted, plan
from models.fitting.tables import put_into, usual
from models.styles.cards import load_style
from models.weights import loading
from models.weights.needs import activations
from models.weights.needs.activations import Shape, decoder_bytes, denoiser_bytes, peak_bytes
from models.weights.needs.memory import (
    GB,
    estimate_memory_gb,
    held_bytes,
    most_pictures,
    most_pixels,
    need_of,
)
from models.weights.needs.networks import as_text, build_empty, networks_of
from router.errors import LoadError, RequestError
from router.types import ModelCard
from tests.models import ip_adapters

DOCS = Path(__file__).parents[3] / "docs"


def test_the_peak_is_that_of_what_is_alive_together() -> None:
    """What was let go before the next was made does not count, views and what was given count nothing."""
    given = torch.empty(100, dtype=torch.float32, device="meta")

    def run() -> torch.Tensor:
        first = torch.empty(1000, dtype=torch.float32, device="meta")
        second = first.view(10, 100) + given
        del first
        third = second * 2
        del second
        return third.T

    assert peak_bytes(run, [given]) == 8000


def test_attention_does_not_count_the_scores_of_all_pairs() -> None:
    """A kernel that writes no scores down needs the memory of its output."""
    query = torch.empty(1, 2, 4096, 8, device="meta")
    out = peak_bytes(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query), [query])
    assert out == query.numel() * 4


@pytest.mark.parametrize(("side", "gb"), [(1024, 3.2), (1536, 7.3), (2048, 12.9)])
def test_sdxl_decodes_in_float32_as_much_as_was_measured(side: int, gb: float) -> None:
    """Decoding SDXL's latents needs what was measured of it, 3.2 GB at 1024, 7.3 at 1536 and 12.9 at 2048 pixels."""
    _, kind, config = networks_of(load_card("real/sdxl"))["vae"]
    shape = Shape(side, side, 8, 1, 2, 77, 4)
    assert decoder_bytes(kind, as_text(config), shape) / GB == pytest.approx(gb, rel=0.06)


def test_more_pixels_and_more_pictures_need_more(cards: dict[str, ModelCard]) -> None:
    """Every phase but reading grows with the area, and all of them with the number of pictures; slices and tiles bound
    the decoding."""
    card = cards["sdxl"]
    one, large, two = need_of(card, 4), need_of(card, 4, (64, 64)), need_of(card, 4, batch=2)
    for phase in ("denoise", "decode"):
        assert large.work[phase] > 1.5 * one.work[phase]
        assert two.work[phase] == pytest.approx(2 * one.work[phase], rel=0.1)
    assert two.work["read"] == 2 * one.work["read"] and large.work["read"] == one.work["read"]
    sliced = replace(card, tuning={"vae_slicing": True})
    assert need_of(sliced, 4, batch=4).work["decode"] < 2 * one.work["decode"]
    tiled = replace(card, tuning={"vae_tiling": 32})
    assert need_of(tiled, 4, (128, 128)).work["decode"] < need_of(card, 4, (128, 128)).work["decode"] / 4


def test_the_largest_area_fits_and_more_does_not(cards: dict[str, ModelCard]) -> None:
    """What `most_pixels` and `most_pictures` say needs no more than there is, and a tenth more would."""
    card = replace(cards["sd15"], max_pixels=10**9, tuning={"vae_tiling": 16})
    room = estimate_memory_gb(card, "float32", size=(128, 128))
    side = int(most_pixels(card, "float32", room) ** 0.5)
    assert 120 <= side <= 132
    count = most_pictures(card, "float32", room, 10**6)
    assert estimate_memory_gb(card, "float32", batch=count) <= room * 1.01
    assert estimate_memory_gb(card, "float32", batch=count + count // 10 + 1) > room
    assert most_pixels(card, "float32", 1e-6) == most_pictures(card, "float32", 1e-6, 8) == 0


def test_a_transformer_needs_what_two_of_its_blocks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that hand on what they get and keep nothing need as many bytes as two of each kind."""
    _, kind, config = networks_of(load_card("real/flux2-klein"))["transformer"]
    few = denoiser_bytes(kind, as_text(config), Shape(64, 64, 8, 1, 1, 77, 2))
    monkeypatch.setattr(activations, "ALIKE", 1000)
    assert denoiser_bytes.__wrapped__(kind, as_text(config), Shape(64, 64, 8, 1, 1, 77, 2)) == few


def test_what_is_offloaded_needs_the_one_at_work(cards: dict[str, ModelCard]) -> None:
    """Offloaded as wholes, a phase has the weights of its network alone; as layers, two of them."""
    card = cards["flux"]
    plain = need_of(card, 4)
    whole, layers = (need_of(replace(card, tuning={"offload": kind}), 4) for kind in ("model", "group"))
    assert whole.held == layers.held == {}
    assert whole.weights["denoise"] == plain.held["transformer"] and whole.weights["decode"] == plain.held["vae"]
    assert layers.weights["denoise"] < whole.weights["denoise"] < plain.weights["denoise"]


def test_a_controlnet_is_planned_for(tmp_path: Path) -> None:
    """The ControlNet that a card names takes what its file holds, offloaded or not; one that is not there, nothing."""
    card = load_card("embedded/sd15")
    folder = Path(str(card.controlnets["canny"]["path"]))
    parameters = sum(value.numel() for value in load_file(folder / "diffusion_pytorch_model.safetensors").values())
    bare = replace(card, controlnets={})
    for tuning in ({}, {"offload": "model"}, {"offload": "group"}):
        with_it, without = (need_of(replace(one, tuning=tuning), 4).total for one in (card, bare))
        assert with_it - without == 4 * parameters
    missing = replace(card, controlnets={"canny": {"path": str(tmp_path / "gone")}})
    assert held_bytes(missing, 4) == held_bytes(bare, 4)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_an_adapter_for_reference_pictures_is_planned_for(family: str, tmp_path: Path) -> None:
    """A style that draws after a picture takes what its file and its encoder hold, each encoder once; nothing on a
    model that cannot wear it, or if its files are not there."""
    card = load_card(f"embedded/{family}")
    network = build_empty(*networks_of(card)["unet"])
    look = load_style(ip_adapters.write(tmp_path / "adapter", network, family))
    stored = [load_file(tmp_path / "adapter" / name) for name in ("look.safetensors", "encoder/model.safetensors")]
    held = sum(value.numel() for state in stored for value in state.values())
    twin = replace(look, id="twin")
    for styles in ({"look": look}, {"look": look, "twin": twin}):
        with_it = sum(held_bytes(replace(card, styles=styles), 4).values())
        assert with_it - sum(held_bytes(card, 4).values()) == 4 * held
    other = replace(load_card("embedded/flux"), styles={"look": look})
    gone = replace(card, styles={"look": replace(look, source={**look.source, "encoder": str(tmp_path / "gone")})})
    assert held_bytes(other, 4) == held_bytes(replace(other, styles={}), 4)
    assert held_bytes(gone, 4) == held_bytes(card, 4)
    away = {"offload": "model"}
    assert need_of(replace(card, styles={"look": look}, tuning=away), 4) == need_of(replace(card, tuning=away), 4)


def test_the_cheapest_change_that_suffices_is_taken() -> None:
    """FLUX fits 48 GB as it comes, 24 GB in fewer bits, and with the same pictures only if it is offloaded."""
    card = load_card("real/flux-schnell")
    assert fit_in(card, None, 47.5).change.keys == {}  # type: ignore[union-attr]
    smaller, same = fit_in(card, None, 23.5), fit_in(card, None, 25.0, same_pictures=True)
    assert smaller is not None and same is not None
    assert smaller.change.keys["quantize"] == "fp8" and same.change.keys == {"offload": "model"}
    for fit in (smaller, same):
        cheaper = CHANGES[: CHANGES.index(fit.change)]
        room = 23.5 if fit is smaller else 25.0
        for change in cheaper:
            if change.same_pictures or fit is smaller:
                assert need_of(tuned_by(card, change), 2).total > room * GB
    assert fit_in(card, None, 1.0) is None


def test_what_an_operator_tuned_is_kept(cards: dict[str, ModelCard]) -> None:
    """Planning adds to a tuning and replaces none of its keys."""
    card = tuned_by(load_card("real/flux-schnell"), CHANGES[0])
    card = replace(card, tuning={"quantize": "fp8", "compile": "regional"})
    found = fit_in(card, None, 11.9)
    assert found is not None
    assert found.card.tuning["quantize"] == "fp8" and found.card.tuning["compile"] == "regional"


def test_a_plan_places_every_model_once_or_says_why_not() -> None:
    """Each model is on one GPU within its memory, or refused with what it needs; together means all at once."""
    wanted = [Wanted(replace(load_card(f"real/{name}"), id=name)) for name in ("sd15", "sdxl", "flux-dev")]
    made = plan(wanted, [parse_gpu("24GB"), parse_gpu("24GB")])
    placed = [fit.card.id for place in made.places for fit in place.fits]
    assert sorted(placed) == ["flux-dev", "sd15", "sdxl"] and made.refused == ()
    for place in made.places:
        assert all(fit.total_gb <= place.gpu.room_gb for fit in place.fits)
        held = sum(sum(fit.need.held.values()) for fit in place.fits) / GB
        assert place.together == (place.used_gb <= place.gpu.room_gb and held <= place.used_gb)
    tight = plan(wanted, [parse_gpu("3GB")], same_pictures=True)
    assert [one.card.id for one in tight.refused] == ["flux-dev", "sdxl"]
    assert "it needs 3." in tight.refused[1].reason and "the largest has 2.5 GB" in tight.refused[1].reason


def test_a_published_checkpoint_is_refused_before_it_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub model that does not fit is refused although nothing of it is here, and nothing is asked of the hub."""
    asked: list[object] = []
    monkeypatch.setattr(loading, "_from_source", lambda *args: asked.append(args))
    monkeypatch.setattr("models.weights.needs.memory.free_memory_gb", lambda device: 8.0)
    with pytest.raises(
        LoadError, match=r"'sdxl' needs about 17\.\d GB in float32, but cpu has 8\.0 GB; `triptych models"
    ):
        loading.load_pipeline(load_card("real/sdxl"))
    assert asked == []


@pytest.mark.parametrize("text", ["24", "24 MB", "GB", "0GB", "-3GB", "24GBs"])
def test_an_amount_of_memory_is_said_with_its_unit(text: str) -> None:
    """Anything but GB and GiB is refused, and these are ten and two to some power."""
    with pytest.raises(RequestError, match="no amount of memory"):
        parse_gpu(text)
    assert parse_gpu("2GB").memory_gb == 2.0 and parse_gpu(" 2 gib").memory_gb == pytest.approx(2.147, abs=1e-3)


def test_the_tables_of_the_page_are_what_the_planner_says() -> None:
    """docs/models-and-gpus.md has what `triptych models fits --markdown` writes."""
    page = (DOCS / "models-and-gpus.md").read_text(encoding="utf-8")
    assert put_into(page, usual()) == page
    with pytest.raises(RequestError, match="needs the lines"):
        put_into("nothing", usual())
