"""`triptych feedback` and `triptych router` log, retrain, rollback, called as a shell would call them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.settings import AppSettings
from deployments.store.decision_log import DecisionLog
from router.learning.ratings import read_ratings
from router.registry.artifact import load_artifact
from tests.deployments.support.use import POLICY, live
from tests.store.test_decision_log import old_log

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tiny_settings: dict[str, Any], settings: AppSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, its policy, its artefact, and a log that says that drafts are hated."""
    home = tmp_path_factory.mktemp("home")
    (home / "policies").mkdir()
    (home / "policies" / "lived.yaml").write_text(POLICY.format(rate=0.4))
    shutil.copytree(settings.artifact_path, home / "artefact")
    args = {
        **tiny_settings,
        "policies": {"directory": str(home / "policies"), "default": "lived"},
        "artifact": str(home / "artefact"),
        "store": {"url": f"sqlite:///{home / 'log.sqlite'}", "pictures": str(home / "pictures")},
        "feedback": {"store_prompts": "text"},
    }
    application = {"name": "triptych", "import_path": "deployments.app:build", "args": args}
    (home / "serve.yaml").write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    hated = {"draft": 0.05, "single": 0.9, "premium": 0.5}
    live(settings, DecisionLog(home / "log.sqlite", "text"), lambda _, recipe: hated[recipe], decisions=240)
    return home


def test_rating_by_command(triptych: Run, home: Path) -> None:
    """`feedback ID --rating` writes to the log of the config; an unknown id and a wrong rating exit with 2."""
    config = ("--config", home / "serve.yaml")
    code, out, err = triptych("feedback", "req_None_0_3", "--rating", 5, *config)
    assert code == 0, err
    assert "rating 1 of 0 to 1" in out and "replaces" in out
    code, out, _ = triptych("feedback", "req_None_0_3", "--score", 0.5, "--scorer", "mine", "--json", *config)
    assert code == 0 and json.loads(out)["source"] == "scorer:mine"
    for thumb, value in (("up", 1), ("down", 0)):
        code, out, _ = triptych("feedback", "req_None_0_3", "--thumb", thumb, "--json", *config)
        assert code == 0 and json.loads(out)["value"] == value
    triptych("feedback", "req_None_0_3", "--rating", 5, *config)
    for args, says in (
        (("req_None_0_3", "--thumb", "sideways"), "up"),
        (("req_None_0_3", "--thumb", "up", "--rating", 5), "one of them"),
        (("nobody", "--rating", 5), "no request 'nobody'"),
        (("req_None_0_3", "--rating", 9), "outside 1"),
        (("req_None_0_3",), "give a rating or a score"),
    ):
        code, out, err = triptych("feedback", *args, *config)
        assert (code, out) == (2, "") and says in " ".join(err.split())


def test_the_log_is_counted_and_exported(triptych: Run, home: Path, tmp_path: Path) -> None:
    """`log` counts; `--export` writes a table that `train` reads; where there is nothing to export, that is said."""
    config = ("--config", home / "serve.yaml")
    code, out, err = triptych("router", "log", "--json", *config)
    assert code == 0, err
    report = json.loads(out)
    assert (report["decisions"], report["policies"], report["feedback"]["rating"]) == (240, {"lived": 240}, 240)
    code, out, err = triptych("router", "log", "--export", tmp_path / "ratings.csv", *config)
    assert code == 0 and "wrote 240 ratings" in " ".join(err.split()) and "lived: 240" in out
    ratings = read_ratings(tmp_path / "ratings.csv")
    assert len(ratings) == 240
    assert {rating.recipe for rating in ratings} <= {
        "sd15@12:scheduler=dpmsolver++",
        "sdxl",
        "flux>sdxl-refiner:strength=0.25",
    }
    code, _, err = triptych("router", "log", "--export", tmp_path / "none.csv", "--source", "scorer:none", *config)
    assert code == 2 and "no feedback of that source" in " ".join(err.split())
    code, _, err = triptych("router", "log", tmp_path / "nowhere.sqlite", *config)
    assert code == 2 and "there is no such log" in " ".join(err.split())


