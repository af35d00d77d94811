"""Decisions are remembered and can be rated: over HTTP, as builtins, and when the log is broken."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.api.service import Service
from deployments.assembly import build_orchestrator, log_of
from deployments.in_process import LocalWorkers
from deployments.orchestration.orchestrator import Orchestrator
from deployments.settings import AppSettings
from deployments.store.decision_log import DecisionLog
from router.errors import ArtifactError
from router.registry.artifact import load_artifact
from router.registry.versions import roll_back, succeed
from router.types import GenerationRequest
from tests.deployments.support.scripted import GREY, Script, jobs_of, scripted

GENERATE, FEEDBACK = "/v1/images/generations", "/v1/feedback"
CHECKED = """
recipes:
  small: {generate: {model: sd15, steps: 1}}
  large: {generate: {model: flux, steps: 1}}
objective: {minimise: cost_usd}
verify: {scorer: alignment, accept_above: 0.6, escalate_to: [large]}
explore: {rate: 0.5}
"""


@pytest.fixture(scope="module")
async def made(client: httpx.AsyncClient) -> dict[str, Any]:
    """An answer with two pictures."""
    body = {"prompt": "a red circle", "model": "switch", "seed": 1, "n": 2}
    response = await client.post(GENERATE, json=body, headers={"x-request-id": "req_made"})
    return response.json()["x_triptych"]


def logged(settings: AppSettings) -> DecisionLog:
    return log_of(settings)


async def test_a_person_rates_a_picture(client: httpx.AsyncClient, settings: AppSettings, made: dict[str, Any]) -> None:
    """The id of an answer takes a rating, which lies in the log beside the decision as it was reported."""
    assert made["request_id"] == "req_made"
    answer = (await client.post(FEEDBACK, json={"id": "req_made", "rating": 4, "image": 1})).json()
    expected = {"object": "feedback", "id": "req_made", "source": "rating", "value": 0.75, "images": [1]}
    expected["scale"] = "rating 4, from 1 (useless) to 5 (just what was asked for)"
    assert answer == {**expected, "recipes": [made["recipe"]], "replaced": False}
    again = (await client.post(FEEDBACK, json={"id": "req_made", "rating": 1, "image": 1})).json()
    assert (again["replaced"], again["value"]) == (True, 0.0)
    record, said = next(entry for entry in logged(settings).rated("rating") if entry[0].id == "req_made")
    assert [(f.image, f.value) for f in said] == [(1, 0.0)]
    assert (record.recipe, record.propensity, record.policy) == (made["recipe"], made["propensity"], "switch")
    assert record.policy_digest == made["policy_digest"]
    assert record.artifact.startswith(made["artifact"])
    assert set(record.options) == {entry["recipe"] for entry in made["ranking"]}
    assert record.made == (made["recipe"],) * 2
    assert record.prompt == ""


async def test_a_program_scores_all_pictures(client: httpx.AsyncClient, made: dict[str, Any]) -> None:
    """A score carries its scorer's name, stands beside ratings, and without `image` is for every picture."""
    body = {"id": "req_made", "score": 0.25, "scorer": "my-clip"}
    answer = (await client.post(FEEDBACK, json=body)).json()
    assert (answer["source"], answer["value"], answer["images"]) == ("scorer:my-clip", 0.25, [0, 1])


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        ({"id": "req_unknown", "rating": 3}, 404, "id", "request_id"),
        ({"rating": 3}, 400, "id", "required"),
        ({"id": "req_made"}, 400, "rating", '"rating": 4'),
        ({"id": "req_made", "rating": 0.5}, 400, "rating", "`score`"),
        ({"id": "req_made", "rating": 5.01}, 400, "rating", "1 (useless) to 5"),
        ({"id": "req_made", "rating": True}, 400, "rating", "number"),
        ({"id": "req_made", "rating": "4"}, 400, "rating", "number"),
        ({"id": "req_made", "score": 0.5}, 400, "scorer", "name of its scorer"),
        ({"id": "req_made", "score": 1.5, "scorer": "x"}, 400, "score", "0 to 1"),
        ({"id": "req_made", "score": 0.5, "scorer": "a b"}, 400, "scorer", "form"),
        ({"id": "req_made", "score": 0.5, "scorer": "alignment"}, 400, "scorer", "under another name"),
        ({"id": "req_made", "rating": 3, "score": 0.5, "scorer": "x"}, 400, "rating", "one of them"),
        ({"id": "req_made", "rating": 3, "image": 2}, 400, "image", "0 to 1"),
        ({"id": "req_made", "rating": 3, "image": -1}, 400, "image", "greater"),
        ({"id": "req_made", "ratng": 3}, 400, "ratng", "did you mean 'rating'"),
        ([], 400, None, "JSON object"),
    ],
)
async def test_bad_feedback_gets_the_envelope_with_the_remedy(
    client: httpx.AsyncClient, made: dict[str, Any], body: Any, status: int, param: str | None, says: str
) -> None:
    """What is unknown is a 404, what is out of range a 400; each names its field and what to do."""
    response = await client.post(FEEDBACK, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert says in error["message"]


async def test_builtins_do_as_well(service: Service, made: dict[str, Any]) -> None:
    """What a handle calls takes and returns dicts, failures included."""
    answer = await service.answer(lambda _: service.feedback({"id": "req_made", "rating": 2}))
    assert answer["value"] == 0.25
    failed = await service.answer(lambda _: service.feedback({"id": "nothing", "rating": 2}))
    assert failed["error"]["code"] == "not_found"


async def test_a_streamed_answer_can_be_rated(client: httpx.AsyncClient) -> None:
    """The id in the last event is known to the log by the time it arrives."""
    body = {"prompt": "a blue ring", "model": "switch", "stream": True}
    response = await client.post(GENERATE, json=body, headers={"x-request-id": "streamed"})
    assert '"request_id":"streamed"' in response.text.replace(": ", ":")
    assert (await client.post(FEEDBACK, json={"id": "streamed", "rating": 5})).status_code == 200


async def test_explaining_is_not_logged(client: httpx.AsyncClient, settings: AppSettings, made: Any) -> None:
    """`/v1/route` decides without consequence, so there is nothing to rate."""
    before = logged(settings).counts()["decisions"]
    await client.post("/v1/route", json={"prompt": "a red circle"}, headers={"x-request-id": "explained"})
    assert logged(settings).counts()["decisions"] == before
    assert (await client.post(FEEDBACK, json={"id": "explained", "rating": 5})).status_code == 404


async def test_verdicts_are_feedback_of_the_scorer(settings: AppSettings, tmp_path: Path) -> None:
    """What verification says of each picture it saw, the rejected one too, lies in the log without anybody's doing."""
    script, log = Script({GREY["sd15"]: 0.2, GREY["flux"]: 0.9}), DecisionLog(tmp_path / "log.sqlite")
    orchestrator, _ = scripted(settings, tmp_path, script, {"checked": CHECKED}, log=log)
    await orchestrator.generate(GenerationRequest("a red circle", id="r"))
    ((record, said),) = log.rated("scorer:alignment")
    assert [(f.image, f.recipe, f.value) for f in said] == [(0, "large", 0.9), (0, "small", 0.2)]
    assert (record.recipe, record.made) == ("small", ("large",))
    assert record.keys == {"small": "sd15@1", "large": "flux@1"}


@pytest.mark.parametrize(("draw", "recipe"), [(0.1, "large"), (0.4, "small"), (0.9, "small")])
async def test_the_propensity_counts_every_way_to_the_recipe(
    settings: AppSettings, tmp_path: Path, draw: float, recipe: str
) -> None:
    """Half the requests are drawn from two: the best has 3/4, the other 1/4, whichever way it came about."""
    log = DecisionLog(tmp_path / "log.sqlite")
    script = Script({GREY["sd15"]: 0.9, GREY["flux"]: 0.9})
    orchestrator, _ = scripted(settings, tmp_path, script, {"checked": CHECKED}, lambda: draw, log=log)
    await orchestrator.generate(GenerationRequest("a red circle", id="r"))
    ((record, _),) = log.rated("scorer:alignment")
    assert (record.recipe, record.propensity) == (recipe, 0.25 if recipe == "large" else 0.75)
    assert record.explored is (draw < 0.5)


async def test_a_broken_log_fails_no_request(settings: AppSettings, tmp_path: Path, caplog: Any) -> None:
    """Where the log cannot be written, pictures come as ever, with one warning and a count; feedback says so."""
    for number, path in enumerate((Path("/proc/nowhere/log.sqlite"), tmp_path / "foreign")):
        (tmp_path / "foreign").write_text("not a database" * 500)
        script = Script({GREY["sd15"]: 0.9})
        folder = tmp_path / str(number)
        folder.mkdir()
        orchestrator, tally = scripted(settings, folder, script, {"checked": CHECKED}, log=DecisionLog(path))
        caplog.clear()
        for _ in range(3):
            outcome = await orchestrator.generate(GenerationRequest("a red circle", id="r"))
            assert outcome.made
        assert tally.value("triptych_log_failures_total") == 3
        assert [r.message.startswith("decisions are not logged") for r in caplog.records] == [True]
        service = Service(jobs_of(orchestrator), settings.limits)
        failed = await service.answer(lambda _, asked=service: asked.feedback({"id": "r", "rating": 2}))
        assert failed["error"]["code"] in ("not_found", "step_failed")


async def test_logging_can_be_switched_off(settings: AppSettings) -> None:
    """Without a log requests are answered, and feedback says why it finds nothing."""
    off = settings.model_copy(update={"feedback": settings.feedback.model_copy(update={"log": False})})
    orchestrator = build_orchestrator(off, {}, LocalWorkers(settings))
    service = Service(jobs_of(orchestrator), settings.limits)
    failed = await service.answer(lambda _: service.feedback({"id": "r", "rating": 2}))
    assert "decisions are not logged here" in failed["error"]["message"]


async def test_the_next_request_follows_the_artefact(settings: AppSettings, tmp_path: Path) -> None:
    """An artefact that is put in place of another counts for the next request; a broken one counts for none."""
    folder = Path(shutil.copytree(settings.artifact_path, tmp_path / "serving"))
    live = settings.model_copy(update={"artifact": str(folder)})
    orchestrator = build_orchestrator(live, {}, LocalWorkers(settings))
    first = load_artifact(folder)

    async def decided_by() -> str:
        return (await orchestrator.route(GenerationRequest("a red circle"))).artifact

    assert await decided_by() == first.digest
    second = succeed(folder, {**first.config, "name": "other"}, first.weights, first.card)
    assert await decided_by() == second.digest != first.digest
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest + " ")
    (folder / "card.md").write_text("tampered")
    assert await decided_by() == second.digest
    overview = await orchestrator.overview()
    assert "changed after training" in overview.artifact_problem
    assert (overview.artifact, _gauge(orchestrator)) == (second.digest, 1.0)
    shutil.rmtree(folder)
    shutil.copytree(settings.artifact_path, folder)
    assert await decided_by() == first.digest
    assert ((await orchestrator.overview()).artifact_problem, _gauge(orchestrator)) == ("", 0.0)
    assert orchestrator.metrics.value("triptych_artifact_changes_total") == 2  # type: ignore[attr-defined]


