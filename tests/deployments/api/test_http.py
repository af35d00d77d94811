"""HTTP in this process: endpoints, envelopes, headers, and what comes back for bad input."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from deployments.api.app import create_app
from deployments.api.service import Service
from deployments.api.wire.responses import headers
from models.provenance import read_metadata
from policies import PRESETS, load_policy
from tests.deployments.support.policies import SWITCH
from tests.deployments.support.scripted import Keyless

GENERATE = "/v1/images/generations"
EASY = "a red circle"
TWO = "a red circle and a blue square"
HARD = "three small yellow stars above a large blue ring on a black background"


def picture(item: dict[str, Any]) -> Image.Image:
    """The decoded picture of one entry of `data`."""
    return Image.open(io.BytesIO(base64.b64decode(item["b64_json"])))


async def test_an_easy_and_a_hard_prompt_take_different_recipes(client: httpx.AsyncClient) -> None:
    """Under `balanced` both prompts come back as valid PNGs, and the hard one is worth a larger recipe."""
    answers = [
        (await client.post(GENERATE, json={"prompt": prompt, "model": "balanced", "seed": 1})).json()
        for prompt in (EASY, HARD)
    ]
    for answer in answers:
        made = picture(answer["data"][0])
        made.load()
        assert (made.format, f"{made.width}x{made.height}") == ("PNG", answer["size"])
    recipes = [answer["x_triptych"]["recipe"] for answer in answers]
    assert recipes[0] == "draft"
    assert recipes[0] != recipes[1]


async def test_the_answer_says_why(client: httpx.AsyncClient) -> None:
    """`x_triptych` has features, an estimate or a rejection for every recipe, and the steps with seconds and seeds."""
    response = await client.post(GENERATE, json={"prompt": HARD, "seed": 7, "n": 2, "max_cost_usd": 1})
    report = response.json()["x_triptych"]
    accounted = {entry["recipe"] for entry in report["ranking"] + report["rejected"]}
    assert accounted == set(load_policy(PRESETS / "balanced.yaml").recipes)
    assert report["signals"]["counting"] > 0
    assert 0 not in report["features"].values()
    assert report["seeds"] == [made["seed"] for made in report["pictures"]]
    for made in report["pictures"]:
        assert all(step["seconds"] > 0 and step["ended_s"] >= step["started_s"] for step in made["steps"])
        assert all(step["facts"]["revision"] for step in made["steps"] if step["model"])
    chosen = report["estimates"][report["recipe"]]
    assert set(chosen) == {"recipe", "quality", "work_s", "queue_s", "latency_s", "cost_usd"}
    assert response.headers["x-triptych-recipe"] == report["recipe"]
    assert float(response.headers["x-triptych-latency-s"]) == report["latency_s"]


async def test_the_replay_makes_the_same_bytes(client: httpx.AsyncClient) -> None:
    """The request under `replay` gives the same picture again, also if the first had no seed and a policy chose."""
    for body in ({"prompt": HARD}, {"prompt": EASY, "model": "sdxl", "steps": 3, "output_format": "webp"}):
        first = (await client.post(GENERATE, json=body)).json()
        again = (await client.post(GENERATE, json=first["x_triptych"]["replay"])).json()
        assert again["x_triptych"]["recipe"] == first["x_triptych"]["pictures"][0]["recipe"]
        assert np.array_equal(np.asarray(picture(first["data"][0])), np.asarray(picture(again["data"][0])))
        assert again["data"][0]["b64_json"] == first["data"][0]["b64_json"]


async def test_other_pictures_of_a_request_equal_those_of_their_own_seed(client: httpx.AsyncClient) -> None:
    """The second of two pictures with seed 3 is the picture with seed 4, whatever ran beside it."""
    body = {"prompt": EASY, "model": "lab", "recipe": "best"}
    both = (await client.post(GENERATE, json={**body, "seed": 3, "n": 2})).json()
    alone = (await client.post(GENERATE, json={**body, "seed": 4})).json()
    assert both["data"][1]["b64_json"] == alone["data"][0]["b64_json"]
    assert both["data"][0]["b64_json"] != alone["data"][0]["b64_json"]


async def test_the_file_carries_how_it_was_made(client: httpx.AsyncClient) -> None:
    """The PNG names prompt, seed, recipe and the revision of each model."""
    body = {"prompt": EASY, "model": "lab", "recipe": "latents", "seed": 9}
    answer = (await client.post(GENERATE, json=body)).json()
    facts = read_metadata(base64.b64decode(answer["data"][0]["b64_json"]))
    assert (facts["prompt"], facts["seed"], facts["recipe"]) == (EASY, 9, "latents")
    assert facts["models"] == {"sdxl": "tiny", "sdxl-refiner": "tiny"}


@pytest.mark.parametrize(
    ("recipe", "kinds", "note"),
    [
        ("latents", ["generate", "refine"], "hands latents"),
        ("pixels", ["generate", "refine"], "through pixels"),
        ("best", ["generate", "generate", "refine", "score", "select"], "through pixels"),
        ("blended", ["blend", "generate", "generate", "refine"], "hands latents"),
        ("bigger", ["generate", "upscale"], ""),
        ("relay", ["generate", "refine", "refine"], "sdxl-refiner hands latents to sdxl at 0.6"),
        ("tiled", ["generate", "refine", "upscale"], "sd15 works on 9 tiles of 32x32"),
        ("together", ["denoise"], "sdxl and sdxl-turbo predict every step together"),
        ("mixed", ["blend", "generate", "generate", "refine", "refine"], "through pixels"),
        ("objects", ["blend", "generate", "generate", "refine", *["score"] * 3, "select"], "'a red circle', 'a blue"),
    ],
)
async def test_every_kind_of_recipe_runs(client: httpx.AsyncClient, recipe: str, kinds: list[str], note: str) -> None:
    """Chains, relays, tiles and fusions give a picture, name their steps, and say what goes from model to model."""
    answer = (await client.post(GENERATE, json={"prompt": TWO, "model": "lab", "recipe": recipe, "seed": 1})).json()
    report = answer["x_triptych"]
    assert sorted(step["kind"] for step in report["pictures"][0]["steps"]) == kinds
    assert note in " ".join(report["plan"]["notes"])
    taken = report["plan"]["handovers"]
    assert len(taken) == kinds.count("refine")
    assert all(one["kind"] == ("pixels" if one["space"] == "srgb" else "latents") for one in taken)
    made = picture(answer["data"][0])
    if taken:
        assert taken[-1]["size_to"] == "x".join(map(str, made.size)) or recipe in ("best", "blended", "objects")


@pytest.mark.parametrize("model", ["auto", "fast", "lab", "single", "sdxl", "lab/pixels"])
async def test_a_model_may_be_many_things(client: httpx.AsyncClient, model: str) -> None:
    """`model` names a policy, a recipe of the default policy, a policy's recipe, or a model."""
    answer = (await client.post("/v1/route", json={"prompt": EASY, "model": model})).json()
    assert answer["recipe"]
    if model in ("single", "sdxl"):
        assert answer["recipe"] == model


