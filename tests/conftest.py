"""Shared by all tests: tiny random weights in the real pipeline classes, and one Ray application for the mark `ray`."""

import atexit
import gc
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
STATE = tempfile.mkdtemp(prefix="triptych-state-")
os.environ["XDG_STATE_HOME"] = STATE  # no test writes to the user's own
atexit.register(shutil.rmtree, STATE, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the Ray application come last: its processes idle beside no other test, and failures show early."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is not None)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What is imported and collected by the end of a file stays: a collection of garbage, of which tests of memory ask
    for many, need not look through all of torch and of pytest again each time."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Whatever draws without a seed of its own draws the same in every run, alone or after others."""
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of tests/models/tiny.py."""
    from tests.models import tiny

    root = tmp_path_factory.mktemp("tiny-weights")
    tiny.save_all(root)
    return root


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quality predictor that learned that SD fails on what is complex."""
    from tests.deployments.support.evidence import train_tiny

    return train_tiny(tmp_path_factory.mktemp("artifact") / "quality")


def store_in(folder: Path) -> dict[str, Any]:
    """`store:` of a config, with everything in a folder."""
    return {"url": f"sqlite:///{folder / 'triptych.sqlite'}", "pictures": str(folder / "pictures")}


@pytest.fixture(scope="session")
def tiny_settings(tiny_weights: Path, tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`args` of an application on the tiny weights, with a policy folder that tests may write to."""
    from tests.deployments.support.policies import write_policies
    from tests.deployments.support.tiny_models import model_settings

    folder = write_policies(tmp_path_factory.mktemp("policies"))
    return {
        "models": model_settings(tiny_weights),
        "policies": {"directory": str(folder), "default": "balanced"},
        "artifact": str(tiny_artifact),
        "store": store_in(tmp_path_factory.mktemp("store")),
        "limits": {"request_timeout_s": 60},
    }


ADMIN_KEY = "open sesame"


@dataclass(frozen=True)
class RayApp:
    """The running application. cluster_gpus: accelerators that were declared;   metrics_url: where it is scraped
    logs: the folder of its log lines;   spans: bodies that its processes sent to a collector, OTLP"""

    url: str
    settings: dict[str, Any]
    policies: Path
    metrics_url: str
    logs: Path
    spans: list[bytes]
    cluster_gpus: int = 3


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A collector of traces on loopback: its URL, and what it was sent."""
    sent: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces", sent
    server.shutdown()


@pytest.fixture(scope="session")
def ray_app(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayApp]:
    """Triptych on a Ray of its own with three declared GPUs, one each for sd15, sdxl and flux (they compute on CPU).

    Two ingresses, so that what must hold across replicas is seen to.
    """
    from deployments.cluster.local_cluster import free_port, start
    from deployments.settings import ServeConfig, parse_settings

    models = {name: dict(chosen) for name, chosen in tiny_settings["models"].items()}
    for name in ("sd15", "sdxl", "flux"):
        models[name]["num_gpus"] = 1
    env_vars = {"TRIPTYCH_ADMIN_KEY": ADMIN_KEY}
    settings = {**tiny_settings, "models": models, "env_vars": env_vars, "ingress": {"replicas": 2}}
    port, logs = free_port(), tmp_path_factory.mktemp("logs")
    policies, metrics_url = Path(tiny_settings["policies"]["directory"]), f"http://127.0.0.1:{port}/metrics"
    with collector() as (url, spans):
        settings |= {"metrics": {"port": port}, "logs": {"folder": str(logs)}, "tracing": {"otlp": url}}
        config = ServeConfig(settings=parse_settings(settings))
        with start(config, port=free_port(), num_gpus=3, timeout_s=500) as running:
            yield RayApp(running.url, settings, policies, metrics_url, logs, spans)


@pytest.fixture(scope="session")
async def http(ray_app: RayApp) -> AsyncIterator[Any]:
    """An HTTP client of the Ray application."""
    import httpx

    async with httpx.AsyncClient(base_url=ray_app.url, timeout=60) as client:
        yield client
