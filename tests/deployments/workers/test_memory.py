"""Which models of a process stay in memory: what is given up, what is shared, what is refused."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from deployments.assembly import Held, host_of
from deployments.placement import WorkerSettings
from deployments.workers.host import ModelHost
from deployments.workers.memory import GIB, HALF_LIFE_S, MemoryPlan
from models.weights.needs.footprints import Footprint, footprint
from models.weights.sharing import SharedNetworks
from router.errors import LoadError
from router.types import ModelCard, Step
from tests.deployments.workers.test_worker import SlowEngine

THREE = {"a": Footprint({"a": 10.0}, 1.0), "b": Footprint({"b": 10.0}, 2.0), "c": Footprint({"c": 10.0}, 3.0)}


def step(model: str, **settings: Any) -> Step:
    """A `generate` step."""
    return Step("s", "generate", model, (), "image", settings)


def plan(sizes: Mapping[str, Footprint], limit: float | None = None, **options: Any) -> MemoryPlan:
    """A plan over known sizes."""
    return MemoryPlan(sizes.__getitem__, limit, **options)


def host(sizes: Mapping[str, Footprint], limit: float, loads: list[str]) -> ModelHost:
    """Models that note when they are loaded."""

    def load(model: str) -> Any:
        loads.append(model)
        return SlowEngine(ticks=1)

    return ModelHost({model: lambda m=model: load(m) for model in sizes}, memory=plan(sizes, limit))


def states(host: ModelHost) -> dict[str, str]:
    """The states of all models."""
    return {model: status.state for model, status in host.statuses().items()}


async def test_models_that_do_not_fit_wait_until_they_are_needed() -> None:
    """At the start as many are loaded as fit; another one takes the place of one of them when a step wants it, and
    all of them serve."""
    loads: list[str] = []
    models = host(THREE, 23.0, loads)
    models.load()
    assert states(models) == {"a": "ready", "b": "ready", "c": "idle"}
    await models.run(step("a"), (), 60)
    await models.run(step("c"), (), 60)
    assert states(models) == {"a": "ready", "b": "idle", "c": "ready"}
    await asyncio.gather(*(models.run(step(model), (), 60) for model in "abcabc"))
    assert loads[:3] == ["a", "b", "c"]
    assert list(states(models).values()).count("ready") == 2


def test_work_needs_room_for_one_model_at_a_time() -> None:
    """Weights add up, what is needed to work does not, since one model works at a time."""
    assert plan(THREE, 23.0).fits("c", ["b"])
    assert not plan(THREE, 22.9).fits("c", ["b"])
    assert plan(THREE, 33.0).fits("a", ["b", "c"])


def test_networks_that_are_shared_count_once() -> None:
    """A model whose networks are in memory already needs room for the others only."""
    sizes = {"a": Footprint({"own": 10.0, "shared": 20.0}, 0.0), "b": Footprint({"shared": 20.0, "b": 1.0}, 0.0)}
    assert plan(sizes, 31.0).fits("b", ["a"])
    assert plan(sizes, free_bytes=lambda: 1.0).fits("b", ["a"])
    assert not plan(sizes, free_bytes=lambda: 20.0).fits("b", [])


def test_what_costs_least_to_lose_is_given_up() -> None:
    """Given up is the model with the least product of seconds to load and uses, of which old ones count less."""
    now = [0.0]
    uses = plan(THREE, 1.0, clock=lambda: now[0])
    for model, seconds in (("a", 1.0), ("b", 4.0), ("c", 2.0)):
        uses.loaded(model, seconds)
    assert uses.victim(["b", "c", "a"]) == "a"  # none was used: the one that is back soonest
    for model, times in (("a", 9), ("b", 2), ("c", 0)):
        for _ in range(times):
            uses.used(model)
    assert uses.victim("abc") == "c"
    assert uses.victim("ab") == "b"  # 8 against 9
    now[0] = 2 * HALF_LIFE_S
    uses.used("b")
    assert uses.victim("ab") == "a"  # (2 / 4 + 1) * 4 against 9 / 4
    assert uses.victim("") is None


async def test_a_model_that_can_never_fit_fails_and_drives_nobody_out() -> None:
    """A model that is larger than the limit says so with both sizes; the others stay where they are."""
    sizes = {**THREE, "huge": Footprint({"huge": 3 * GIB}, 0.0)}
    models = host(sizes, 2 * GIB, [])
    models.load()
    with pytest.raises(LoadError, match=r"model 'huge' takes about 3.00 GiB, but its worker may take 2.00 GiB"):
        await models.run(step("huge"), (), 60)
    assert states(models) == {"a": "ready", "b": "ready", "c": "ready", "huge": "failed"}


async def test_steps_of_two_models_with_room_for_one_all_succeed() -> None:
    """Models that cannot be in memory together take turns there, and never is one given up that runs."""
    loads: list[str] = []
    sizes = {model: THREE[model] for model in "ab"}
    models = host(sizes, 12.0, loads)
    models.load()
    results = await asyncio.gather(*(models.run(step(model), (), 60) for model in "ababab"))
    assert len(results) == 6
    assert loads == list("ababab")


async def test_real_models_share_a_small_memory(cards: dict[str, ModelCard]) -> None:
    """With room for one of two pipelines and what they share, both draw, the same picture whenever they are asked."""
    names = ("sdxl", "sdxl-turbo", "sd15")
    networks = SharedNetworks()
    sizes = {name: footprint(cards[name], "cpu", None, (), networks) for name in names}
    both = {**sizes["sdxl"].weights, **sizes["sd15"].weights}
    limit = sum(both.values()) - 1 + max(size.working for size in sizes.values())
    placed = WorkerSettings(device="cpu", memory_gib=limit / GIB)
    models = host_of([Held(replace(cards[name])) for name in names], placed, lambda card: {})
    models.load()
    first = {}
    for name in ("sdxl", "sd15", "sdxl", "sd15"):
        result = await models.run(step(name, prompt="a red circle", seed=1, steps=2), (), 60)
        pixels = result.value.pixels.tobytes()
        assert first.setdefault(name, pixels) == pixels
        assert states(models)[name] == "ready"
        assert states(models)["sd15" if name == "sdxl" else "sdxl"] == "idle"
    assert models.statuses()["sdxl"].facts["loaded_in_s"] > 0


def test_footprints_count_what_is_loaded(cards: dict[str, ModelCard]) -> None:
    """The bytes of a footprint are those of the networks that are loaded, guests included; a VAE counts once."""
    from models import load_engine

    networks = SharedNetworks()
    guests = (cards["sdxl-turbo"],)
    engine: Any = load_engine(cards["sdxl"], "cpu", None, 1, guests, networks)
    pipes = [engine._pipe, engine._guests["sdxl-turbo"].pipe]
    modules = {id(part): part for pipe in pipes for part in pipe.components.values() if hasattr(part, "parameters")}
    real = sum(p.numel() * p.element_size() for module in modules.values() for p in module.parameters())
    counted = footprint(cards["sdxl"], "cpu", None, guests, networks)
    assert sum(counted.weights.values()) == real
    assert counted.working > 0