async def test_routing_runs_nothing(client: httpx.AsyncClient) -> None:
    """`/v1/route` explains the decision in the words of a generation, without a step."""
    report = (await client.post("/v1/route", json={"prompt": HARD})).json()
    made = (await client.post(GENERATE, json={**report["replay"]})).json()["x_triptych"]
    assert set(report) <= set(made)
    assert "pictures" not in report
    assert made["plan"]["digest"] == report["plan"]["digest"]


async def test_formats_are_what_was_asked_for(client: httpx.AsyncClient) -> None:
    """The picture is of the asked format and size."""
    for name in ("png", "webp", "jpeg"):
        body = {"prompt": EASY, "model": "sd15", "steps": 2, "output_format": name, "size": "48x64"}
        answer = (await client.post(GENERATE, json=body)).json()
        assert (answer["output_format"], answer["size"]) == (name, "48x64")
        made = picture(answer["data"][0])
        assert (made.format, made.size) == (name.upper(), (48, 64))


BAD = [
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": "a" * 40_000}, 400, "prompt"),
    ({"prompt": 5}, 400, "prompt"),
    ({"n": 0}, 400, "n"),
    ({"n": 11}, 400, "n"),
    ({"size": "33x32", "model": "sd15"}, 422, None),
    ({"size": "9999x9999"}, 422, None),
    ({"model": "no-such-model"}, 404, "model"),
    ({"recipe": "no-such-recipe"}, 404, "recipe"),
    ({"guidance_scale": "NaN"}, 400, "guidance_scale"),
    ({"colour": "red"}, 400, "colour"),
    ({"max_cost_usd": 0}, 422, None),
    ({"model": "broken"}, 503, "model"),
    ({"response_format": "bytes"}, 400, "response_format"),
]


@pytest.mark.parametrize(("body", "status", "param"), BAD)
async def test_bad_input_gets_one_envelope(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, param: str | None
) -> None:
    """Every bad request is answered in OpenAI's error envelope with a message, and the next good one works."""
    text = json.dumps({"prompt": EASY, **body}).replace('"NaN"', "NaN")
    response = await client.post(GENERATE, content=text)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]
    assert (await client.post(GENERATE, json={"prompt": EASY, "model": "sd15", "steps": 1})).status_code == 200


async def test_nothing_left_says_what_was_rejected(client: httpx.AsyncClient) -> None:
    """When no recipe passes, the envelope lists every recipe with its gate and reason."""
    error = (await client.post(GENERATE, json={"prompt": EASY, "max_cost_usd": 0})).json()["error"]
    assert {entry["gate"] for entry in error["rejected"]} == {"request"}
    assert {entry["recipe"] for entry in error["rejected"]} == set(load_policy(PRESETS / "balanced.yaml").recipes)


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/v1/nothing", b"", 404),
        ("GET", GENERATE, b"", 405),
        ("POST", GENERATE, b"{", 400),
        ("POST", GENERATE, b"[]", 400),
        ("POST", GENERATE, b" " * 2_000_000, 413),
        ("GET", "/v1/models/no/such", b"", 404),
    ],
)
async def test_every_failure_is_an_envelope(
    client: httpx.AsyncClient, method: str, path: str, content: bytes, status: int
) -> None:
    """Wrong URLs, methods and bodies are answered as OpenAI's envelope, too."""
    response = await client.request(method, path, content=content)
    assert response.status_code == status
    assert response.json()["error"]["message"]


