"""Workers on a real Ray: killed, put to sleep, woken, multiplied and replaced while requests come."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.settings import parse_settings
from tests.conftest import RayApp, store_in

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NAME = "workers"
PATIENCE_S = 300.0
IMAGES = f"/{NAME}/v1/images/generations"
POLICY = """
version: 1
name: plain
recipes:
  sd15: {generate: {model: sd15}}
  flux: {generate: {model: flux}}
objective: {minimise: latency_s}
"""
SLEEPER = {
    "min_replicas": 0,
    "max_replicas": 2,
    "target_queued_s": 1.0,
    "upscale_delay_s": 0.0,
    "downscale_delay_s": 2.0,
}


def settings(ray_app: RayApp, folder: Path, threads: int = 1) -> dict[str, Any]:
    """sd15 on a worker with two replicas, flux on one that sleeps when nothing is asked of it."""
    models = {model: dict(ray_app.settings["models"][model]) for model in ("sd15", "flux")}
    for chosen in models.values():
        chosen.pop("num_gpus", None)
    models["sd15"] |= {"replicas": 2, "threads": threads}
    models["flux"] |= {"replicas": SLEEPER}
    policies = {"directory": str(folder), "default": "plain"}
    apart = {"store": store_in(folder.with_name(f"{folder.name}-store")), "feedback": {"log": False}, "ingress": {}}
    return {**ray_app.settings, **apart, "models": models, "policies": policies}


def deploy(ray_app: RayApp, folder: Path, threads: int = 1) -> None:
    """Put the application in place, beside the one of all tests."""
    from ray import serve

    from deployments.app import build

    application = build(parse_settings(settings(ray_app, folder, threads)))
    serve.run(application, name=NAME, route_prefix=f"/{NAME}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policies of the application."""
    made = tmp_path_factory.mktemp("plain")
    (made / "plain.yaml").write_text(POLICY)
    return made


@pytest.fixture(scope="module")
async def client(ray_app: RayApp, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which is there for the tests of this file."""
    from ray import serve

    await asyncio.to_thread(deploy, ray_app, folder)
    async with httpx.AsyncClient(base_url=ray_app.url, timeout=PATIENCE_S) as made:
        yield made
    await asyncio.to_thread(serve.delete, NAME)


async def models(client: httpx.AsyncClient) -> dict[str, Any]:
    """How the models are."""
    return dict((await client.get(f"/{NAME}/readyz")).json()["models"])


async def processes(client: httpx.AsyncClient, model: str) -> set[int]:
    """The processes of its worker."""
    state = (await models(client))[model]
    return {one["process"] for one in state.get("replicas", [state]) if "process" in one}


async def until(holds: Callable[[], Awaitable[Any]], what: str) -> Any:
    """What `holds` returns once it is true; `PATIENCE_S` at most, since a process takes long to start on a busy
    machine."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := await holds():
            return found
        await asyncio.sleep(0.3)
    raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")


class Load:
    """Clients that ask one picture after the other until they are told to stop."""

    def __init__(self, client: httpx.AsyncClient, model: str, clients: int) -> None:
        self.client, self.model, self.clients = client, model, clients
        self.statuses: Counter[int] = Counter()
        self.texts: list[str] = []
        self._stop = False

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._ask(k)) for k in range(self.clients)]
        await self.more(self.clients)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def more(self, number: int) -> None:
        """Wait until so many more were answered."""
        due = self.statuses.total() + number

        async def enough() -> bool:
            return self.statuses.total() >= due

        await until(enough, f"{number} more answers")

    async def _ask(self, number: int) -> None:
        while not self._stop:
            body = {"prompt": "a red circle", "model": self.model, "seed": number}
            answer = await self.client.post(IMAGES, json=body)
            self.statuses[answer.status_code] += 1
            if answer.status_code != 200:
                self.texts.append(answer.text)


async def test_one_of_two_killed_replicas_is_not_missed(client: httpx.AsyncClient) -> None:
    """A replica is killed under load: every request is answered, and the next ones do not wait for its successor."""

    async def both() -> set[int]:
        found = await processes(client, "sd15")
        return found if len(found) == 2 else set()

    there = await until(both, "two replicas")
    async with Load(client, "sd15", 4) as load:
        os.kill(min(there), signal.SIGKILL)
        await load.more(12)
        early = await processes(client, "sd15")
        now = await until(both, "two replicas again")
        await load.more(4)
    assert load.statuses.keys() == {200}, load.texts
    assert early == {max(there)}
    assert min(there) not in now


async def test_a_worker_without_a_process_is_lost_and_comes_back(client: httpx.AsyncClient) -> None:
    """When all replicas of a worker are killed, `/readyz` says that its model is lost, and later that it is back;
    a request that comes meanwhile waits, and is answered."""
    for process in await processes(client, "sd15"):
        os.kill(process, signal.SIGKILL)

    async def state(wanted: str) -> Any:
        found = (await models(client))["sd15"]
        return found if found["state"] == wanted else None

    lost = await until(lambda: state("lost"), "lost")
    assert "another one is being started" in lost["reason"]
    assert (await client.get(f"/{NAME}/readyz")).json()["status"] == "degraded"
    answer = await client.post(IMAGES, json={"prompt": "a red circle", "model": "sd15"})
    assert answer.status_code == 200, answer.text
    back = await until(lambda: state("ready"), "ready")
    assert back["age_s"] < 60


async def test_a_sleeping_worker_wakes_once_and_others_serve_meanwhile(client: httpx.AsyncClient) -> None:
    """The first requests for a model without a replica wait for one and the same process, while another model draws;
    when nothing is asked of it any more, it is gone again."""

    async def asleep() -> bool:
        return (await models(client))["flux"]["state"] == "idle"

    await until(asleep, "idle")
    asked = {"prompt": "a red circle", "model": "flux", "steps": 2}
    waking = [asyncio.create_task(client.post(IMAGES, json={**asked, "seed": seed})) for seed in range(3)]
    async with Load(client, "sd15", 1) as load:
        await load.more(2)
        assert not any(task.done() for task in waking)
        answers = await asyncio.gather(*waking)
    assert [answer.status_code for answer in answers] == [200] * 3, [answer.text for answer in answers]
    assert load.statuses.keys() == {200}, load.texts
    assert len(await processes(client, "flux")) == 1
    await until(asleep, "idle again")


async def test_seconds_that_wait_bring_another_replica(client: httpx.AsyncClient) -> None:
    """When more seconds of work wait than a replica should have, a second one is started."""
    asked = {"prompt": "a red circle", "model": "flux", "steps": 120}
    many = [asyncio.create_task(client.post(IMAGES, json={**asked, "seed": seed})) for seed in range(24)]

    async def two() -> bool:
        return len(await processes(client, "flux")) == 2

    await until(two, "two replicas")
    answers = await asyncio.gather(*many)
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]


async def test_a_rolling_update_loses_nothing(client: httpx.AsyncClient, ray_app: RayApp, folder: Path) -> None:
    """While workers, orchestrator and ingress are replaced by others with changed settings, every request is
    answered."""
    before = await processes(client, "sd15")
    async with Load(client, "sd15", 4) as load:
        await asyncio.to_thread(deploy, ray_app, folder, 2)

        async def replaced() -> bool:
            found = await processes(client, "sd15")
            return len(found) == 2 and not found & before

        await until(replaced, "two new replicas")
        await load.more(4)
    assert load.statuses.keys() == {200}, load.texts
