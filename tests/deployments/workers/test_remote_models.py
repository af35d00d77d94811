"""Models that another server draws with, over real sockets: another Triptych, and servers that behave badly."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
import yaml

from deployments.api.errors import status_of
from deployments.api.wire.responses import unrepeatable
from deployments.assembly import build_orchestrator, catalogue_of, held_by, host_of, known_of
from deployments.orchestration.metrics import Tally
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.results import Advanced, Event
from deployments.settings import ROOT, AppSettings, ConfigError, parse_settings
from deployments.workers.host import ModelHost
from deployments.workers.worker import WorkerStatus
from models.provenance import encode_image
from policies import load_policy
from router.errors import (
    BusyError,
    LoadError,
    NoRecipeError,
    PolicyError,
    RequestError,
    SafetyError,
    StepError,
    TriptychError,
    WorkerLostError,
)
from router.types import GenerationRequest, Picture, Progress, Step, StepResult
from tests.conftest import store_in
from tests.deployments.support.scripted import GREY, Script
from tests.deployments.support.served import Served, served

POLICY = """
version: 1
name: main
recipes:
  away:     {generate: {model: away}}
  polished: {chain: [away, {refine: {model: sdxl-refiner, strength: 0.5}}]}
  larger:   {chain: [away, {upscale: {factor: 2}}]}
  draft:    {generate: {model: sd15}}
objective: {minimise: latency_s}
"""
STEP = Step("1-generate-away", "generate", "away", (), "image", {"prompt": "a red circle", "width": 64, "height": 64})
Answer = Callable[[dict[str, Any], Callable[[dict[str, Any]], Awaitable[None]]], Awaitable[None]]


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """A real server of an application in this event loop: where its API begins, and the server."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1", server
    finally:
        server.should_exit = server.force_exit = True
        await serving


class Scripted:
    """A server that answers the n-th request for pictures as the n-th answer says, the last one for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes] | Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.ended: list[str] = []
        self.models: tuple[int, bytes] = (200, b'{"data": [{"id": "m"}]}')

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        self.keys.append(headers.get(b"authorization", b"").decode())
        if scope["method"] == "GET":
            status, body = self.models
            await self.say(send, status, {}, body)
            return
        if scope["method"] == "DELETE":
            self.ended.append(scope["path"])
            await self.say(send, 200, {}, b"{}")
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        self.asked.append(json.loads(raw))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            await answer(send)
        else:
            await self.say(send, *answer)

    @staticmethod
    async def say(send: Any, status: int, headers: dict[str, str], body: bytes) -> None:
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})


def drawn(width: int = 64, height: int = 64, **more: Any) -> tuple[int, dict[str, str], bytes]:
    """An answer with a grey picture."""
    file = encode_image(np.full((height, width, 3), 77, np.uint8))
    return 200, {}, json.dumps({"data": [{"b64_json": base64.b64encode(file).decode(), **more}]}).encode()


def refused(status: int, code: str = "", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """An answer with an error of OpenAI's shape."""
    error = {"message": "the words of the other side", "type": "x", "param": None, "code": code}
    return status, headers or {}, json.dumps({"error": error}).encode()


def settings_for(folder: Path, url: str, source: dict[str, Any] | None = None, **more: Any) -> AppSettings:
    """An installation with a model that is drawn at `url`, and embedded ones, whose weights are not loaded."""
    remote = {"url": url, "model": "m", **(source or {})}
    card = {
        "id": "away", "family": "remote", "role": "base", "native_size": [64, 64],
        "native_sizes": [[64, 64], [96, 64]], "seconds_per_step": 0.01, "source": {"remote": remote},
        **more.pop("card", {}),
    }  # fmt: skip
    (folder / "away.yaml").write_text(yaml.safe_dump(card))
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "main.yaml").write_text(more.pop("policy", POLICY))
    models = {name: {"card": f"embedded/{name}"} for name in ("sd15", "sdxl-refiner")}
    return parse_settings(
        {
            "models": {"away": {"card": str(folder / "away.yaml"), **more.pop("away", {})}, **models},
            "policies": {"directory": str(folder / "policies"), "default": "main"},
            "store": store_in(folder / "here"),
            "feedback": {"log": False},
            **more,
        }
    )