async def test_an_unforeseen_failure_shows_its_id_and_nothing_else(settings: Any) -> None:
    """A bug becomes a 500 that names the request id; no text of the exception leaves the server."""

    class Failing(Keyless):
        async def route(self, request: Any) -> Any:
            raise ZeroDivisionError("the secret")

    app = create_app(Service(Failing(), settings.limits), settings.limits)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as client:
        response = await client.post("/v1/route", json={"prompt": "x"}, headers={"x-request-id": "my-id"})
    assert response.status_code == 500
    assert "my-id" in response.json()["error"]["message"]
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "my-id"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1", True), ("", False), ("with space", False), ("x" * 128, True), ("x" * 129, False), ("größe", False)],
)
async def test_a_request_has_one_id(client: httpx.AsyncClient, given: str, kept: bool) -> None:
    """A sound id of the client is kept, a missing or unsound one replaced, and header and body say the same one."""
    sent = {"x-request-id": given.encode("latin-1")} if given else {}
    response = await client.post("/v1/route", json={"prompt": EASY}, headers=sent)
    assert response.headers.get_list("x-request-id") == [response.json()["request_id"]]
    assert (response.json()["request_id"] == given) is kept
    assert response.json()["request_id"]


async def test_a_failure_by_handle_names_the_id_that_was_used(settings: Any) -> None:
    """The envelope of an unforeseen failure names the id under which the request went to the orchestrator."""
    seen = []

    class Failing:
        async def complete(self, submission: Any) -> Any:
            seen.append(submission.request.id)
            raise ZeroDivisionError

    service = Service(Failing(), settings.limits)  # type: ignore[arg-type]
    failed = await service.answer(lambda request_id: service.generate({"prompt": "x"}, request_id))
    assert f"request id {seen[0]}" in failed["error"]["message"]


async def test_models_are_listed_once_each(client: httpx.AsyncClient) -> None:
    """The list has auto, policies, recipes and models; each can be looked up by its id."""
    models = (await client.get("/v1/models")).json()["data"]
    names = [model["id"] for model in models]
    assert len(names) == len(set(names))
    assert {"auto", "balanced", "lab", "draft", "sd15", "sdxl", "flux"} <= set(names)
    assert "sdxl-refiner" not in names
    assert (await client.get("/v1/models/flux")).json()["x_triptych"]["family"] == "flux"
    assert (await client.get("/v1/models/lab/pixels")).json()["id"] == "lab/pixels"


async def test_a_missing_weight_file_takes_out_one_model(client: httpx.AsyncClient) -> None:
    """A model without weights is reported with its remedy under /readyz, and all others go on."""
    await client.post(GENERATE, json={"prompt": EASY, "model": "broken"})
    response = await client.get("/readyz")
    body = response.json()
    assert (response.status_code, body["status"]) == (200, "degraded")
    assert body["models"]["broken"]["state"] == "failed"
    assert "nowhere" in body["models"]["broken"]["reason"]
    error = (await client.post(GENERATE, json={"prompt": EASY, "model": "lab", "recipe": "lost"})).json()["error"]
    assert error["code"] == "model_not_loaded"
    report = (await client.post(GENERATE, json={"prompt": EASY, "model": "lab"})).json()["x_triptych"]
    assert ("lost", "capability") in {(r["recipe"], r["gate"]) for r in report["rejected"]}


async def test_the_next_request_follows_a_changed_policy(client: httpx.AsyncClient, policy_folder: Path) -> None:
    """An edited policy file counts for the next request; a broken one changes nothing and is reported."""
    file = policy_folder / "switch.yaml"
    recipes = []
    for text in (
        SWITCH.format(only="first"),
        SWITCH.format(only="second"),
        "name: [broken",
        SWITCH.format(only="first"),
    ):
        file.write_text(text)
        report = (await client.post("/v1/route", json={"prompt": EASY, "model": "switch"})).json()
        recipes.append(report["recipe"])
        problems = (await client.get("/readyz")).json()["policy_problems"]
        assert bool(problems) is ("broken" in text)
        assert all("switch.yaml:" in problem for problem in problems)
    assert recipes == ["first", "second", "second", "first"]


async def test_the_index_names_every_endpoint(client: httpx.AsyncClient, app: Any) -> None:
    """`GET /` and the OpenAPI document agree on what is here."""
    listed = set((await client.get("/")).json()["endpoints"])
    paths = (await client.get("/openapi.json")).json()["paths"]
    real = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert real - listed == {"GET /v1/models/{name}"}


def test_headers_are_plain_text() -> None:
    """Decision headers hold nothing that HTTP could not carry."""
    report = {"recipe": "draft", "policy": "balanced", "policy_digest": "0123456789ab", "latency_s": 1.5}
    report["cost_usd"] = 1.23456789e-05
    assert headers(report)["x-triptych-cost"] == "1.23457e-05"