def _gauge(orchestrator: Orchestrator) -> float:
    return orchestrator.metrics.value("triptych_artifact_problems")  # type: ignore[attr-defined]


def test_what_was_in_force_is_kept_and_found(settings: AppSettings, tmp_path: Path) -> None:
    """Rolling back names a digest or goes one step; where there is nothing earlier, the error says so."""
    folder = Path(shutil.copytree(settings.artifact_path, tmp_path / "serving"))
    with pytest.raises(ArtifactError, match="no earlier artefact to go back to"):
        roll_back(folder)
    first = load_artifact(folder)
    for name in ("second", "third"):
        succeed(folder, {**first.config, "name": name}, first.weights, first.card)
    with pytest.raises(ArtifactError, match="no earlier artefact 'ffff'"):
        roll_back(folder, "ffff")
    assert roll_back(folder, first.digest).digest == first.digest
    assert roll_back(folder).config["name"] == "third"


@pytest.mark.parametrize(("thumb", "value"), [("up", 1.0), ("down", 0.0)])
async def test_a_thumb_is_a_person_with_two_buttons(
    client: httpx.AsyncClient, made: dict[str, Any], thumb: str, value: float
) -> None:
    """A thumb up counts as the best rating, down as the worst, and the receipt names the scale that was meant."""
    answer = (await client.post(FEEDBACK, json={"id": "req_made", "thumb": thumb, "image": 0.0})).json()
    assert (answer["source"], answer["value"], answer["images"]) == ("rating", value, [0])
    assert answer["scale"] == f"thumb {thumb}, of up (rating 5) and down (rating 1)"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"rating": -1}, "+1 and -1 as `thumb`"),
        ({"rating": 4, "thumb": "up"}, "one of them"),
        ({"thumb": "sideways"}, "'up' or 'down'"),
        ({"thumb": "up", "scorer": "mine"}, "scorer"),
    ],
)
async def test_an_unclear_opinion_says_how_to_give_one(
    client: httpx.AsyncClient, said: dict[str, Any], words: str
) -> None:
    """What could be meant on another scale is refused with the field that has it."""
    response = await client.post(FEEDBACK, json={"id": "req_made", **said})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