@dataclass
class Here:
    """The installation that asks. script: its own workers;   host: the worker of the model that is drawn elsewhere"""

    orchestrator: Orchestrator
    host: ModelHost
    script: Script
    tally: Tally

    async def generate(self, recipe: str = "away", **asked: Any) -> Any:
        on_event = asked.pop("on_event", None)
        request = GenerationRequest("a red circle", **{"seed": 3, **asked}, recipe=recipe)
        return await self.orchestrator.generate(request, on_event)


async def here(settings: AppSettings) -> Here:
    """The real orchestrator and the real worker of the remote model, beside scripted ones."""
    catalogue, script, tally = catalogue_of(settings), Script({}), Tally()
    host = host_of(held_by("away", settings, catalogue), settings.workers["away"], lambda card: {})
    await asyncio.to_thread(host.load)

    class Monitor:
        async def statuses(self) -> dict[str, WorkerStatus]:
            own = {model: WorkerStatus(model, "ready") for model in ("sd15", "sdxl-refiner")}
            return {**own, **host.statuses()}

    workers: dict[str, Any] = {"away": host, "sd15": script, "sdxl-refiner": script}
    return Here(build_orchestrator(settings, workers, Monitor(), tally), host, script, tally)


@asynccontextmanager
async def asking(folder: Path, server: Any, **more: Any) -> AsyncIterator[Here]:
    """An installation whose remote model is drawn by a scripted server."""
    async with listening(server) as (url, _):
        yield await here(settings_for(folder, url, **more))


class Slow(Script):
    """The other side's workers: they tell how far they are with a preview, and go on when they are let."""

    def __init__(self) -> None:
        super().__init__({})
        self.free, self.begun = asyncio.Event(), asyncio.Event()
        self.stopped = 0
        self.steps: list[Step] = []

    async def run(self, step: Any, inputs: Any, deadline_s: float, on_progress: Any = None) -> StepResult:
        self.steps.append(step)
        self.begun.set()
        if on_progress is not None:
            for done in (1, 2, 3):
                on_progress(Progress(step.id, done, 4, Picture(np.full((8, 8, 3), 40 * done, np.uint8))))
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return await super().run(step, inputs, deadline_s, on_progress)


@asynccontextmanager
async def another(folder: Path, script: Script, **more: Any) -> AsyncIterator[tuple[Served, str, uvicorn.Server]]:
    """Another Triptych at a real socket, with a policy that draws with its sd15."""
    models = {name: {"card": f"embedded/{name}"} for name in ("sd15", "sdxl")}
    settings = parse_settings({"models": models, "feedback": {"log": False}, **more})
    folder.mkdir()
    async with served(settings, folder, script) as there, listening(there.app) as (url, server):
        yield there, url, server


TRIPTYCH = {"model": "sd15", "takes": ["seed", "negative_prompt", "steps", "guidance_scale"], "stream": True}


async def test_another_triptych_draws(tmp_path: Path) -> None:
    """A picture of another Triptych comes back with where it is from; seed, steps and size were passed on."""
    script = Slow()
    script.free.set()
    async with another(tmp_path / "there", script) as (_, url, _):
        asks = await here(settings_for(tmp_path, url, TRIPTYCH, card={"steps": 7}))
        made = (await asks.generate(seed=11)).made[0]
    assert made.picture.pixels.shape == (64, 64, 3)
    assert int(made.picture.pixels[0, 0, 0]) == GREY["sd15"]
    assert made.traces[0].facts["remote"] == f"{url.split('/')[2]}/sd15"
    assert made.traces[0].facts["remote_recipe"]
    told = script.steps[0].settings
    assert (told["seed"], told["steps"], told["width"]) == (11, 7, 64)


async def test_what_it_draws_is_refined_and_enlarged_here(tmp_path: Path) -> None:
    """A remote picture goes on through pixels: to a model of this installation, and to a larger size."""
    async with asking(tmp_path, Scripted(drawn())) as asks:
        polished = (await asks.generate("polished")).made[0]
        larger = (await asks.generate("larger")).made[0]
    assert asks.script.ran == ["refine sdxl-refiner"]
    assert int(polished.picture.pixels[0, 0, 0]) == GREY["sdxl-refiner"]
    assert larger.picture.pixels.shape == (128, 128, 3)


