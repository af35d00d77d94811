"""Clients that people have, unchanged, over a real socket: OpenAI's for Python and JavaScript, and LiteLLM."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from deployments.api.app import create_app
from deployments.api.keys import Gate
from deployments.api.service import Service
from deployments.assembly import jobs_in
from deployments.jobs import limits as key_limits
from deployments.jobs.keys import hash_of, new_key, new_key_id
from deployments.settings import AppSettings, StoreSettings
from deployments.store import open_store
from deployments.store.records import KeyRecord
from router.errors import StepError
from router.types import Picture, Progress, Step, StepResult
from tests.conftest import store_in
from tests.deployments.support.listening import listening
from tests.deployments.support.scripted import Script, scripted

JS = Path(__file__).parent / "js"
POLICY = """
recipes: {draft: {generate: {model: sd15}}}
objective: {minimise: cost_usd}
safety: {text: [{check: words, words: [gory], action: block}]}
"""
PROMPT = "a red circle"


class Moody(Script):
    """Fails on what is broken, is late for what is slow, and shows previews."""

    async def run(self, step: Step, inputs: Any, deadline_s: float, on_progress: Any = None) -> StepResult:
        prompt = str(step.settings.get("prompt"))
        if "broken" in prompt:
            raise StepError("the step failed, as it was asked to")
        if "slow" in prompt:
            await asyncio.sleep(30)
        result = await super().run(step, inputs, deadline_s, on_progress)
        if on_progress is not None and isinstance(result.value, Picture):
            for done in range(1, 7):
                on_progress(Progress(step.id, done, 6, result.value))
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
        return result


@dataclass(frozen=True)
class Listening:
    """A server. key: of scope generate;   throttled: one that may send one request in a second"""

    url: str
    key: str
    throttled: str

    def client(self, **options: Any) -> openai.OpenAI:
        """OpenAI's client, strict about every field."""
        chosen = {"api_key": self.key, "max_retries": 0, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", _strict_response_validation=True, **chosen)


@pytest.fixture(scope="module")
def server(settings: AppSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """The application over workers that take no time, with keys, whose minutes last a second."""
    folder = tmp_path_factory.mktemp("conformance")
    (folder / "policies").mkdir()
    settings = settings.model_copy(update={"store": StoreSettings(**store_in(folder / "state"))})
    orchestrator, _ = scripted(settings, folder / "policies", Moody({}), {"main": POLICY})
    store = open_store(settings.store)
    keys = [new_key(), new_key()]
    for key, rpm in zip(keys, (None, 1), strict=True):
        store.add_key(KeyRecord(new_key_id(), hash_of(key), "acme", rpm=rpm))
    service = Service(jobs_in(store, settings, orchestrator), settings.limits, settings.urls, settings.webhooks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_limits, "MINUTE_S", 1.0)
        with listening(create_app(service, settings.limits, gate=Gate("auto", True))) as url:
            yield Listening(url, *keys)
    store.close()


# ----------------------------------------------------------------------------------------------------- OpenAI, Python


def test_python_generates_streams_and_lists(server: Listening) -> None:
    """`images.generate` in every form, and `models`, pass strict validation."""
    client = server.client()
    answer = client.images.generate(prompt=PROMPT, model="auto", n=2, size="64x64", user="ann", quality="auto")
    assert [base64.b64decode(item.b64_json or "")[1:4] for item in answer.data or ()] == [b"PNG", b"PNG"]
    (item,) = client.images.generate(prompt=PROMPT, response_format="url").data or ()
    assert httpx.get(item.url or "").headers["content-type"] == "image/png"
    answer = client.images.generate(prompt=PROMPT, output_format="jpeg", output_compression=80, background="opaque")
    assert base64.b64decode((answer.data or ())[0].b64_json or "")[:2] == b"\xff\xd8"
    events = list(client.images.generate(prompt=PROMPT, stream=True, partial_images=2, size="64x64"))
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_image", "partial_image", "completed"]
    names = [model.id for model in client.models.list()]
    assert {"auto", "main", "draft", "sd15"} <= set(names)
    assert client.models.retrieve("main/draft").id == "main/draft"


def test_python_polls_jobs(server: Listening) -> None:
    """A job is accepted at once, asked for until it is done, and its pictures are at their addresses."""
    client = server.client()
    job = client.post("/jobs", body={"prompt": PROMPT, "n": 2}, cast_to=dict[str, Any])  # type: ignore[type-var]
    for _ in range(200):
        if job["state"] in ("done", "failed"):
            break
        time.sleep(0.025)
        job = client.get(f"/jobs/{job['id']}", cast_to=dict[str, Any])  # type: ignore[type-var]
    assert job["state"] == "done"
    assert [httpx.get(one["url"]).status_code for one in job["pictures"]] == [200, 200]


ASKED: list[tuple[type[openai.APIStatusError], str, dict[str, Any]]] = [
    (openai.BadRequestError, "invalid_value", {"prompt": ""}),
    (openai.BadRequestError, "content_policy_violation", {"prompt": "a gory circle"}),
    (openai.BadRequestError, "unsupported_value", {"background": "transparent"}),
    (openai.NotFoundError, "model_not_found", {"model": "nothing"}),
    (openai.UnprocessableEntityError, "no_recipe", {"size": "9999x9999"}),
    (openai.InternalServerError, "step_failed", {"prompt": "a broken circle"}),
    (openai.InternalServerError, "deadline_exceeded", {"prompt": "slow", "extra_body": {"latency_budget_s": 0.5}}),
]


@pytest.mark.parametrize(("kind", "code", "sent"), ASKED, ids=[code for _, code, _ in ASKED])
def test_python_raises_its_own_errors(server: Listening, kind: Any, code: str, sent: dict[str, Any]) -> None:
    """Each failure is the class of the client's that has its status, with our code and words."""
    with pytest.raises(kind) as caught:
        server.client().images.generate(**{"prompt": PROMPT, **sent})
    assert caught.value.code == code and len(caught.value.message) > 20
    assert caught.value.request_id


def test_python_raises_its_own_errors_about_keys_and_repetition(server: Listening) -> None:
    """401, 403 and 409 have their classes, too."""
    with pytest.raises(openai.AuthenticationError) as unknown:
        server.client(api_key="tp_wrong").images.generate(prompt=PROMPT)
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as scope:
        server.client().get("/policies", cast_to=dict[str, Any])  # type: ignore[type-var]
    assert scope.value.code == "scope_missing"
    header = {"Idempotency-Key": f"python-{time.time()}"}
    server.client().images.generate(prompt=PROMPT, extra_headers=header)
    with pytest.raises(openai.ConflictError) as other:
        server.client().images.generate(prompt="another", extra_headers=header)
    assert other.value.code == "idempotency_mismatch"


def test_python_tries_again_when_it_is_told_when(server: Listening) -> None:
    """A key that has sent what it may gets 429 with the seconds, after which the client's own retry succeeds."""
    time.sleep(1.1)
    client = server.client(api_key=server.throttled)
    client.images.generate(prompt=PROMPT)
    with pytest.raises(openai.RateLimitError) as caught:
        client.images.generate(prompt=PROMPT)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert client.with_options(max_retries=2).images.generate(prompt=PROMPT).data


# ------------------------------------------------------------------------------------------------- OpenAI, JavaScript


def node_modules() -> Path:
    """What `npm ci` put there; skips with the reason where it did not."""
    if shutil.which("node") is None:
        pytest.skip("there is no node on this machine")
    if not (JS / "node_modules" / "openai").is_dir():
        pytest.skip(f"run `npm ci` in {JS.relative_to(Path.cwd()) if JS.is_relative_to(Path.cwd()) else JS} first")
    return JS / "node_modules"


def test_javascript_conforms(server: Listening) -> None:
    """OpenAI's JavaScript client: every claim of conformance.mjs holds."""
    node_modules()
    time.sleep(1.1)
    run = ["node", "conformance.mjs", server.url, server.key, server.throttled]
    done = subprocess.run(run, cwd=JS, capture_output=True, text=True, timeout=120)
    claims = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one for one in claims if not one["ok"]] == [], done.stderr
    assert len(claims) == 25


# -------------------------------------------------------------------------------------------------------------- LiteLLM

LITELLM = """
import json, sys
import litellm
url, key, model = sys.argv[1:]
asked = dict(api_base=url, api_key=key)
made = litellm.image_generation(model=model, prompt="a red circle", n=2, size="64x64", **asked)
messages = [{"role": "user", "content": "a red circle"}]
chat = litellm.completion(model=model, messages=messages, modalities=["image", "text"], **asked)
text = "".join(
    chunk.choices[0].delta.content or ""
    for chunk in litellm.completion(model=model, messages=messages, stream=True, **asked)
)
try:
    litellm.image_generation(model=model, prompt="a gory circle", **asked)
    refused = ""
except litellm.BadRequestError as error:
    refused = str(error)
(image,) = chat.choices[0].message.images
files = [one.b64_json[:5] for one in made.data]
print(json.dumps({"images": files, "chat": image["image_url"]["url"][:22], "stream": text[:33], "refused": refused}))
"""
MASTER = "sk-0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1", "LITELLM_LOG": "ERROR"}


