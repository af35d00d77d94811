"""`triptych bootstrap` and `triptych label` as a shell calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.settings import load_serve_config
from router.registry.artifact import load_artifact
from tests.router.conftest import synthetic_prompts

Run = Callable[..., tuple[int, str, str]]


def test_a_policy_that_may_answer_otherwise_is_refused(triptych: Run, tmp_path: Path) -> None:
    """A ladder may make another picture than the one that is measured; nothing is begun, and the remedy is said."""
    code, _, err = triptych("bootstrap", "--out", tmp_path / "run", "-p", "frugal", "--prompts", "everyday")
    assert code == 2 and "verifies by a ladder" in err and "expected_gain" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--judge", "aligment"), "did you mean 'alignment'"),
        (("--choose", "best"), "value or uniform"),
        (("--prompts", "nowhere.txt"), "nowhere.txt"),
        (("-p", "balansed"), "did you mean 'balanced'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(
    triptych: Run, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """A wrong option ends with exit code 2 and what is right, and leaves no study behind."""
    code, _, err = triptych("bootstrap", "--out", tmp_path / "run", "--prompts", "everyday", *options)
    assert code == 2 and said in " ".join(err.split())
    assert not (tmp_path / "run").exists()


def test_labels_need_a_study_and_a_person(triptych: Run, tmp_path: Path) -> None:
    """Without a study there is nothing to label."""
    code, _, err = triptych("label", tmp_path)
    assert code == 2 and "holds no study" in err


def test_few_prompts_are_no_study(triptych: Run, tmp_path: Path) -> None:
    """Prompts that differ by case and spaces count once; too few are refused with how many it takes."""
    (tmp_path / "p.csv").write_text("prompt\n" + "\n".join([f"a  cat {k % 20}" for k in range(200)]))
    code, _, err = triptych("bootstrap", "--out", tmp_path / "run", "--prompts", tmp_path / "p.csv")
    assert code == 2 and "20 different prompts; a study needs 60" in err


@pytest.mark.slow
def test_on_random_checkpoints_routing_is_not_worth_it(
    triptych: Run, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """The whole command on tiny random models of the real classes, judged by the embedded verifier: no claim is made,
    and what comes out is served as it says. Called again, it draws nothing."""
    config = tmp_path / "serve.yaml"
    models = {**tiny_settings["models"], "alignment": {"card": "embedded/alignment", "device": "cpu", "num_cpus": 0}}
    application = {
        "name": "triptych",
        "import_path": "deployments.app:build",
        "args": {**tiny_settings, "models": models},
    }
    config.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(synthetic_prompts(90)))
    args = ("bootstrap", "--out", tmp_path / "run", "-p", "quality", "--prompts", prompts, "--judge", "alignment",
            "--pictures", 130, "--proof", 0.4, "--config", config, "--json")  # fmt: skip
    code, out, err = triptych(*args)
    assert code == 0, err
    report = json.loads(out)
    assert report["pays"] is False and report["verdict"].startswith("Routing is not worth it here")
    assert report["pictures"] == 130 and report["unjudged"] == 0
    page = Path(report["page"]).read_text(encoding="utf-8")
    assert "pays here" not in page
    served = load_serve_config(report["config"]).settings
    assert load_artifact(served.artifact_path).digest == report["digest"]
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run" / "pictures").iterdir()}
    code, out, err = triptych(*args)
    assert code == 0 and json.loads(out)["digest"] == report["digest"], err
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run" / "pictures").iterdir()}