async def test_previews_of_the_other_side_arrive(tmp_path: Path) -> None:
    """Partial images that the other side streams are previews here; nobody who does not follow causes any."""
    script = Slow()
    async with another(tmp_path / "there", script) as (_, url, _):
        asks = await here(settings_for(tmp_path, url, {**TRIPTYCH, "previews": 2}))
        events: list[Event] = []
        running = asyncio.ensure_future(asks.generate(on_event=events.append))
        for _ in range(200):
            if len([e for e in events if isinstance(e, Advanced)]) >= 2:
                break
            await asyncio.sleep(0.02)
        script.free.set()
        await running
    heard = [event.progress for event in events if isinstance(event, Advanced)]
    assert [(one.done, one.total) for one in heard] == [(1, 3), (2, 3)]
    assert all(one.preview is not None for one in heard)


async def test_cancelling_reaches_the_other_side(tmp_path: Path) -> None:
    """When nobody waits here any more, the job of the other Triptych is cancelled and its step stops."""
    script = Slow()
    async with another(tmp_path / "there", script) as (there, url, _):
        asks = await here(settings_for(tmp_path, url, TRIPTYCH))
        running = asyncio.ensure_future(asks.generate())
        await asyncio.wait_for(script.begun.wait(), 20)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        (record,) = there.store.jobs(None, (), 5, None)[0]
        assert (await there.done(record.id))["state"] == "cancelled"
    assert script.stopped == 1


async def test_a_job_is_cancelled_that_is_accepted_too_late(tmp_path: Path) -> None:
    """Who goes away before the other Triptych has said which job it is still cancels that job."""

    async def late(send: Any) -> None:
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-triptych-job", b"job_1")]})
        await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
        await asyncio.sleep(1)

    server = Scripted(late)
    async with asking(tmp_path, server, source={"stream": True}) as asks:
        running = asyncio.ensure_future(asks.generate())
        while not server.asked:
            await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert server.ended == ["/v1/jobs/job_1"]


async def test_a_server_that_dies_is_told_and_others_serve(tmp_path: Path) -> None:
    """When the other side dies in the middle, the step is tried again, fails in words that name it, and its recipes are
    ruled out, while models that are here go on."""
    script = Slow()
    async with another(tmp_path / "there", script) as (_, url, server):
        asks = await here(settings_for(tmp_path, url, TRIPTYCH))
        running = asyncio.ensure_future(asks.generate())
        await asyncio.wait_for(script.begun.wait(), 20)
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        for socket in server.servers:
            socket.close()
        with pytest.raises(StepError, match=r"127\.0\.0\.1:\d+/sd15, which draws for 'away', cannot be reached"):
            await asyncio.wait_for(running, 30)
        for _ in range(100):
            if (await asks.orchestrator.availability.refresh(now=True))["away"].state == "failed":
                break
            await asyncio.sleep(0.05)
        status = asks.orchestrator.availability.statuses["away"]
        assert "cannot be reached" in status.reason
        assert status.seen_at is not None
        with pytest.raises(LoadError, match="'away' is not available"):
            await asks.generate()
        assert (await asks.generate("draft")).made
        script.free.set()
    asks.host.check_health()  # a new process would not help


async def test_a_server_without_room_is_asked_again_when_it_says(tmp_path: Path) -> None:
    """After 429 nothing is sent before `Retry-After`, then the picture is made, and the breaker has counted nothing."""
    server = Scripted(refused(429, "overloaded", {"retry-after": "1"}), drawn())
    async with asking(tmp_path, server) as asks:
        began = time.monotonic()
        first = asyncio.ensure_future(asks.generate())
        while not server.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(asks.generate(seed=4))
        await asyncio.gather(first, second)
        assert time.monotonic() - began >= 1
        assert len(server.asked) == 3
        assert asks.orchestrator.step_queues.breaker.state("away") == "closed"


async def test_who_cannot_wait_for_room_is_told_so(tmp_path: Path) -> None:
    """A request whose deadline is before `Retry-After` is refused as overloaded at once, with that time."""
    async with asking(tmp_path, Scripted(refused(429, "", {"retry-after": "90"}))) as asks:
        with pytest.raises(BusyError, match="the words of the other side") as told:
            await asyncio.wait_for(asks.generate(latency_budget_s=30), 10)
    assert told.value.retry_after_s == 90


