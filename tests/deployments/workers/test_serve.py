"""The application on Ray Serve, as one: placement, all ways in, cancellation, missing weights, a foreign neighbour."""

import asyncio
import base64
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from models.provenance import read_metadata
from router.errors import StepError
from router.quality.residual import Adapter
from router.registry.artifact import load_artifact
from router.registry.versions import roll_back, succeed
from router.types import Step, StepResult
from tests.conftest import ADMIN_KEY, RayApp
from tests.deployments.support.policies import SWITCH

pytestmark = pytest.mark.ray

GENERATE = "/v1/images/generations"
EASY = "a red circle"
HARD = "three small yellow stars above a large blue ring on a black background"

NEIGHBOUR = """
import hashlib, sys
import ray
from ray import serve

@serve.deployment
class Neighbour:
    async def __call__(self, request):
        triptych = serve.get_app_handle("triptych")
        body = {"prompt": "a red circle", "model": "sd15", "steps": 2, "seed": 3}
        answer = await triptych.generate.remote({**body, "response_format": "bytes"})
        failed = await triptych.generate.remote({"prompt": ""})
        route = await triptych.route.remote(body)
        models = await triptych.models.remote()
        return {
            "sha256": hashlib.sha256(answer["data"][0]["bytes"]).hexdigest(),
            "error": failed["error"],
            "recipe": route["recipe"],
            "models": [model["id"] for model in models["data"]],
            "imported": [name for name in ("router", "policies", "models", "deployments") if name in sys.modules],
        }

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
serve.run(Neighbour.options(ray_actor_options={"num_cpus": 0}).bind(), name="neighbour", route_prefix="/neighbour")
"""


async def test_the_three_models_are_on_three_accelerators(http: httpx.AsyncClient) -> None:
    """sd15, sdxl and flux hold different accelerators of the three that the cluster declares."""
    models = (await http.get("/readyz")).json()["models"]
    places = {(models[name]["node"], models[name]["accelerators"]) for name in ("sd15", "sdxl", "flux")}
    assert len(places) == 3
    assert {accelerator for _, accelerator in places} == {"0", "1", "2"}
    assert all(
        models[name]["cuda_visible_devices"] == models[name]["accelerators"] for name in ("sd15", "sdxl", "flux")
    )
    assert len({models[name]["process"] for name in models}) == len(models)


async def test_prompts_take_recipes_by_what_they_ask_for(http: httpx.AsyncClient) -> None:
    """Over HTTP an easy and a hard prompt come back as PNGs of different recipes, with the decision in the headers."""
    recipes = []
    for prompt in (EASY, HARD):
        response = await http.post(GENERATE, json={"prompt": prompt, "model": "quality", "seed": 1})
        assert base64.b64decode(response.json()["data"][0]["b64_json"]).startswith(b"\x89PNG")
        recipes.append(response.headers["x-triptych-recipe"])
    assert recipes == ["draft", "premium"]


@pytest.mark.parametrize("recipe", ["latents", "pixels", "best", "blended"])
async def test_chains_and_fusions_run_across_workers(http: httpx.AsyncClient, recipe: str) -> None:
    """Steps of one plan run on the workers of their models, and each trace says on which weights."""
    body = {"prompt": EASY, "model": "lab", "recipe": recipe, "seed": 2}
    report = (await http.post(GENERATE, json=body)).json()["x_triptych"]
    steps = report["pictures"][0]["steps"]
    assert len(steps) >= 2
    assert all(step["facts"]["model"] == step["model"] for step in steps if step["model"])


async def test_branches_on_different_workers_run_at_once(http: httpx.AsyncClient) -> None:
    """While one branch of a fusion computes, the other one does, too: their times on the accelerators overlap."""
    body = {"prompt": EASY, "model": "lab", "recipe": "aside", "seed": 2, "steps": 100}
    steps = (await http.post(GENERATE, json=body)).json()["x_triptych"]["pictures"][0]["steps"]
    spans = [(s["ended_s"] - s["seconds"], s["ended_s"]) for s in steps if s["kind"] == "generate"]
    assert len(spans) == 2
    assert max(begin for begin, _ in spans) < min(end for _, end in spans)