def litellm_python() -> str:
    """A Python with LiteLLM: that of TRIPTYCH_LITELLM_PYTHON, or else this one. Skips with the reason without it."""
    python = os.environ.get("TRIPTYCH_LITELLM_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import litellm"], capture_output=True, env={**os.environ, **QUIET})
    if found.returncode:
        pytest.skip(f"{python} has no litellm: pip install litellm, or name another under TRIPTYCH_LITELLM_PYTHON")
    return python


def asked_by_litellm(url: str, key: str, model: str) -> dict[str, Any]:
    """What LiteLLM's client reads of our answers."""
    run = [litellm_python(), "-c", LITELLM, url, key, model]
    done = subprocess.run(run, capture_output=True, text=True, timeout=240, env={**os.environ, **QUIET})
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def holds(found: dict[str, Any]) -> None:
    """Pictures from both endpoints, in a stream too, and a refusal in its words."""
    assert found["images"] == ["iVBOR", "iVBOR"]
    assert found["chat"] == "data:image/png;base64,"
    assert found["stream"] == "![picture](data:image/png;base64,"
    assert "gory" in found["refused"]


@pytest.mark.slow
def test_litellm_is_a_client(server: Listening) -> None:
    """`litellm.image_generation` and `litellm.completion` find pictures where they look for them."""
    holds(asked_by_litellm(f"{server.url}/v1", server.key, "openai/auto"))


@pytest.mark.slow
def test_litellm_is_a_proxy_before_us(server: Listening, tmp_path: Path) -> None:
    """A LiteLLM proxy in front passes pictures, streams and refusals on."""
    python = litellm_python()
    if subprocess.run(
        [python, "-c", "import litellm.proxy.proxy_server"], capture_output=True, env={**os.environ, **QUIET}
    ).returncode:
        pytest.skip(f"{python} lacks what litellm[proxy] needs; name another under TRIPTYCH_LITELLM_PYTHON")
    target = {"model": "openai/auto", "api_base": f"{server.url}/v1", "api_key": server.key}
    models = [
        {"model_name": "picture", "litellm_params": target, "model_info": {"mode": "image_generation"}},
    ]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": MASTER}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(python).parent / "litellm"),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
    ]
    with (tmp_path / "proxy.log").open("w") as log:
        proxy = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, env={**os.environ, **QUIET}, cwd=tmp_path
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert proxy.poll() is None, (tmp_path / "proxy.log").read_text()[-3000:]
            try:
                if httpx.get(f"{url}/health/liveliness", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        holds(asked_by_litellm(url, MASTER, "openai/picture"))
    finally:
        proxy.terminate()
        proxy.wait(30)