@pytest.mark.parametrize(
    ("answer", "error", "words", "asked"),
    [
        (refused(401), LoadError, "look at the key|name the environment variable", 1),
        (refused(403), LoadError, "refuses the key", 1),
        (refused(429, "insufficient_quota"), LoadError, "wants to be paid", 1),
        (refused(400), RequestError, "the words of the other side", 1),
        (refused(400, "moderation_blocked"), SafetyError, "the words of the other side", 1),
        (refused(404), LoadError, "look at 'source.remote'", 1),
        (refused(500), WorkerLostError, "the words of the other side", 3),
        (refused(500, "", {"x-should-retry": "false"}), StepError, "the words of the other side", 1),
        ((307, {"location": "http://elsewhere.example/"}, b""), LoadError, "is elsewhere", 1),
        ((200, {}, b"<html>"), StepError, "not with a JSON object", 1),
        ((200, {}, b'{"data": []}'), StepError, "without a picture", 1),
        ((200, {}, b'{"data": [{"url": "http://x/y.png"}]}'), StepError, "response_format: b64_json", 1),
        ((200, {}, b'{"data": [{"b64_json": "AAAA"}]}'), StepError, "it is not a PNG", 1),
        (drawn(32, 64), StepError, "a picture of 32x64 where 64x64 was asked for", 1),
        ((200, {"content-type": "text/event-stream"}, b": ping\n\n"), WorkerLostError, "stopped in the middle", 3),
    ],
)  # fmt: skip
async def test_every_failure_of_the_other_side_has_a_meaning(
    tmp_path: Path, answer: Any, error: type[Exception], words: str, asked: int
) -> None:
    """Refusals, breakdowns and nonsense become the error that says who is at fault, in the other side's words; only
    what may go away is tried again."""
    server = Scripted(answer)
    async with asking(tmp_path, server) as asks:
        with pytest.raises(TriptychError, match=words) as told:
            await asyncio.wait_for(asks.generate(), 30)
    if error is LoadError:
        assert re.search(words, asks.host.statuses()["away"].reason)
    assert isinstance(told.value, error) or (error, told.value.code) == (WorkerLostError, WorkerLostError.code)
    assert status_of(told.value) == {RequestError: 400, SafetyError: 400, StepError: 500}.get(error, 503)
    assert len(server.asked) == asked


async def test_a_picture_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """After `timeout_s` without a picture the connection is closed and the step fails as one whose worker is lost."""

    async def never(send: Any) -> None:
        await asyncio.sleep(60)

    async with asking(tmp_path, Scripted(never), source={"timeout_s": 0.2}) as asks:
        with pytest.raises(StepError, match=r"made no picture within 0\.2 s") as told:
            await asyncio.wait_for(asks.generate(), 30)
    assert told.value.code == WorkerLostError.code


