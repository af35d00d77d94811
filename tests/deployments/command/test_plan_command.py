"""`triptych models plan`: lines that a serve config takes, or what stands in the way; and what workers say of their
room.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from deployments.assembly import build_orchestrator, catalogue_of, engine_loader
from deployments.cli.main import app
from deployments.in_process import LocalWorkers
from deployments.orchestration.availability import Availability
from deployments.settings import AppSettings, parse_settings
from deployments.workers.statuses import together
from deployments.workers.worker import ModelWorker, WorkerStatus
from router.errors import LoadError, NoRecipeError, RequestError
from router.types import GenerationRequest

PLACED = """applications:
  - name: triptych
    import_path: deployments.app:build
    args:
      models:
        sd15: {card: real/sd15, device: cuda, num_gpus: 0.5, max_batch: 4}
        small: {card: embedded/sd15, device: cpu}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A serve config with a model on a GPU and one on the CPU."""
    file = tmp_path / "serve.yaml"
    file.write_text(PLACED, encoding="utf-8")
    return file


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["models", "plan", *words], catch_exceptions=False)


def test_a_plan_is_lines_for_the_config(config: Path) -> None:
    """What is printed is taken as it is by the config, names a worker on a GPU, and leaves what is on the CPU there."""
    done = run("--gpu", "4GB", "-c", str(config), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (gpu,) = found["gpus"]
    (fit,) = gpu["models"]
    assert fit["model"] == "sd15" and 2.5 < fit["needs_gb"] < 3.5 and gpu["together"]
    assert set(fit["phases_gb"]) == {"read", "denoise", "decode"} and found["elsewhere"] == {
        "small": "on the CPU, as the config says"
    }
    made = parse_settings({**found["serve"]})
    assert made.models["sd15"].worker == "gpu-0" and made.workers["gpu-0"].device == "cuda"
    assert made.models["sd15"].max_batch == min(4, fit["pictures_at_once"])
    told = run("--gpu", "4GB", "-c", str(config)).stdout
    assert "gpu-0 (4GB): sd15 together" in told
    assert yaml.safe_load(told.partition("under args:")[2]) == found["serve"]


def test_what_fits_nowhere_ends_the_plan(config: Path) -> None:
    """With too little memory for any change, the command says how much is needed and ends with the code for that."""
    with pytest.raises(LoadError, match=r"'sd15' fits on none of these GPUs: it needs \d\.\d GB even with `tuning"):
        run("--gpu", "0.8GB", "-c", str(config))
    done = run("--gpu", "0.8GB", "-c", str(config), "--json")
    assert done.exit_code == 4
    assert json.loads(done.stdout)["refused"][0]["model"] == "sd15"
    for words in (("--gpu", "24"), ("--gpu", "24GB", "--size", "big")):
        with pytest.raises(RequestError):
            run(*words, "-c", str(config))


def test_a_worker_says_how_large_a_picture_it_has_room_for(settings: AppSettings) -> None:
    """With a limit below what the card's largest picture needs, the area that fits is a fact of its status."""
    card = catalogue_of(settings)["sd15"]
    free, tight = (ModelWorker("sd15", engine_loader(card, "cpu", None, 1, limit_gb=limit)) for limit in (None, 0.003))
    for worker in (free, tight):
        worker.load()
        assert worker.loaded, worker.status().reason
    assert "most_pixels" not in free.status().facts
    most = tight.status().facts["most_pixels"]
    assert isinstance(most, int) and 0 < most < card.max_pixels


async def test_what_a_device_has_no_room_for_is_ruled_out_with_the_reason(settings: AppSettings) -> None:
    """A size beyond a model's device is refused in words, one within it is drawn; of replicas the smallest counts."""
    workers = LocalWorkers(settings)

    class Small:
        async def statuses(self) -> dict[str, WorkerStatus]:
            replicas = [WorkerStatus("sd15", "ready", "", {"most_pixels": most}) for most in (4096, 1024)]
            return {"sd15": together(replicas)}

    orchestrator = build_orchestrator(settings, workers.by_model, Small())
    asked = {"prompt": "a red circle", "target": "sd15", "steps": 2}
    with pytest.raises(
        NoRecipeError, match=r"'sd15' would draw 4,096 pixels, and its device has memory for 1,024; ask"
    ):
        await orchestrator.route(GenerationRequest(**asked, width=64, height=64))
    assert (await orchestrator.route(GenerationRequest(**asked, width=32, height=32))).plan.width == 32
    assert Availability(Small()).most_pixels == {}