def test_a_prompt_is_forgotten_by_command(triptych: Run, home: Path, tmp_path: Path) -> None:
    """`--forget` deletes by prompt."""
    for file in home.glob("log.sqlite*"):
        shutil.copy(file, tmp_path)
    prompt = DecisionLog(tmp_path / "log.sqlite").rated("rating")[0][0].prompt
    code, out, err = triptych(
        "router", "log", tmp_path / "log.sqlite", "--forget", prompt, "--json", "--config", home / "serve.yaml"
    )
    assert code == 0 and "deleted 2 decisions" in " ".join(err.split())
    assert json.loads(out)["decisions"] == 238
    args = yaml.safe_load((home / "serve.yaml").read_text())
    args["applications"][0]["args"]["store"] |= {"url": f"sqlite:///{tmp_path / 'log.sqlite'}"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(args))
    prompt = DecisionLog(tmp_path / "log.sqlite").rated("rating")[0][0].prompt
    code, _, err = triptych("router", "log", "--forget", prompt, "--config", tmp_path / "serve.yaml")
    assert code == 0 and "deleted 2 decisions, and 0 jobs with 0 pictures, on that prompt" in " ".join(err.split())


def test_retrain_swaps_and_rollback_undoes(triptych: Run, home: Path) -> None:
    """A dry run changes nothing; a winner is in force (exit code 0), the same log again is too little (2); rollback."""
    config = ("--config", home / "serve.yaml")
    before = load_artifact(home / "artefact").digest
    code, out, err = triptych("router", "retrain", "--from-feedback", "--dry-run", *config)
    assert code == 0, err
    assert "nothing was changed" in out and load_artifact(home / "artefact").digest == before
    code, out, err = triptych("router", "retrain", "--from-feedback", home / "log.sqlite", "--json", *config)
    assert code == 0, err
    report = json.loads(out)
    assert report["swapped"] and report["digest"] == load_artifact(home / "artefact").digest != before
    assert set(report["comparison"]["estimates"]) == {"ips", "snips", "dr"}
    code, out, err = triptych("router", "retrain", "--from-feedback", *config)
    assert code == 2 and "240 that the artefact in force has learned from already" in " ".join(err.split())
    code, out, err = triptych("router", "rollback", *config)
    assert code == 0 and before[:12] in out, err
    assert load_artifact(home / "artefact").digest == before


def test_a_winner_that_nobody_serves_is_not_called_in_force(triptych: Run, home: Path, tmp_path: Path) -> None:
    """`retrain --out` and `rollback --artefact` of a folder that the config does not serve say what is served."""
    config, served = ("--config", home / "serve.yaml"), load_artifact(home / "artefact").digest
    out_folder = shutil.copytree(home / "artefact", tmp_path / "elsewhere")
    code, out, err = triptych("router", "retrain", "--from-feedback", "--out", out_folder, *config)
    assert code == 0, err
    page = " ".join(out.split())
    assert "which is not in force" in page and f"serve.yaml serves {home / 'artefact'}" in page
    assert "in force: " not in page.replace("not in force: ", "")
    assert load_artifact(home / "artefact").digest == served != load_artifact(out_folder).digest
    code, out, err = triptych("router", "rollback", "--artefact", out_folder, *config)
    assert code == 0 and "which is not in force" in " ".join(out.split()), err
    code, out, err = triptych("router", "retrain", "--from-feedback", "--out", tmp_path / "new", "--json", *config)
    assert code == 0 and json.loads(out)["served"] is False, err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["retrain"], "--from-feedback"),
        (["retrain", "--from-feedback", "--policy", "lved"], "did you mean 'lived'"),
        (["retrain", "--from-feedback", "--source", "scorer:none"], "at least 100"),
        (["retrain", "--from-feedback", "--artefact", "nowhere"], "nowhere holds no trained artefact"),
        (["rollback", "--digest", "ffff"], "no earlier artefact"),
    ],
)
def test_what_is_wrong_is_one_message(triptych: Run, home: Path, args: list[str], says: str) -> None:
    """Wrong input exits with 2 and says what, where and the remedy."""
    code, out, err = triptych("router", *args, "--config", home / "serve.yaml")
    assert (code, out) == (2, ""), err
    assert says in " ".join(err.split())


def test_a_database_that_is_down_is_said_by_command(triptych: Run, home: Path, tmp_path: Path) -> None:
    """Where the store's server is away, commands say where it should be, without a traceback or its password."""
    config = yaml.safe_load((home / "serve.yaml").read_text())
    config["applications"][0]["args"]["store"]["url"] = "postgresql+psycopg://me:secret@127.0.0.1:9/triptych"
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    old_log(tmp_path / "old.sqlite")
    for command, expected in (
        (("router", "log", "--take-over", tmp_path / "old.sqlite"), 4),
        (("router", "log", "--forget", "x"), 2),
        (("router", "log"), 2),
    ):
        code, out, err = triptych(*command, "--config", tmp_path / "serve.yaml")
        assert (code, out) == (expected, "") and "Traceback" not in err and "secret" not in err
        page = " ".join(err.split())
        assert "127.0.0.1:9/triptych" in page and "refused" in page