async def test_an_answer_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    """What is longer than a picture can be is refused before memory is full."""

    async def endless(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(Exception):
            for _ in range(100):
                await send({"type": "http.response.body", "body": b" " * 2**20, "more_body": True})

    async with asking(tmp_path, Scripted(endless)) as asks:
        with pytest.raises(StepError, match=r"with more than [0-9,]+ bytes"):
            await asyncio.wait_for(asks.generate(), 30)


async def test_what_it_tells_of_a_picture_can_be_passed_on(tmp_path: Path) -> None:
    """Halves of surrogate pairs, numbers that are none and words without end, which JSON can say, stop nothing and are
    not repeated."""
    odd = {"latency_s": float("nan"), "cost_usd": 10**400, "recipe": "r\ud800" + "x" * 999}
    status, headers, body = drawn(revised_prompt="a \ud83d circle")
    answer = json.dumps({**json.loads(body), "x_triptych": odd}).encode()
    async with asking(tmp_path, Scripted((status, headers, answer))) as asks:
        (made,) = (await asks.generate()).made
    facts = made.traces[0].facts
    assert facts["revised_prompt"] == "a ? circle" and len(str(facts["remote_recipe"])) == 200
    assert not {"remote_latency_s", "remote_cost_usd"} & facts.keys()
    json.dumps(dict(facts), allow_nan=False, ensure_ascii=False).encode("utf-8")
    wrong = (200, {}, b'{"data": [{"b64_json": "\\ud800\\u00e4"}]}')
    async with asking(tmp_path, Scripted(wrong)) as asks:
        with pytest.raises(StepError, match="what it calls a picture is none"):
            await asyncio.wait_for(asks.generate(), 30)


async def test_a_server_that_repeats_the_key_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other side says of a key goes to clients without the key itself."""
    monkeypatch.setenv("AWAY_KEY", "sk-secret-1")
    error = {"message": "Incorrect API key provided: sk-secret-1. Look at it", "code": "invalid_api_key"}
    for status in (400, 401, 500):
        server = Scripted((status, {"x-should-retry": "false"}, json.dumps({"error": error}).encode()))
        async with asking(tmp_path, server, source={"key_env": "AWAY_KEY"}) as asks:
            with pytest.raises(TriptychError, match=r"provided: \[the key\]\. Look") as told:
                await asyncio.wait_for(asks.generate(), 30)
        assert "secret" not in told.value.message


async def test_several_pictures_are_drawn_at_once(tmp_path: Path) -> None:
    """A server elsewhere has as many steps at once as `max_ongoing` says, and never more."""
    going, most = 0, 0

    async def slowly(send: Any) -> None:
        nonlocal going, most
        going, most = going + 1, max(most, going + 1)
        await asyncio.sleep(0.3)
        going -= 1
        await Scripted.say(send, *drawn())

    async with asking(tmp_path, Scripted(slowly), away={"max_ongoing": 3}) as asks:
        await asks.generate(n=7)
    assert most == 3


async def test_a_budget_rules_it_out_by_its_price(tmp_path: Path) -> None:
    """The price of a picture counts before and after: a request that may cost less than it does not go there, and one
    that does has cost it."""
    server = Scripted(drawn())
    async with asking(tmp_path, server, source={"price_usd": 0.04}) as asks:
        with pytest.raises(NoRecipeError) as told:
            await asks.generate(max_cost_usd=0.03)
        assert "request" in {r.gate for r in told.value.rejections if r.recipe == "away"}
        assert not server.asked
        assert (await asks.generate()).cost_usd == pytest.approx(0.04)
        assert (await asks.generate(n=2)).cost_usd == pytest.approx(0.08)
    async with asking(tmp_path, Scripted(drawn(96, 64)), source={"price_usd": 10, "price_per": "megapixel"}) as asks:
        outcome = await asks.generate(width=96, height=64)
    assert outcome.cost_usd == pytest.approx(10 * 96 * 64 / 1e6)


async def test_only_what_it_takes_is_sent(tmp_path: Path) -> None:
    """OpenAI is told model, prompt, number and size; other names and further fields are the card's; what it cannot be
    told is refused before anything is sent, and an answer without a seed says that it cannot be made again."""
    server = Scripted(drawn(revised_prompt="a very red circle"))
    async with asking(tmp_path, server, card={"settings": {"quality": "low"}}) as asks:
        outcome = await asks.generate()
        assert server.asked == [
            {"quality": "low", "model": "m", "prompt": "a red circle", "n": 1, "size": "64x64"}
        ]  # fmt: skip
        assert outcome.made[0].traces[0].facts["revised_prompt"] == "a very red circle"
        assert "seed" not in outcome.made[0].traces[0].step.settings
        (warning,) = unrepeatable(outcome)
        assert "/m, which is told no seed" in warning
        with pytest.raises(NoRecipeError) as told:
            await asks.generate(steps=30)
        assert "cannot be told 'steps'" in told.value.rejections[0].reason
    server = Scripted(drawn())
    takes = {"seed": "seed", "steps": "num_inference_steps"}
    async with asking(tmp_path, server, source={"takes": takes}, card={"steps": 9}) as asks:
        assert not unrepeatable(await asks.generate(seed=5))
    assert {key: server.asked[0][key] for key in ("seed", "num_inference_steps")} == {
        "seed": 5,
        "num_inference_steps": 9,
    }


async def test_the_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is sent with every request; without it the model is failed, with the name of the variable, and all else
    goes on."""
    monkeypatch.setenv("AWAY_KEY", "secret-1")
    server = Scripted(drawn())
    async with asking(tmp_path, server, source={"key_env": "AWAY_KEY"}) as asks:
        await asks.generate()
    assert set(server.keys) == {"Bearer secret-1"}
    monkeypatch.delenv("AWAY_KEY")
    async with asking(tmp_path, server, source={"key_env": "AWAY_KEY"}) as asks:
        with pytest.raises(LoadError, match="AWAY_KEY is not set"):
            await asks.generate()
        assert (await asks.generate("draft")).made


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ((200, b'{"data": [{"id": "n"}]}'), ""),
        ((404, b""), ""),
        ((200, b'{"data": 5}'), ""),
        ((200, b'{"data": [5, {"id": {}}, {}]}'), ""),
        ((503, b""), "answers 503"),
        ((401, b""), "refuses the key"),
        ((200, b'{"data": [{"id": "m", "x_triptych": {"state": "failed"}}]}'), "there, and failed"),
    ],
)
async def test_its_status_is_what_the_other_side_says(tmp_path: Path, models: tuple[int, bytes], reason: str) -> None:
    """`GET /models` of the other side decides whether the model is ready, with the reason and when that was seen."""
    server = Scripted(drawn())
    server.models = models
    async with asking(tmp_path, server) as asks:
        status = asks.host.statuses()["away"]
    assert (status.state, reason in status.reason) == ("failed" if reason else "ready", True)
    assert status.seen_at is not None
    assert status.facts["remote"].endswith("/m")  # type: ignore[union-attr]


