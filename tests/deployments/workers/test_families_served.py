"""Every family behind the HTTP API, in this process, on tiny random weights."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from deployments.api.app import create_app
from deployments.api.service import Service
from deployments.in_process import build_local
from deployments.settings import parse_settings
from models.families import FAMILIES
from tests.conftest import store_in
from tests.deployments.support.scripted import jobs_of
from tests.deployments.support.tiny_models import settings_of
from tests.models import tiny

CARDS = {
    "sd3": "real/sd35-medium",
    "flux2-klein": "real/flux2-klein",
    "qwen-image": "real/qwen-image",
    "z-image": "real/z-image-turbo",
    "flux": "real/flux-schnell",
    "flux-fill": "real/flux-fill",
    "flux-kontext": "real/flux-kontext",
    "sd15": "real/sd15",
    "sdxl": "real/sdxl",
    "sdxl-refiner": "real/sdxl-refiner",
}
"""By tiny model, the shipped card that stands behind it, all but its weights and sizes."""

POLICY = """
version: 1
name: new
recipes:
  klein:    {generate: {model: flux2-klein}}
  polished: {chain: [{generate: {model: qwen-image}}, {refine: {model: sdxl-refiner, strength: 0.5}}]}
objective: {minimise: latency_s}
"""
IMPOSSIBLE = """
version: 1
name: impossible
recipes:
  back: {chain: [{generate: {model: sdxl}}, {refine: {model: flux2-klein, strength: 0.5}}]}
objective: {minimise: latency_s}
"""


@pytest.fixture(scope="module")
async def client(
    tiny_weights: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """An application of all families, with a policy that can be run and one that cannot."""
    folder = tmp_path_factory.mktemp("families")
    (folder / "new.yaml").write_text(POLICY)
    cards = tiny.cards(tiny_weights)
    changed = {
        "models": {model: settings_of(cards[model], card) for model, card in CARDS.items()},
        "policies": {"directory": str(folder), "default": "new"},
        "store": store_in(tmp_path_factory.mktemp("store")),
    }
    settings = parse_settings({**tiny_settings, **changed})
    orchestrator = build_local(settings)
    (folder / "impossible.yaml").write_text(IMPOSSIBLE)
    app = create_app(Service(jobs_of(orchestrator), settings.limits), settings.limits)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://triptych", timeout=60
    ) as made:
        yield made


async def test_every_family_is_listed_with_its_card(client: httpx.AsyncClient) -> None:
    """`/v1/models` has a model of each family, with what its shipped card says of licence and origin."""
    listed = {model["id"]: model["x_triptych"] for model in (await client.get("/v1/models")).json()["data"]}
    families = {facts["family"] for facts in listed.values() if facts["kind"] == "model"}
    assert families == set(FAMILIES)
    assert listed["flux2-klein"]["licence"] == "Apache-2.0"
    assert listed["sd3"]["commercial_use"] is False


@pytest.mark.parametrize("model", ["sd3", "z-image", "new/klein", "new/polished"])
async def test_a_picture_comes_back(client: httpx.AsyncClient, model: str) -> None:
    """A model by its name, and a recipe of the policy, answer with a picture of the size that was asked for."""
    body = {"prompt": "a red dot", "model": model, "size": "48x32", "seed": 1}
    answer = await client.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    made = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"])))
    assert made.size == (48, 32)


async def test_a_policy_that_refines_with_klein_is_not_in_force(client: httpx.AsyncClient) -> None:
    """The file is reported with its line and the remedy, and the policies that can be run go on."""
    state = (await client.get("/readyz")).json()
    assert any(
        "impossible.yaml:5" in problem and "cannot go on from a picture" in problem
        for problem in state["policy_problems"]
    )
    assert set(state["policies"]) == {"new"}
