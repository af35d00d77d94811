"""Requests, refusals and answers as `tests/golden/answers.json` has them; `python -m tests.deployments.entrance.test_answers` renews.

A change there is seen by every client: read it, and renew the file only if it is meant.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployments.api import errors as failures
from deployments.api.wire import responses
from deployments.api.wire.feedback import feedback_report, parse_feedback
from deployments.api.wire.files import encoded
from deployments.api.wire.requests import ImageRequest, json_of, parse_request, to_request
from deployments.jobs.live import Previews
from deployments.orchestration.results import Check, Failure, Made, Outcome, Overview, VerificationChoice
from deployments.settings import Limits
from deployments.workers.worker import WorkerStatus
from router import errors
from router.learning.feedback import Receipt
from router.planning.plan import make_plan
from router.route import Route
from router.types import (
    Chain,
    Decision,
    Estimate,
    Generate,
    GenerationRequest,
    ModelCard,
    Picture,
    Prices,
    PromptView,
    Quality,
    Ranked,
    Refine,
    Rejection,
    StepTrace,
    Turn,
    Verification,
)
from router.verification.score_reading import ScoreModel, ScoreReading
from tests.router.cards import CATALOGUE

WRITTEN = Path(__file__).parents[2] / "golden/answers.json"
LIMITS = Limits(max_prompt_chars=200, max_n=4, aliases={"dall-e-3": "best", "Mine": "auto"})
P = {"prompt": "a red circle"}
NAN, LONG = float("nan"), "x" * 201

BODIES: tuple[Any, ...] = (
    None, [], "text", {}, P, {"prompt": ""}, {"prompt": " \n"}, {"prompt": 7}, {"prompt": "a\0b"}, {"prompt": "\ud800"},
    {"prompt": "\udfff"}, {"prompt": "x" * 200}, {"prompt": LONG}, {"prompt": "caf\u0065\u0301"}, {"prompt": "\u200b\u200c"},
    {"prompt": "a\u200bb\u200dc\ufeffd\u2060e\u202af\x07g"}, {"prompt": "a\u200bb"}, {"prompt": "👩\u200d👧 mother"},
    {"prompt": "line\u2028two\x85three\ttab"}, {"prompt": "\u200dstart"}, {"prompt": "ends\u200d"},
    {"prompt": "a (red:1.3) circle"}, {"prompt": "a ((red)) circle"}, {"prompt": "cat++ on a mat"}, {"prompt": "C++ book"},
    {"prompt": "a <lora:thing:0.8> dog"}, {"prompt": "embedding:foo cat"}, {"prompt": "a [red|blue] ball"},
    {"prompt": "a {red|blue} ball"}, {"prompt": "a __colour__ ball"}, {"prompt": "a dog BREAK a cat"},
    {"prompt": "a dog AND a cat"}, {"prompt": "a dog --ar 16:9 --v 6"}, {"prompt": "a dog, ratio 16:9 (at 10:30)"},
    {"prompt": "a dog::2 cat::-1"}, {"prompt": "(a very long one " + "w" * 60 + ":1.2) thing"},
    {**P, "negative_prompt": "bl\u200bur (x:1.2)"}, {**P, "negative_prompt": None},
    {**P, "n": 0}, {**P, "n": 1.0}, {**P, "n": 1.5}, {**P, "n": 4}, {**P, "n": 5}, {**P, "n": 11}, {**P, "n": True},
    {**P, "n": "2"}, {**P, "n": np.int64(3)}, {**P, "seed": 0}, {**P, "seed": 2**32 - 1}, {**P, "seed": 2**32},
    {**P, "seed": -1}, {**P, "seed": 3.0}, {**P, "size": "512x768"}, {**P, "size": "0x512"}, {**P, "size": "512"},
    {**P, "size": "99999x1"}, {**P, "size": "100000x1"}, {**P, "size": "AUTO"}, {**P, "size": ""}, {**P, "size": "default"},
    {**P, "size": " 512X512 "}, {**P, "steps": 0}, {**P, "steps": 1}, {**P, "steps": 1000}, {**P, "steps": 1001},
    {**P, "guidance_scale": 0}, {**P, "guidance_scale": -0.1}, {**P, "guidance_scale": 1000}, {**P, "guidance_scale": 1001},
    {**P, "guidance_scale": NAN}, {**P, "latency_budget_s": 0}, {**P, "latency_budget_s": 0.1}, {**P, "max_cost_usd": 0},
    {**P, "max_cost_usd": -1}, {**P, "recipe": ""}, {**P, "recipe": "turbo"}, {**P, "tags": ["a", "b"]}, {**P, "tags": [""]},
    {**P, "tags": ["x" * 64]}, {**P, "tags": ["x" * 65]}, {**P, "tags": ["t"] * 33}, {**P, "tags": "a"},
    {**P, "tags": np.array(["a", "b"])}, {**P, "degrade": False}, {**P, "degrade": "no"}, {**P, "user": "ann"},
    {**P, "safety_identifier": "bob"}, {**P, "user": "ann", "safety_identifier": "bob"}, {**P, "user": "x" * 257},
    {**P, "quality": "low"}, {**P, "quality": "HD"}, {**P, "quality": "xhigh"}, {**P, "quality": "ultra"},
    {**P, "quality": "high", "model": "sdxl"}, {**P, "quality": "standard", "model": "sdxl"},
    {**P, "quality": "high", "model": "dall-e-3"}, {**P, "quality": "high", "model": "MINE"}, {**P, "model": ""},
    {**P, "quality": "high", "model": "best"}, {**P, "model": "DALL-E-3"}, {**P, "background": "transparent"},
    {**P, "background": "opaque"}, {**P, "output_format": "gif"}, {**P, "output_format": "jpg"},
    {**P, "output_format": "svg"}, {**P, "output_format": "bmp"}, {**P, "output_compression": 100},
    {**P, "output_compression": 50}, {**P, "output_compression": 50, "output_format": "webp"},
    {**P, "output_compression": 101, "output_format": "webp"}, {**P, "response_format": "url"},
    {**P, "response_format": "base64"}, {**P, "response_format": "bytes"}, {**P, "moderation": "low"},
    {**P, "moderation": "strict"}, {**P, "moderation": ""}, {**P, "stream": True, "partial_images": 3},
    {**P, "stream": True, "partial_images": 4}, {**P, "partial_images": 1}, {**P, "partial_images": 0},
    {**P, "style": "vivid"}, {**P, "style": "natural"}, {**P, "style": "x" * 80}, {**P, "input_fidelity": "high"},
    {**P, "turns": [{"recipe": "sd15", "bar": 1.0, "slope": 1.0, "offset": -0.5, "chance": 0.5}]},
    {**P, "turns": [{"recipe": "sd15", "bar": 1.1, "slope": 1.0, "offset": -0.5, "chance": 0.5}]},
    {**P, "turns": [{"recipe": "sd15", "bar": 0.0, "slope": 1.0, "offset": 0.0, "chance": 1.0}] * 17},
    *({**P, key: 1} for key in (
        "num_inference_steps", "cfg_scale", "CFG-Scale", "sampler", "images", "num_images_per_prompt", "aspect_ratio",
        "lora", "promt", "Seed", "negativePrompt", "batch_size", "strength", "safety_checker", "messages", "webhook",
        "xyzzy", "format", "model_id", "timeout", "style_preset", "svg",
    )),
    {**P, "width": 640}, {**P, "height": 300, "w": 200}, {**P, "width": 640, "height": 480}, {**P, "width": "640"},
    {**P, "width": True}, {**P, "width": 0, "h": 99_999}, {**P, "width": 100_000}, {**P, "a": 1, "n": 0},
    {"n": 0, "seed": -1, **P}, {**P, "size": "x" * 100}, {**P, "stream": 1},
)  # fmt: skip
TEXTS = (
    b'{"prompt": "a"}', b"", b"{", b'{"a": 1,\n "b": }', b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "b": 2}}', b"[" * 100_000,
    b'{"a": ' + b"9" * 5000 + b"}", b'{"prompt": "\xff"}', b'\xef\xbb\xbf{"prompt": "a"}', '{"prompt": "é"}'.encode("utf-16"),
)  # fmt: skip
OPINIONS: tuple[Any, ...] = (
    {"id": "r", "rating": 1}, {"id": "r", "rating": 5}, {"id": "r", "rating": 4.0}, {"id": "r", "rating": 0.9},
    {"id": "r", "rating": 5.1}, {"id": "r", "thumb": "up"}, {"id": "r", "thumb": "down"}, {"id": "r", "thumb": "left"},
    {"id": "r", "score": 0, "scorer": "a"}, {"id": "r", "score": 1, "scorer": "a.b-c_d"}, {"id": "r", "score": 1},
    {"id": "r", "score": 1.01, "scorer": "a"}, {"id": "r", "score": -0.01, "scorer": "a"}, {"id": "r"}, {"rating": 3},
    {"id": "r", "rating": 3, "scorer": "a"}, {"id": "r", "rating": 3, "thumb": "up"}, {"id": "", "rating": 3},
    {"id": "x" * 129, "rating": 3}, {"id": "r", "rating": 3, "image": 0}, {"id": "r", "rating": 3, "image": -1},
    {"id": "r", "rating": 3, "image": 1.0}, {"id": "r", "score": 0.5, "scorer": "-a"}, {"id": "r", "stars": 3},
    {"id": "r", "rating": 3, "score": 0.5, "scorer": "a", "thumb": "up"}, b'{"id": "r", "rating": 2}', b"{", None,
)  # fmt: skip
FAILURES: tuple[BaseException, ...] = (
    errors.RequestError("m", "p"), errors.RequestError("m", None, "request_too_large"),
    errors.RequestError("m", None, "unsupported_media_type"), errors.RequestError("m", None, "method_not_allowed"),
    errors.RequestError("m", None, "admin_key_required"), errors.RequestError("m", None, "admin_disabled"),
    errors.NotFoundError("m", "model"), errors.PlanError("m", "size"), errors.LoadError("m"), errors.StepError("m"),
    errors.NoRecipeError("m", (Rejection("a", "limit", "why"),)), errors.OverloadedError("m", 0.2),
    errors.OverloadedError("m", 7.01), errors.BudgetError("m", 30.0), errors.DeadlineError("m"), ValueError("secret"),
    errors.CatalogueError("m"), errors.UnlikelyError("m"), errors.SafetyError("m"),
    errors.SafetyError("m", "output", ("nsfw",)),
)  # fmt: skip


def parsed(body: Any) -> Any:
    """What of the request is not as it is without the field, and the warnings."""
    wire, usual = parse_request(body, LIMITS), asdict(GenerationRequest(""))
    request = replace(to_request(wire, LIMITS, "id"), arrived_s=usual["arrived_s"])
    given = asdict(replace(request, seed=usual["seed"]) if wire.seed is None else request)
    return [{key: value for key, value in given.items() if value != usual[key]}, list(wire.warnings)]


def opinion(body: Any) -> Any:
    wire = parse_feedback(body)
    return feedback_report(wire, Receipt((0, 1), ("draft", "best"), False))


def failure(error: BaseException) -> Any:
    return [
        failures.status_of(error),
        failures.envelope(error, "req_1"),
        failures.envelope(error),
        failures.headers(error),
    ]


def tried(ask: Callable[[Any], Any], given: Any) -> Any:
    """What comes of it, as JSON has it."""
    try:
        found = ask(given)
    except errors.TriptychError as error:
        found = {"error": [error.message, error.code, getattr(error, "param", None)]}
    return json.loads(json.dumps(found, default=str))


# ------------------------------------------------------------------------------------------------ answers, made by hand

ASK = GenerationRequest("a red circle, a very odd word", seed=5, n=2, width=64, height=32, target="main", tags=("t",),
                        negative_prompt="no", steps=12, guidance_scale=2.0)  # fmt: skip
RELAY = Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8)))
PLAN = make_plan("relay", RELAY, replace(ASK, width=1024, height=1024), CATALOGUE, {})
VIEW = PromptView(ASK.prompt, {"words": 3.0, "none": 0.0}, {"counting": 0.123456789, "none": 0.0}, np.zeros(3, np.float32),
                  familiarity=0.25)  # fmt: skip
DECISION = Decision(
    recipe="relay", policy="main", policy_digest="0123456789ab", ranking=(Ranked("relay", 0.123456789), Ranked("b", -1.0)),
    rejected=(Rejection("c", "limit", "too dear"),), reasons=("one", "two"), rules=("r",), propensity=0.75,
    verify=Verification(scorer="alignment", accept_above=0.5, escalate_to=("b",), prices=Prices(0.1, 2.0)),
)  # fmt: skip
ESTIMATES = {"relay": Estimate("relay", Quality(0.4999, 0.1234567), 1.0, 0.5, 1.5, 0.00123456789),
             "b": Estimate("b", Quality(0.5, 0.1, "prior"), 1.0, 0.0, 1.0, 0.002)}  # fmt: skip
ROUTE = Route(request=ASK, view=VIEW, estimates=ESTIMATES, decision=DECISION, plan=PLAN, decided_in_s=0.00123456789,
              alternatives={}, score_reading=ScoreReading(ScoreModel(1.0, 1.0, 0.0, (1.0,), (-1.0,)), 2.0, True, "told"),
              artifact="f" * 64)  # fmt: skip


def picture(recipe: str = "relay", seed: int = 5, index: int = 0, **facts: Any) -> Made:
    traces = tuple(
        StepTrace(step, k + 0.123456789, k + 1.0, 0.987654321, {"revision": f"rev{k}", **facts})
        for k, step in enumerate(PLAN.steps)
    )
    check = Check(recipe, 0.7654321, traces[:1], probability=0.61234567, accepted=True, seed=seed)
    choice = VerificationChoice("keep", recipe, "why", 0.1234567891, 0.2, None)
    pixels = np.full((32, 64, 3), 100, np.uint8)
    return replace(
        Made(Picture(pixels), seed, "digest", traces, recipe), checks=(check,), choices=(choice,), index=index
    )


def outcome(*made: Made, route: Route = ROUTE, **more: Any) -> Outcome:
    given: dict[str, Any] = {"latency_s": 1.23456789, "cost_usd": 0.00123456789, "estimated_cost_usd": 0.00111111111,
                             "notes": ("noted",), "failed": (Failure(1, 6, "lost", "step_failed"),)}  # fmt: skip
    return Outcome(route=route, made=made, **(given | more))


def wire(**fields: Any) -> ImageRequest:
    return parse_request({**P, **fields}, LIMITS)


def seen(route: Route, **changes: Any) -> Route:
    return replace(route, view=replace(route.view, **changes))


def answers() -> dict[str, Any]:
    """Reports of pictures that were never drawn."""
    turns = (Turn("sd15", 1.0, 1.0, 0.0, 0.5), Turn("sdxl", 0.5, 1.0, 0.0, 0.5))
    hoped = {**ESTIMATES, "relay": replace(ESTIMATES["relay"], quality=Quality(0.5, 0.1))}
    named = replace(ROUTE, request=replace(ASK, recipe="relay", target="auto"))
    unread = [picture(truncated_tokens=3), picture(truncated_tokens=9), picture(truncated_tokens=0)]
    found: dict[str, Any] = {
        "two pictures": responses.outcome_report(outcome(picture(), picture(seed=6, index=1)), wire(style="vivid"), "req"),
        "one picture of another seed": responses.outcome_report(outcome(picture(seed=99)), wire(), "req")["replay"],
        "of another recipe": responses.outcome_report(outcome(picture("b")), wire(), "req")["replay"],
        "of two recipes": responses.replay(ROUTE, wire(), {"relay", "b"}),
        "no estimate of its cost": responses.outcome_report(outcome(picture(), estimated_cost_usd=None), wire(), "r")[
            "estimated_cost_usd"],
        "unread": responses.unread(outcome(*unread)), "read": responses.unread(outcome(picture())),
        "turns": responses.replay(replace(ROUTE, turns=turns), wire(output_format="webp", output_compression=50), {"relay"}),
        "turns of another": responses.replay(replace(ROUTE, turns=turns), wire(), {"b"}),
        "a model by its name": responses.replay(named, wire(model="sdxl"), {"relay"}),
        "a recipe by its field": responses.replay(named, wire(recipe="relay"), {"relay"}),
        "no size": responses.replay(replace(ROUTE, request=GenerationRequest("x", seed=0)), wire(), {"relay"}),
        "hoped for": responses.warnings(replace(ROUTE, estimates=hoped)),
        "unknown words": responses.warnings(seen(ROUTE, unsaid=tuple("abcdefgh"))),
        "many unknown words": responses.warnings(seen(ROUTE, unsaid=tuple("abcdefghi"))),
        "without a check": responses.route_report(replace(ROUTE, decision=replace(DECISION, verify=None)))["verify"],
        "not calibrated": responses.route_report(replace(ROUTE, score_reading=None))["verify"],
        "warned": responses.route_report(ROUTE, ["asked"], ["made"])["warnings"],
        "headers": responses.headers({"recipe": "a", "policy": "b", "policy_digest": "c"}),
        "headers of pictures": responses.headers({"recipe": "a", "policy": "b", "policy_digest": "c", "latency_s": 1.5,
                                                  "cost_usd": 0.00123456789}),
        "usage": responses.usage(outcome(picture(), picture())),
        "usage of nothing": responses.usage(
            outcome(replace(picture(), picture=Picture(np.zeros((8, 8, 3), np.uint8))),
                    route=replace(ROUTE, request=replace(ASK, prompt="...")))),
    }  # fmt: skip
    for kind in ("b64_json", "bytes"):
        for quality in ("auto", "hd", "low", "standard"):
            asked = wire(response_format=kind, quality=quality, output_format="webp")
            body = responses.with_files(responses.images_result(outcome(picture()), asked, "req"), [b"file"], asked)
            body.pop("x_triptych"), body.pop("created")
            event = responses.event_body("completed", b"file", "64x32", asked)
            event.pop("created_at")
            found[f"{kind} of quality {quality}"] = [body, event]
    cards = [
        ModelCard("sdxl", "sdxl", "base", {"local": "-"}),
        ModelCard("score", "verifier", "scorer", {"local": "-"}),
    ]
    for name, states in {
        "ready": "ready ready",
        "starting": "ready starting",
        "failed": "failed ready",
        "none": "",
    }.items():
        pairs = zip(("sdxl", "score"), states.split(), strict=False)
        statuses = {model: WorkerStatus(model, state, "why") for model, state in pairs}  # type: ignore[arg-type]
        overview = Overview(policies=(), cards=tuple(cards), statuses=statuses, artifact="f" * 64, problems=())
        found[f"readiness, {name}"] = responses.readiness(overview)
        found[f"readiness, {name}, no artefact"] = responses.readiness(replace(overview, artifact_problem="gone"))
        found[f"readiness, {name}, problems"] = responses.readiness(replace(overview, problems=("bad",)))
    for wanted in (0, 1, 2, 3):
        for steps in (0, 1, 2, 3):
            previews = Previews(wanted, steps)
            found[f"{wanted} previews of {steps} steps"] = [previews.take(k % 2) for k in range(24)]
    return found


def everything() -> dict[str, Any]:
    """All of it, as JSON has it."""
    return {
        **{f"body {k}: {_named(body)}": tried(parsed, body) for k, body in enumerate(BODIES)},
        **{f"text {k}": tried(lambda raw: json_of(raw, "{}"), raw) for k, raw in enumerate(TEXTS)},
        **{f"opinion {k}: {_named(body)}": tried(opinion, body) for k, body in enumerate(OPINIONS)},
        **{f"failure {k}: {type(error).__name__}": tried(failure, error) for k, error in enumerate(FAILURES)},
        **{f"answer: {name}": json.loads(json.dumps(told, default=str)) for name, told in answers().items()},
    }


def _named(body: Any) -> str:
    return ascii({key: value for key, value in body.items() if (key, value) != ("prompt", P["prompt"])}
                 if isinstance(body, dict) else body)[:60]  # fmt: skip


@pytest.mark.parametrize("kind", ["body", "text", "opinion", "failure", "answer"])
def test_what_clients_send_and_get_is_as_it_is_written_down(kind: str) -> None:
    """Every body, opinion and failure is understood, refused and answered in the words of before."""
    before = {name: told for name, told in json.loads(WRITTEN.read_text("utf-8")).items() if name.startswith(kind)}
    now = {name: told for name, told in everything().items() if name.startswith(kind)}
    assert len(before) == len(now) > 5
    assert [name for name in now if now[name] != before.get(name)] == []


def test_a_file_tells_how_its_picture_was_made() -> None:
    """Prompt, seed, recipe, policy, plan and the revision of every model are in the picture's file."""
    file = encoded(picture(guest_revision="guest"), ROUTE, wire())
    assert base64.b64decode(responses.b64(file)) == file
    info = str(Image.open(io.BytesIO(file)).info)
    for word in (
        "a red circle, a very odd word",
        "main@0123456789ab",
        "digest",
        "rev0",
        "rev1",
        "sdxl-refiner",
        "relay",
    ):
        assert word in info, word


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(told, ensure_ascii=True)}" for name, told in everything().items()]
    WRITTEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
