"""The wire in: what is accepted, what is refused, and in which words."""

import json
import math
from typing import Any

import pytest

from deployments.api.wire.requests import parse_body, parse_request, to_request
from deployments.settings import Limits
from router.errors import RequestError

LIMITS = Limits()


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "prompt", "required"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": " \n"}, "prompt", "empty"),
        ({"prompt": 7}, "prompt", "valid string"),
        ({"prompt": ["a"]}, "prompt", "valid string"),
        ({"prompt": "a" * 40_000}, "prompt", "40,000 characters"),
        ({"prompt": "\ud800"}, "prompt", "surrogate"),
        ({"prompt": "a\0b"}, "prompt", "NUL"),
        ({"n": 0}, "n", "greater than or equal to 1, not 0"),
        ({"n": 11}, "n", "less than or equal to 10, not 11"),
        ({"n": "2"}, "n", "integer"),
        ({"n": True}, "n", "integer"),
        ({"size": "big"}, "size", "WIDTHxHEIGHT"),
        ({"size": "0x64"}, "size", "WIDTHxHEIGHT"),
        ({"size": "-64x64"}, "size", "WIDTHxHEIGHT"),
        ({"guidance_scale": math.nan}, "guidance_scale", "finite"),
        ({"guidance_scale": math.inf}, "guidance_scale", "finite"),
        ({"latency_budget_s": 0}, "latency_budget_s", "greater than 0"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**32}, "seed", "less than or equal to"),
        ({"steps": 2.5}, "steps", "integer"),
        ({"promt": "x"}, "promt", "did you mean 'prompt'?"),
        ({"background": "transparent"}, "background", "no alpha"),
        ({"output_format": "gif"}, "output_format", "png"),
        ({"svg": {"model": "x"}}, "svg", "vector"),
        ({"priority": "urgent"}, "priority", "interactive"),
        ({"webhook_url": "https://x"}, "webhook_url", "it is called 'webhook' here"),
        ({"stream": True, "partial_images": 4}, "partial_images", "less than or equal to 3"),
        ({"output_compression": 50}, "output_compression", "lossless"),
        ({"quality": "max"}, "quality", "low, medium"),
        ({"moderation": "strict"}, "moderation", "'auto' or 'low'"),
        ({"tags": "print"}, "tags", "tuple"),
    ],
)
def test_bad_input_is_refused_by_field(body: dict[str, Any], param: str, words: str) -> None:
    """Every malformed field is one `RequestError` that names the field and says what is wrong with it."""
    with pytest.raises(RequestError) as refused:
        parse_request({"prompt": "a circle", **body} if param != "prompt" else body, LIMITS)
    assert refused.value.param == param
    assert words in refused.value.message


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"3", b"[" * 100_000, b'{"a": ' + b"9" * 9999 + b"}", b"\xff"]
)
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    """Whatever bytes come, the answer is a `RequestError`, never a crash."""
    with pytest.raises(RequestError):
        parse_body(raw, LIMITS)


def test_null_means_not_given() -> None:
    """A request of explicit nulls, as OpenAI's client sends it, equals one that names the prompt only."""
    fields = "n size model quality background output_format output_compression moderation response_format stream style"
    nulls = dict.fromkeys([*fields.split(), "partial_images", "user", "seed", "recipe", "tags", "svg"])
    assert parse_body(json.dumps({"prompt": "a", **nulls}).encode(), LIMITS) == parse_request({"prompt": "a"}, LIMITS)


def test_fields_reach_the_request() -> None:
    """What a client writes is what the router gets."""
    body = {
        "prompt": "a ring", "n": 2, "size": "64x32", "model": "best", "seed": 5, "steps": 9, "guidance_scale": 2,
        "negative_prompt": "text", "latency_budget_s": 3, "max_cost_usd": 0.1, "recipe": "duel", "tags": ["print"],
        "user": "ann",
    }  # fmt: skip
    request = to_request(parse_request(body, LIMITS), LIMITS)
    assert (request.width, request.height, request.n, request.seed, request.steps) == (64, 32, 2, 5, 9)
    assert (request.target, request.recipe, request.tags, request.tenant) == ("best", "duel", ("print",), "ann")
    assert (request.guidance_scale, request.latency_budget_s, request.max_cost_usd) == (2.0, 3.0, 0.1)


def test_a_missing_seed_is_drawn_anew() -> None:
    """Two requests without a seed get two different ones."""
    wire = parse_request({"prompt": "a"}, LIMITS)
    assert to_request(wire, LIMITS).seed != to_request(wire, LIMITS).seed


def test_quality_picks_a_policy() -> None:
    """OpenAI's `quality` stands for a policy when the model is left open."""
    wire = parse_request({"prompt": "a", "quality": "hd"}, LIMITS)
    assert to_request(wire, LIMITS).target == "best"