REFUSED = {
    "refine": "{chain: [{generate: {model: sd15}}, {refine: {model: away, strength: 0.5}}]}",
    "take over": "{chain: [{generate: {model: sd15, until: 0.5}}, {refine: {model: away, from: 0.5}}]}",
    "leave off": "{chain: [{generate: {model: away, until: 0.5}}, {refine: {model: sdxl-refiner, from: 0.5}}]}",
    "steps": "{generate: {model: away, steps: 20}}",
    "tiles": "{generate: {model: away, tile: native, width: 128, height: 128}}",
}


@pytest.mark.parametrize("recipe", REFUSED)
def test_what_it_cannot_do_is_refused_when_a_policy_is_loaded(tmp_path: Path, recipe: str) -> None:
    """Recipes that give a server a picture to go on from, cut its denoising, or say what it has no word for do not
    load, and the reason names it."""
    catalogue = catalogue_of(settings_for(tmp_path, "http://127.0.0.1:9/v1"))
    policy = tmp_path / "odd.yaml"
    policy.write_text(
        f"version: 1\nname: odd\nrecipes: {{odd: {REFUSED[recipe]}}}\nobjective: {{minimise: latency_s}}\n"
    )
    with pytest.raises(PolicyError, match="'away' is drawn by 127"):
        load_policy(policy, known=known_of(catalogue))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"away": {"worker": "w"}, "sd15": {"worker": "w"}}, "give them two workers"),
        ({"away": {"device": "cuda", "num_gpus": 1}}, "needs no accelerator"),
        ({"away": {"dtype": "float16"}}, "dtype"),
    ],
)
def test_a_worker_is_here_or_elsewhere(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    """A worker with both kinds of models, or an accelerator for models that are drawn elsewhere, is refused."""
    made = settings_for(tmp_path, "http://127.0.0.1:9/v1").model_dump(exclude_unset=True)
    models = {
        name: {"card": str(tmp_path / "away.yaml") if name == "away" else f"embedded/{name}"} for name in made["models"]
    }
    for name, more in settings.items():
        models[name] |= more
    with pytest.raises(ConfigError, match=words):
        catalogue_of(parse_settings({"models": models}))


def test_its_process_imports_no_torch(tmp_path: Path) -> None:
    """A worker that holds only remote models loads, is asked how it is, and never imports torch."""
    settings_for(tmp_path, "http://127.0.0.1:9/v1")
    code = f"""
import sys
from deployments.assembly import catalogue_of, held_by, host_of
from deployments.settings import parse_settings
settings = parse_settings({{"models": {{"away": {{"card": {str(tmp_path / "away.yaml")!r}}}}}}})
host = host_of(held_by("away", settings, catalogue_of(settings)), settings.workers["away"], lambda card: {{}})
host.load()
assert "cannot be reached" in host.statuses()["away"].reason
heavy = {{"torch", "diffusers", "transformers"}} & set(sys.modules)
sys.exit(f"loaded: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