async def test_several_steps_go_to_a_worker_as_one(http: httpx.AsyncClient) -> None:
    """A batch that crosses to a worker's process comes back as one result for each step, an error where one was wrong,
    with the progress of each."""
    from ray import serve

    from deployments.cluster.handles import HandleWorker

    worker = HandleWorker(serve.get_deployment_handle("worker-sd15", "triptych"))
    told: list[tuple[int, float]] = []
    steps = [
        Step(f"step {seed}", "generate", "sd15", (), "image", {"prompt": EASY, "seed": seed, "steps": steps})
        for seed, steps in ((0, 4), (1, 0), (2, 4))
    ]
    for listener in (None, lambda number, progress: told.append((number, progress.done / progress.total))):
        made = await worker.run_batch(steps, [()] * 3, 60, listener)
        assert [type(result) for result in made] == [StepResult, StepError, StepResult]
        assert "steps 0 is not" in str(made[1])
        assert isinstance(made[0], StepResult) and made[0].facts["batch"] == 2
    assert {number for number, _ in told} == {0, 2}
    assert [share for _, share in told][-2:] == [1.0, 1.0]


async def test_http_handle_and_process_give_the_same_bytes(http: httpx.AsyncClient, service: Any) -> None:
    """The same request with the same seed is the same file over HTTP, through the handle, and without Ray."""
    from ray import serve

    for recipe in ("best", "latents"):
        body = {"prompt": EASY, "model": "lab", "recipe": recipe, "seed": 5, "n": 2}
        over_http = (await http.post(GENERATE, json=body)).json()
        by_handle = await serve.get_app_handle("triptych").generate.remote({**body, "response_format": "bytes"})
        in_process = await service.generate(body)
        files = [base64.b64decode(item["b64_json"]) for item in over_http["data"]]
        assert files == [item["bytes"] for item in by_handle["data"]]
        assert files == [base64.b64decode(item["b64_json"]) for item in in_process["data"]]
        assert read_metadata(files[1])["seed"] == 6


