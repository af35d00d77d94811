"""What is known of a worker's replicas: the best of them counts, the lost are said, and every answer has its age."""

import asyncio
from collections.abc import Mapping

import pytest

from deployments.api.wire.responses import readiness
from deployments.orchestration.availability import Availability
from deployments.orchestration.results import Overview
from deployments.workers.statuses import Sightings
from deployments.workers.worker import State, WorkerStatus
from models.catalogue import load_catalogue
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.planning.plan import make_plan
from router.types import Generate, GenerationRequest

CARDS = load_catalogue({"sd15": {"card": "embedded/sd15"}, "flux": {"card": "embedded/flux"}})


def answer(process: int, **states: str) -> dict[str, WorkerStatus]:
    """What one replica says."""
    return {
        model.replace("_", "-"): WorkerStatus(model, state, "no weights" * (state == "failed"), {"process": process})
        for model, state in states.items()
    }


def ready(statuses: Mapping[str, WorkerStatus]) -> tuple[bool, str]:
    """(ready, status) as `/readyz` has them."""
    cards = tuple(CARDS[model] for model in CARDS.ids())
    is_ready, body = readiness(Overview((), cards, statuses, ()))
    return is_ready, body["status"]


def test_a_worker_that_was_killed_is_said_to_be_lost_until_another_answers() -> None:
    """Starting, ready, lost with the reason while its process is replaced, and ready again."""
    seen = Sightings("cpu", ("sd15", "flux"))
    assert {status.state for status in seen.statuses().values()} == {"starting"}
    assert ready(seen.statuses()) == (False, "starting")
    seen.answered([answer(1, sd15="ready", flux="failed")])
    assert ready(seen.statuses()) == (True, "degraded")
    seen.answered([])
    assert {status.state for status in seen.statuses().values()} == {"lost"}
    assert "worker 'cpu' ended" in seen.statuses()["sd15"].reason
    assert seen.replicas == 0
    assert ready(seen.statuses())[0] is False
    seen.answered([answer(2, sd15="ready", flux="ready")])
    assert seen.statuses()["sd15"].facts == {"process": 2}
    assert ready(seen.statuses()) == (True, "ready")


def test_one_lost_worker_of_two_degrades() -> None:
    """While other workers serve, a lost one makes the application degraded, not unready."""
    other = Sightings("gpu", ("flux",))
    other.answered([answer(1, flux="ready")])
    other.answered([])
    here = Sightings("cpu", ("sd15",))
    here.answered([answer(2, sd15="ready")])
    assert ready({**here.statuses(), **other.statuses()}) == (True, "degraded")


def test_a_model_is_as_well_as_on_its_best_replica() -> None:
    """With two replicas the ready one counts; what is wrong on the other stands beside it."""
    seen = Sightings("cpu", ("sd15",))
    seen.answered([answer(1, sd15="failed"), answer(2, sd15="ready")])
    status = seen.statuses()["sd15"]
    assert (status.state, status.reason) == ("ready", "1 of 2 replicas failed: no weights")
    assert [one.facts["process"] for one in status.each] == [1, 2]
    seen.answered([answer(1, sd15="failed"), answer(2, sd15="failed")])
    assert (seen.statuses()["sd15"].state, seen.statuses()["sd15"].reason) == ("failed", "no weights")
    seen.answered([answer(1, sd15="idle"), answer(2, sd15="starting")])
    assert seen.statuses()["sd15"].state == "idle"


def test_an_answer_that_does_not_come_leaves_the_last_one_with_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/readyz` says how many seconds ago each status was seen."""
    now = [1000.0]
    seen = Sightings("cpu", ("sd15", "flux"), clock=lambda: now[0])
    seen.answered([answer(1, sd15="ready", flux="ready")])
    now[0] += 12.3
    monkeypatch.setattr("deployments.api.wire.responses.time.time", lambda: now[0])
    cards = tuple(CARDS[model] for model in CARDS.ids())
    _, body = readiness(Overview((), cards, seen.statuses(), ()))
    assert (body["models"]["sd15"]["state"], body["models"]["sd15"]["age_s"]) == ("ready", 12.3)


def test_a_worker_that_may_sleep_is_idle_without_a_replica() -> None:
    """With `min_replicas: 0` no replica is no fault: its models can be used, and the application is ready."""
    seen = Sightings("cpu", ("sd15", "flux"), wakes=True)
    assert {status.state for status in seen.statuses().values()} == {"idle"}
    assert ready(seen.statuses()) == (True, "ready")
    seen.answered([answer(1, sd15="ready", flux="ready")])
    seen.answered([])
    assert ready(seen.statuses()) == (True, "ready")


async def test_replicas_are_told_what_waits_and_queues_how_many_there_are() -> None:
    """Asking a worker how it is tells it the seconds of work that wait for it, and the queues its replicas."""
    from ray import serve

    from deployments.cluster.handles import HandleMonitor, HandleWorker

    class Asked:
        async def statuses(self, queued_s: float) -> dict[str, WorkerStatus]:
            return {"sd15": WorkerStatus("sd15", "ready", "", {"queued_s": queued_s})}

    handle = serve.run(serve.deployment(Asked).bind(), _local_testing_mode=True)
    monitor = HandleMonitor({"cpu": (HandleWorker(handle), Sightings("cpu", ("sd15",)))})
    monitor.queues = queues = Queues(CostModel(CARDS), {"cpu": 3}, {"sd15": "cpu"})
    queues.reserve(make_plan("draft", Generate("sd15"), GenerationRequest("a red circle"), CARDS, {}))
    status = (await monitor.statuses())["sd15"]
    assert status.facts["queued_s"] == queues.outstanding_at_s("cpu") > 0
    assert queues.replicas("sd15") == 1


def test_a_model_that_left_the_memory_is_waited_for_as_long_as_it_loaded_last() -> None:
    """Idle models take the seconds of their last load, those never loaded the longest of their worker, others none."""

    def was(state: State, load_s: float | None) -> WorkerStatus:
        return WorkerStatus("", state, "", {} if load_s is None else {"loaded_in_s": load_s})

    seen = Sightings("cpu", ("sd15", "sdxl", "flux"), wakes=True)
    assert seen.loading_s() == {"sd15": 0.0, "sdxl": 0.0, "flux": 0.0}
    seen.answered([{"sd15": was("ready", 2.0), "sdxl": was("idle", 3.0), "flux": was("idle", None)}])
    assert seen.loading_s() == {"sd15": 0.0, "sdxl": 3.0, "flux": 3.0}
    seen.answered([])
    assert seen.loading_s() == {"sd15": 2.0, "sdxl": 3.0, "flux": 3.0}


async def test_who_asks_is_told_what_is_known_and_does_not_wait_for_the_busy() -> None:
    """After the first answers, asking how workers are takes a moment, however long they take to answer again."""
    go_on = asyncio.Event()
    go_on.set()

    class Slow:
        async def statuses(self) -> dict[str, WorkerStatus]:
            await go_on.wait()
            return {"sd15": WorkerStatus("sd15", "ready")}

    availability = Availability(Slow())
    assert (await availability.refresh(now=True))["sd15"].state == "ready"
    go_on.clear()
    assert (await asyncio.wait_for(availability.refresh(now=True), 5))["sd15"].state == "ready"
    go_on.set()


async def test_workers_that_cannot_be_asked_at_all_are_an_error() -> None:
    """If nothing is known and asking fails, the reason is raised."""

    class Broken:
        async def statuses(self) -> dict[str, WorkerStatus]:
            raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        await Availability(Broken()).refresh()