def test_openais_client_works_unchanged(ray_app: RayApp) -> None:
    """The synchronous client, strict about the response, generates and streams over a real socket."""
    with openai.OpenAI(
        base_url=f"{ray_app.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as client:
        answer = client.images.generate(prompt=EASY, model="lab", size="32x32")
        assert answer.data
        arrived = []
        for event in client.images.generate(
            prompt=EASY, model="sd15", stream=True, partial_images=3, extra_body={"steps": 40, "seed": 1}
        ):
            arrived.append((event.type, time.monotonic()))
    assert [kind.rpartition(".")[2] for kind, _ in arrived] == ["partial_image"] * 3 + ["completed"]
    assert arrived[-1][1] - arrived[0][1] > 0.1, "previews are flushed while the step runs"


async def test_the_next_request_follows_the_policy_file(http: httpx.AsyncClient, ray_app: RayApp) -> None:
    """An edited policy is in force for the next request of a running application, and a broken one is not."""
    recipes = []
    for text in (
        SWITCH.format(only="first"),
        SWITCH.format(only="second"),
        "version: 1\nname: {",
        SWITCH.format(only="first"),
    ):
        (ray_app.policies / "switch.yaml").write_text(text)
        response = await http.post(GENERATE, json={"prompt": EASY, "model": "switch"})
        recipes.append(response.json()["x_triptych"]["recipe"])
    assert recipes == ["first", "second", "second", "first"]


async def test_fifty_swaps_under_load_drop_and_mix_nothing(http: httpx.AsyncClient, ray_app: RayApp) -> None:
    """While a policy is put fifty times, over two orchestrators, no request fails, and each is answered by a version
    that was in force between its start and its end."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    url, texts = "/v1/policies/switch", [SWITCH.format(only=only) for only in ("second", "first")]
    present = (await http.put(url, content=texts[1], headers=headers)).json()["digest"]
    in_force = {present: [(0.0, float("inf"))]}
    answers: list[tuple[float, float, httpx.Response]] = []
    done = asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            began = time.monotonic()
            response = await http.post(GENERATE, json={"prompt": EASY, "model": "switch"})
            answers.append((began, time.monotonic(), response))

    load = [asyncio.create_task(ask()) for _ in range(3)]
    for k in range(50):
        began = time.monotonic()
        put = await http.put(url, content=texts[k % 2], headers=headers)
        assert put.status_code == 200, put.text
        in_force[present][-1] = (in_force[present][-1][0], time.monotonic())
        present = put.json()["digest"]
        in_force.setdefault(present, []).append((began, float("inf")))
        while len(answers) < k:  # so that requests end between swaps, however fast this machine is
            assert not any(task.done() for task in load)
            await asyncio.sleep(0.01)
    done.set()
    await asyncio.gather(*load)
    assert {response.status_code for *_, response in answers} == {200}
    assert len(answers) >= 49
    recipes = {}
    for began, ended, response in answers:
        digest = response.headers["x-triptych-policy-digest"]
        assert any(start <= ended and began <= end for start, end in in_force[digest])
        assert (
            recipes.setdefault(digest, response.headers["x-triptych-recipe"]) == response.headers["x-triptych-recipe"]
        )
    assert set(recipes.values()) == {"first", "second"}
    versions = (await http.get(url, headers=headers)).json()["versions"]
    assert len(versions) >= 50


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": "a" * 40_000}, 400),
        ({"prompt": EASY, "n": 11}, 400),
        ({"prompt": EASY, "model": "sdxll"}, 404),
        ({"prompt": EASY, "size": "33x33", "model": "sd15"}, 422),
        ({"prompt": EASY, "max_cost_usd": 0}, 422),
        ({"prompt": EASY, "model": "broken"}, 503),
    ],
)
async def test_failures_cross_the_processes_as_envelopes(
    http: httpx.AsyncClient, body: dict[str, Any], status: int
) -> None:
    """What fails in the orchestrator or a worker arrives as OpenAI's envelope with its own status and message."""
    response = await http.post(GENERATE, json=body)
    error = response.json()["error"]
    assert response.status_code == status
    assert error["message"]
    assert "Traceback" not in response.text
    assert len(response.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("given", ["sound-1", "with space", "x" * 200])
async def test_header_and_body_name_one_request(http: httpx.AsyncClient, given: str) -> None:
    """Through Serve's proxy, too, an unsound id is replaced, once, and header and body say the same one."""
    response = await http.post("/v1/route", json={"prompt": EASY}, headers={"x-request-id": given})
    assert response.headers.get_list("x-request-id") == [response.json()["request_id"]]
    assert (response.json()["request_id"] == given) is (given == "sound-1")


async def test_missing_weights_take_out_one_model_only(http: httpx.AsyncClient) -> None:
    """The application runs although one worker has no weights; that model says why, and its recipes are refused."""
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "nowhere" in ready.json()["models"]["broken"]["reason"]
    report = (await http.post("/v1/route", json={"prompt": EASY, "model": "lab"})).json()
    assert [r["gate"] for r in report["rejected"] if r["recipe"] == "lost"] == ["capability"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_finds_its_pictures(http: httpx.AsyncClient, stream: bool) -> None:
    """After a disconnect the job goes on; the same request with the same key gets all of its pictures."""
    body = {"prompt": EASY, "model": "lab", "recipe": "flux", "steps": 90, "n": 3, "seed": 5, "stream": stream}
    key = {"Idempotency-Key": f"left-{stream}"}
    leaving = asyncio.create_task(http.post(GENERATE, json=body, headers=key))
    await asyncio.sleep(0.3)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    again = await http.post(GENERATE, json=body, headers=key)
    assert again.status_code == 200
    assert again.text.count("b64_json") == 3
    jobs = (await http.get("/v1/jobs", params={"limit": 3})).json()["data"]
    assert sum(job["n"] == 3 and job["progress"] == 1.0 for job in jobs) >= 1


async def test_a_job_that_is_cancelled_frees_its_worker(http: httpx.AsyncClient) -> None:
    """The running step stops within a step, the pictures still to come are not made, and the next request is served."""
    once = {"prompt": EASY, "model": "lab", "recipe": "flux", "steps": 2}  # `lab` has no limit that refuses much work
    job = (await http.post("/v1/jobs", json={**once, "steps": 80, "n": 4})).json()["id"]
    while (await http.get(f"/v1/jobs/{job}")).json()["state"] == "queued":
        await asyncio.sleep(0.05)
    assert (await http.delete(f"/v1/jobs/{job}")).json()["state"] == "cancelled"
    assert (await http.post("/v1/route", json=once)).json()["estimates"]["flux"]["queue_s"] == 0
    assert (await http.post(GENERATE, json=once)).status_code == 200
    assert (await http.get(f"/v1/jobs/{job}")).json()["pictures"] == []


async def test_a_foreign_application_calls_by_handle(http: httpx.AsyncClient, tmp_path: Path) -> None:
    """An application with none of our modules generates through the handle; only builtins cross the border."""
    import hashlib

    import ray
    from ray import serve

    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    address = ray.get_runtime_context().gcs_address
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "neighbour.py", address]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    try:
        answer = (await http.get("/neighbour")).json()
    finally:
        await asyncio.to_thread(serve.delete, "neighbour")
    body = {"prompt": EASY, "model": "sd15", "steps": 2, "seed": 3}
    ours = (await http.post(GENERATE, json=body)).json()
    assert answer["sha256"] == hashlib.sha256(base64.b64decode(ours["data"][0]["b64_json"])).hexdigest()
    assert answer["error"]["param"] == "prompt"
    assert answer["recipe"] == "sd15"
    assert "balanced" in answer["models"]
    assert answer["imported"] == []


async def test_feedback_finds_its_decision_on_every_way(http: httpx.AsyncClient, ray_app: RayApp) -> None:
    """Pictures of two orchestrators are rated over HTTP and through the handle; all of it is in one log."""
    from ray import serve

    from deployments.store.database import Database
    from deployments.store.decision_log import DecisionLog

    ids = []
    for _ in range(6):
        response = await http.post(GENERATE, json={"prompt": EASY, "model": "switch"})
        ids.append(response.json()["x_triptych"]["request_id"])
        assert response.headers["x-request-id"] == ids[-1]
    by_handle = await serve.get_app_handle("triptych").generate.remote({"prompt": EASY, "model": "switch"})
    ids.append(by_handle["x_triptych"]["request_id"])
    for request_id in ids:
        over_http = await http.post("/v1/feedback", json={"id": request_id, "rating": 5})
        assert over_http.status_code == 200, over_http.text
        again = await serve.get_app_handle("triptych").feedback.remote({"id": request_id, "rating": 3})
        assert (again["value"], again["replaced"]) == (0.5, True)
    unknown = await http.post("/v1/feedback", json={"id": "nobody", "rating": 5})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "id")
    log = DecisionLog(Database(ray_app.settings["store"]["url"]))
    rated = {record.id: said[0].value for record, said in log.rated("rating")}
    assert {request_id: rated.get(request_id) for request_id in ids} == dict.fromkeys(ids, 0.5)


async def test_a_new_artefact_is_followed_and_can_be_taken_back(http: httpx.AsyncClient, ray_app: RayApp) -> None:
    """Put in place under load, an artefact that learned from feedback decides the next request on both orchestrators,
    in the same processes; no request fails or mixes the two, and a rollback is followed the same way."""
    folder, body = Path(ray_app.settings["artifact"]), {"prompt": EASY, "model": "balanced", "seed": 5}
    before = load_artifact(folder)
    columns, width = len(before.config["columns"]), before.weights["support"].shape[1]
    # Feedback without a rated prompt, but with a level for all columns: what is expected moves by as much everywhere.
    adapter = Adapter(np.zeros((0, width)), np.zeros((0, columns)), np.full(columns, -0.1), 1.0, 1.0, before.digest)
    started = {name: one["process"] for name, one in (await http.get("/readyz")).json()["models"].items()}
    routed: list[tuple[str, float]] = []
    failed: list[str] = []
    loading = True

    async def load() -> None:
        while loading:
            answer = await http.post("/v1/route", json=body)
            if answer.status_code != 200:
                failed.append(answer.text)
                continue
            said = answer.json()
            best = max(estimate["quality"]["mean"] for estimate in said["estimates"].values())
            routed.append((said["artifact"], best))

    async def settled(digest: str) -> None:
        """Every orchestrator has followed: as many answers in a row as make a missed replica unlikely."""
        deadline, row = time.monotonic() + 60, 0
        while row < 20:
            assert time.monotonic() < deadline, f"not every orchestrator follows {digest}"
            begun = len(routed)
            while len(routed) == begun:
                await asyncio.sleep(0.01)
            row = row + 1 if all(digest.startswith(found) for found, _ in routed[begun:]) else 0

    tasks = [asyncio.create_task(load()) for _ in range(4)]
    try:
        await settled(before.digest)
        config = {**before.config, "feedback": adapter.config}
        after = succeed(folder, config, {**before.weights, **adapter.weights}, before.card)
        await settled(after.digest)
        assert (await http.post(GENERATE, json=body)).json()["x_triptych"]["artifact"] == after.digest[:12]
        assert roll_back(folder).digest == before.digest
        await settled(before.digest)
    finally:
        loading = False
        await asyncio.gather(*tasks)
        if load_artifact(folder).digest != before.digest:
            succeed(folder, before.config, before.weights, before.card)
    assert not failed
    expected = {digest: {round(best, 6) for found, best in routed if found == digest} for digest, _ in routed}
    assert set(expected) == {before.digest[:12], after.digest[:12]}
    assert all(len(values) == 1 for values in expected.values()), "one artefact, one expectation"
    assert expected[after.digest[:12]] != expected[before.digest[:12]]
    now = {name: one["process"] for name, one in (await http.get("/readyz")).json()["models"].items()}
    assert now == started
